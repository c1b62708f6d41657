"""The store's tables of molecules: features, conformers, trunk, residues.

Read `tables.py` first.
"""
