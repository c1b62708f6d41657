"""Distances to the training molecules, as features and as detectors.

Read `distances.py` first.
"""
