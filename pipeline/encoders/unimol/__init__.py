"""Uni-Mol v1 with torch and numpy alone: neither Ray nor RDKit is imported here."""

from pipeline.encoders.unimol.encoder import UniMolEncoder
from pipeline.encoders.unimol.model import UniMol, UniMolConfig

__all__ = ["UniMol", "UniMolConfig", "UniMolEncoder"]
