"""Uni-Mol2's weights: what `--weights` and `--model_size` name, and where the file is found."""

from __future__ import annotations

import os
from pathlib import Path

from pipeline.encoders.unimol.weights import UNTRAINED, Weights, find_or_download
from pipeline.runtime.errors import InputError

HUB_REPOSITORY = "dptech/Uni-Mol2"
DEFAULT_SIZE = "84m"
# The published files by size, as unimol_tools names them in its weight folder.
PUBLISHED = {
    "84m": "modelzoo/84M/checkpoint.pt",
    "164m": "modelzoo/164M/checkpoint.pt",
    "310m": "modelzoo/310M/checkpoint.pt",
    "570m": "modelzoo/570M/checkpoint.pt",
    "1.1B": "modelzoo/1.1B/checkpoint.pt",
}


def checked_size(model_size: str | None) -> str:
    """A published size; the default for None.

    Raises
    ------
    InputError
        If there is no such size.
    """
    size = model_size or DEFAULT_SIZE
    if size not in PUBLISHED:
        raise InputError(f"--model_size {size}: Uni-Mol2 was published in {', '.join(PUBLISHED)}")
    return size


def resolve_weights(weights: str | None, size: str) -> Weights:
    """Find the weights that the settings name.

    Parameters
    ----------
    weights : a path to a checkpoint; or a folder that holds published ones under their names; or
        such a name; or "untrained" for seeded random values; None for the published file of the
        size, which is looked for in the folder that UNIMOL_WEIGHT_DIR names, else in
        unimol_tools' own folder and in ~/.cache/molsieve/weights, and downloaded if absent.
    size : one of PUBLISHED.

    Raises
    ------
    InputError
        If the file is missing, the name or folder is that of another size, or the download fails.
    """
    name = PUBLISHED[size]
    if weights == UNTRAINED:
        return Weights(None, f"{UNTRAINED} {size}")
    if weights is None or (weights == name and not Path(name).is_file()):
        path = find_or_download(name, HUB_REPOSITORY, f"--weights {UNTRAINED}, random values")
        return Weights(path.absolute(), f"unimol2 {size}")
    path = Path(weights).expanduser()
    if weights in PUBLISHED.values() and not path.exists():
        raise InputError(f"--weights {weights} is of another size than --model_size {size}")
    if path.is_dir():
        return Weights(_in_folder(path, name).absolute(), f"unimol2 {size}")
    if not path.is_file():
        raise InputError(
            f"--weights {weights}: no such file; for unimol2 give a checkpoint's path, a folder "
            f"that holds {name}, {name} itself, or {UNTRAINED}"
        )
    return Weights(path.absolute(), path.name)


def checkpoint_of(weights: str | None, model_size: str | None) -> Path | None:
    """The file that both settings lead to, None if untrained; errors as of what finds it."""
    return resolve_weights(weights, checked_size(model_size)).path


def _in_folder(folder: Path, name: str) -> Path:
    """The published file in a folder: with all of its path, or the last parts of it.

    The last part alone is the same for all sizes, of which the folder's name tells then.
    """
    parts = Path(name).parts
    for start in range(len(parts)):
        path = folder.joinpath(*parts[start:])
        if not path.is_file():
            continue
        sizes = {size.lower(): size for size in PUBLISHED}
        other = sizes.get(Path(os.path.abspath(path)).parent.name.lower())
        if other is not None and PUBLISHED[other] != name:
            raise InputError(
                f"--weights {folder} is of another size; with it give --model_size {other}"
            )
        return path
    raise InputError(f"--weights {folder}: the folder holds no {name}")
