"""Figures of the page as SVG: numbers in, blocks out. Read `plot.py` first."""
