"""What finetuning needs of a Uni-Mol: the layers above a cut, what enters them, what came of it.

Read first: `top` (the trained layers), `trunk` (the rows that enter them), `finetuned` (the trained
tensors in a checkpoint), `adapters` (LoRA).
"""
