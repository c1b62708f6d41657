"""Metrics of cells in, statistics, comparisons and tables out. Read `output.py` first."""
