"""An error model's parts as files: arrays as safetensors, the rest as JSON."""

from __future__ import annotations

from pipeline.detectors.kept import array_bytes, read_arrays
from pipeline.trust.described import Described
from pipeline.trust.errors.inputs import Known, Space

VIEW, SPACE = "view.", "space."


def saved_known(known: Known) -> bytes:
    """The molecules known, without their descriptors: nobody asks for these again."""
    arrays = {"bits": known.molecules.bits, "labels": known.labels}
    for name, features in known.molecules.encoded().items():
        arrays[f"{VIEW}{name}"] = features
        space = known.spaces[name]
        arrays[f"{SPACE}{name}.mean"] = space.mean
        arrays[f"{SPACE}{name}.whitening"] = space.whitening
    return array_bytes(arrays)


def known_of(content: bytes) -> Known:
    """The inverse of `saved_known`."""
    arrays = read_arrays(content)
    views = {
        name.removeprefix(VIEW): array for name, array in arrays.items() if name.startswith(VIEW)
    }
    spaces = {
        name: Space(
            features, arrays[f"{SPACE}{name}.mean"], arrays[f"{SPACE}{name}.whitening"]
        )
        for name, features in views.items()
    }  # fmt: skip
    return Known(Described(arrays["bits"], views), arrays["labels"], spaces)
