"""What is read off a molecule or a sequence: fingerprints, descriptors, neighbours.

Read `fingerprints.py` first.
"""
