"""The generator: latents of residues → a diffusion model and a decoder → peptides of a class.

`network.py` and `decoder.py` are the model, `batches.py` what it is trained on, `loop.py` how;
`fitting.py` runs that by Ray Train, `sampling.py` draws.
"""
