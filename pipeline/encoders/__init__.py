"""Encoders: molecules on one device to features; neither Ray nor files of data.

In: conformers, SMILES or sequences. Out: features (n, dim) float32.

Read first: `load_encoder` here, `base` (what every encoder offers), `unimol.encoder`.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from pipeline.encoders.base import Encoder
from pipeline.runtime.errors import InputError

# Each encoder is imported only when it is asked for: they need different libraries.
ENCODERS = {
    "unimol": "pipeline.encoders.unimol:UniMolEncoder",
    "unimol2": "pipeline.encoders.unimol2.encoder:UniMol2Encoder",
    "minimol": "pipeline.encoders.minimol.encoder:MiniMolEncoder",
    "ecfp": "pipeline.encoders.ecfp:EcfpEncoder",
    "descriptors": "pipeline.encoders.descriptors:DescriptorEncoder",
    "esm": "pipeline.encoders.esm.encoder:EsmEncoder",
}

# Those that --model_size chooses a model of, and the module that finds its weights.
SIZED = {
    "unimol2": "pipeline.encoders.unimol2.weights",
    "esm": "pipeline.encoders.esm.weights",
}


def encoder_class(name: str) -> type[Encoder]:
    """The class of an encoder, by its registered name.

    Raises
    ------
    InputError
        If no encoder has that name, or a library that it needs is not installed.
    """
    if name not in ENCODERS:
        raise InputError(f"no encoder is called {name!r}; there are: {', '.join(sorted(ENCODERS))}")
    try:
        return resolve_name(ENCODERS[name])
    except ModuleNotFoundError as error:
        raise InputError(
            f"the encoder {name!r} needs the package {error.name!r}; "
            f"install it with: pip install 'molsieve[{name}]'"
        ) from None


def checkpoint_of(name: str, weights: str | None, model_size: str | None) -> Path | None:
    """The file, or the folder, of an encoder that comes in sizes; None of others, and if untrained.

    Raises
    ------
    InputError
        If the weights cannot be had.
    """
    if name not in SIZED:
        return None
    return importlib.import_module(SIZED[name]).checkpoint_of(weights, model_size)


def load_encoder(name: str, **settings: Any) -> Encoder:
    """Load an encoder onto a device.

    Parameters
    ----------
    name : one of `ENCODERS`.
    **settings : what the encoder's class takes, such as weights, device, precision.

    Examples
    --------
    >>> encoder = load_encoder("unimol", weights="untrained", device="cpu", precision="fp32")
    >>> encoder.encode_smiles(["CCO", "c1ccccc1"]).shape
    (2, 512)
    """
    return encoder_class(name)(**settings)


__all__ = ["ENCODERS", "SIZED", "Encoder", "checkpoint_of", "encoder_class", "load_encoder"]
