"""What MolSieve understands of a data file, and what a run over it would cost, before any waiting.

In: any data file, and if named an encoder or a checkpoint. Out: lines for the reader, and JSON:
formats, columns, ids, rows, rejected rows by reason, duplicates, labels, splits, domains,
structures; molecules in the store and to make. Read `run.py` first.
"""
