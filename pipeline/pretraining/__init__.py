"""Molecules without labels to Uni-Mol weights of one's own.

In: a data file. Out: model.pt in the published format, curves of the losses.

Read first: `run` (what jobs.pretrain calls), `loop` (what each worker runs), `masked_molecules`.
"""
