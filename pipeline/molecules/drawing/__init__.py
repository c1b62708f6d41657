"""Molecules in, drawings of them out: PNG grids and SVG. Read `drawings.py` first."""
