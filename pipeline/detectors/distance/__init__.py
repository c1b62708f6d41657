"""Distances to the training molecules, to learn from: the view `distances`, `distance_lr`.

Detectors by the nearest alone are in `classical/neighbours.py`.

Read `distances.py` first.
"""
