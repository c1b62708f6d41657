"""Proteins and peptides without labels to an ESM-2 of one's own, in Hugging Face's layout.

Read first: `run`, then `loop` (what each worker runs), `crops` and `masking` (what it sees);
`baselines` say what can be told of a residue without a network.
"""
