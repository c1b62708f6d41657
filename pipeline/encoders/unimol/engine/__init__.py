"""Uni-Mol's forward pass, fast: `forward` computes what `pipeline.encoders.unimol.model` does.

Read first: `forward`, then `kernels` (what it asks of a device), `cpu` and `cuda`.
"""
