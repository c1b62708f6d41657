"""Molecules without labels to Uni-Mol weights of one's own, in the published format.

Read first: `run`, then `loop` (what each worker runs), `masked_molecules`.
"""
