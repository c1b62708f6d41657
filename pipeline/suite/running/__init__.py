"""The suite's work: cells of the grid in, metrics of each out. Read `schedule.py` first."""
