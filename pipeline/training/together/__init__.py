"""Heads that differ in seed and numbers alone, trained as one batched model.

In: features in the store, and settings of every head. Out: what `train_head` gives, for each.
Read `trainer.py` first (which settings go together, and what falls back to single trainings),
then `head_stack.py` (an epoch) and `loop.py` (what a worker runs).
"""
