"""A checkpoint's files, without pickle. Read `checkpoint.py` first."""
