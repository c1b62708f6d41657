"""What runs on Ray Train's workers: rows of features in, a trained head out.

Read `loop.py` first.
"""
