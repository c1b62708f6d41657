"""Features and fingerprints to scores: higher means more OOD.

In: `Inputs` of n molecules: features (n, width), packed ECFP4. Out: scores (n,).

Read first: `base` (what every detector takes and offers), `registry`; then one detector, such as
`neighbours`. The energy heads are `energy_head` and `losses`; `pipeline.training` trains them.
"""
