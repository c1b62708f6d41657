"""Property models: features and labels in, predictions and how unsure they are out.

Read `property_models.py` first.
"""
