"""Frozen against finetuned encoder over seeds: runs, statistics, figures, a summary.

In: a split file and settings. Out: a folder for each run, comparison_summary.txt and .json.

Read first: `run` (what jobs.compare calls), `schedule` (how runs are made), `statistics`.
"""
