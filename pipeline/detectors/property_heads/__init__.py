"""Detectors by a property head's own doubt. Read `property_detectors.py` first."""
