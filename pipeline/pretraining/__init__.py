"""Molecules or sequences without labels to weights of one's own: a Uni-Mol or an ESM-2.

In: a data file. Out: weights in the layout of the published ones, curves of the losses.

Read first: `run` (what jobs.pretrain calls), then `molecules` or `sequences`, each with its `run`
and the `loop` of its workers; `training` has what both share.
"""
