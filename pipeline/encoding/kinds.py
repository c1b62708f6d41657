"""The kind of molecules that encoders take; a text alone does not tell it."""

from __future__ import annotations

from collections.abc import Iterable

from pipeline.encoders import ENCODERS, encoder_class
from pipeline.molecules.kinds import KINDS, Kind


def kind_of_views(views: Iterable[str]) -> Kind:
    """The kind that the encoders among some views take; no source is encoded for two kinds."""
    encoder = next(view for view in views if view in ENCODERS)
    return KINDS[encoder_class(encoder).takes]
