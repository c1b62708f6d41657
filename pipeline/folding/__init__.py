"""Sequences to what is known of their structures, residue by residue, in the store.

In: sequences, and ESMFold's weights or a folder of structure files. Out: features of residues (see
`features.COLUMNS`) in the store's tables of structures, which have a bound, and the sequences that
cannot have any, with the reason.

Read first: `features` (what is kept), `tables` (where, and how a training reads it), `run` (what
jobs.fold calls). `esmfold` makes structures, `files` reads those that users have; the `flow` of
each is what runs where.
"""
