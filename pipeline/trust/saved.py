"""An error model's parts as files: arrays as safetensors, the rest as JSON."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from pipeline.trust.described import Described
from pipeline.trust.inputs import Known, Space

VIEW, SPACE = "view.", "space."


def packed(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Arrays as safetensors."""
    from safetensors.numpy import save

    return save({name: np.ascontiguousarray(array) for name, array in arrays.items()})


def unpacked(content: bytes) -> dict[str, np.ndarray]:
    """The inverse of `packed`."""
    from safetensors.numpy import load

    return load(content)


def saved_known(known: Known) -> bytes:
    """The molecules known, without their descriptors: nobody asks for these again."""
    arrays = {"bits": known.molecules.bits, "labels": known.labels}
    for name, features in known.molecules.encoded().items():
        arrays[f"{VIEW}{name}"] = features
        space = known.spaces[name]
        arrays[f"{SPACE}{name}.mean"] = space.mean
        arrays[f"{SPACE}{name}.whitening"] = space.whitening
    return packed(arrays)


def known_of(content: bytes) -> Known:
    """The inverse of `saved_known`."""
    arrays = unpacked(content)  # in no order
    views = {
        name.removeprefix(VIEW): arrays[name] for name in sorted(arrays) if name.startswith(VIEW)
    }
    spaces = {
        name: Space(
            features, arrays[f"{SPACE}{name}.mean"], arrays[f"{SPACE}{name}.whitening"]
        )
        for name, features in views.items()
    }  # fmt: skip
    return Known(Described(arrays["bits"], views), arrays["labels"], spaces)
