"""ESM-2 (Lin et al., Science 2023): transformers' model in the flow of encoders.

`tokens` makes of a sequence what the model reads, `weights` finds a model's folder, `model` loads
it, `encoder` has the encoder.
"""
