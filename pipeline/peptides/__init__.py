"""Peptides with classes in; a generator out, and peptides that it made, judged beside controls.

In: sequences with a class, the latents that ESM-2 gives each of their residues, and what is known
of their structures, if anything. A diffusion model of the latents is trained together with a
decoder from latents to residues (`diffusion/`). Out: new sequences with scores, and what they are
worth beside held-out real peptides, shuffled ones and random ones (`judged.py`, `controls.py`).

Read `run.py` first.
"""
