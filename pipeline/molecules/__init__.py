"""Files to molecules: every row parsed, identified, and kept with its reason if it is none.

In: a data file or folder. Out: a table of molecules (`id`, `key`, canonical `smiles`, ...) and a
table of rejected rows; for training, each molecule's role. A source's molecules are of one kind
(`kinds`); proteins and peptides are sequences, which stand in the column `smiles` as well.

Read first: `sources` (the way from file to molecule), then `formats`, `parsers`, `identity` and
`sequences`, `roles`.
`reading` knows the formats of files, `features` fingerprints and descriptors, `drawing` pictures;
`splitting` is what jobs.split calls.
"""
