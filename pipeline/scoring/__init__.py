"""A checkpoint and a library of any size to scores, streamed chunk by chunk.

In: the folder `checkpoint`, data files. Out: `scores` and `rejected` as Parquet datasets, the most
and least OOD molecules.

Read first: `run` (what jobs.score calls), `graph` (the steps in order), `steps` (what runs on
workers), `verdicts`; `output` has what is left in the folder.
"""
