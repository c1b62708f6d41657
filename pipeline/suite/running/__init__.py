"""The suite's work: cells of the grid in, metrics of each out.

`schedule.py` has tasks, failures and progress, `group.py` what runs on workers.
"""
