"""The error model: labelled molecules in, expected errors and intervals of others out.

Read `error_model.py` first; `out_of_fold.py` and `inputs.py` say what it learns from.
"""
