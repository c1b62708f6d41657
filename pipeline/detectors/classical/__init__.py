"""Detectors that fit no network: Gaussians, trees, neighbours. Read `gaussians.py` first."""
