"""Uni-Mol's pretraining task: `masking` hides atoms, `objective` is the model and its losses."""
