"""What is computed once and found again: tables of rows keyed by molecule, as Parquet shards.

In: rows and what decides them. Out: the same rows in any later run with the same settings.

Read first: `keyed_table`; `bounded` has tables that may take so much room and no more.
`checkpoint_folder` reads the files of a trained head's folder.
"""
