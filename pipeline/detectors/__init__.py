"""Features to energies, the OOD scores: higher means more OOD.

In: features (n, width). Out: energies (n,).

Read first: `energy_head`, then `losses`, by which it is trained.
"""
