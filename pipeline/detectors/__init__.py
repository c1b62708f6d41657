"""Features and fingerprints to scores: higher means more OOD.

In: `Inputs` of n molecules: features (n, width), packed ECFP4. Out: scores (n,).

Read first: `base` (what every detector takes and offers), `registry`; then one detector, such as
`classical/neighbours`. `heads` are the energy heads, which `pipeline.training` trains; `distance`
has distances to learn from, `property_heads` go by a property head's doubt.
"""
