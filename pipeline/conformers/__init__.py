"""SMILES to one 3D structure each.

In: a SMILES. Out: a `Conformer` (atoms, coordinates in Å), or the reason why there is none.

Read first: `rdkit_embedder` (the recipe); `child_process` runs it where it may be killed,
`on_all_cores` in many such processes without Ray, `nvmolkit_embedder` on a GPU. `structure` tells
what is less than a 3D structure.
"""
