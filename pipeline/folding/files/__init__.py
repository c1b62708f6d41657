"""Structures from users' files: `reading` one file, `matching` to sequences, `flow` over all."""
