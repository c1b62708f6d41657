"""The suite's data sets: names or files in, molecules with roles out. Read `data_sets.py` first."""
