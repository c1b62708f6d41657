"""Molecules as an encoder reads them, made apart from it on any core, and sent to it as bytes.

An encoder says by `graph` that it reads a class of graphs: a NamedTuple of arrays, with `of_row`
that makes one of a row as the encoder's `prepare` does, without any weights.
"""

from __future__ import annotations

from pkgutil import resolve_name
from typing import Any

import numpy as np
from safetensors.numpy import load, save

from pipeline.encoders import encoder_class


def graph_class(encoder: str) -> type:
    """The class of the graphs that an encoder reads.

    Parameters
    ----------
    encoder : one of `pipeline.encoders.ENCODERS` whose `graph` is not None.
    """
    return resolve_name(encoder_class(encoder).graph)


def packed(graph: Any) -> bytes:
    """A graph's arrays in safetensors' format."""
    # Of an array that is a view safetensors writes the memory, in its order there.
    return save({name: np.ascontiguousarray(part) for name, part in graph._asdict().items()})


def unpacked(content: bytes, kind: type) -> Any:
    """The graph of a class that `packed` made bytes of."""
    return kind(**load(content))
