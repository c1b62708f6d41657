"""The generator: features (n, d) with classes → a diffusion model → features of a class.

`fitting.py` trains one by Ray Train, `generator.py` is what comes of it, `sampling.py` draws.
"""
