"""What the store keeps of molecules: features, conformers, trunk, residues; whose structures.

Read `tables.py` first.
"""
