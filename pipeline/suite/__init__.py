"""Grids of trainings over data sets, encoders, detectors, seeds and settings, with statistics.

In: settings that name what is crossed with what. Out: a file a cell, cells.parquet, summary.json,
tables.

Read first: `run` (what jobs.suite calls), `grid` and `sweep` (what a training is), `opened`
(samples, features, cells). `data` has the data sets, `running` the work on workers, `results` the
statistics and tables.
"""
