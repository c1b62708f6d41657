"""Uni-Mol2: unimol_tools' model in the flow of encoders.

`graph` makes of a molecule what the model reads, `model` fills unimol_tools' class with weights,
`weights` finds them, `encoder` has the encoder.
"""
