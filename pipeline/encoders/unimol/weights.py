"""Uni-Mol's weights: what `--weights` names, where the file is found, how it is fetched."""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import os
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from pipeline.runtime.errors import InputError

log = logging.getLogger(__name__)

UNTRAINED = "untrained"
UNTRAINED_SEED = 0
HUB_REPOSITORY = "dptech/Uni-Mol-Models"
NO_HYDROGENS, ALL_HYDROGENS = "mol_pre_no_h_220816.pt", "mol_pre_all_h_220816.pt"
PUBLISHED = (NO_HYDROGENS, ALL_HYDROGENS)
PUBLISHED_SHA256 = {
    NO_HYDROGENS: "da27196af09a8c6d089e10b7764b6a716bcc33da227fc118f5b45b0e484585e9",
}
WEIGHT_DIR_VARIABLE = "UNIMOL_WEIGHT_DIR"
MINI = "mini"
MINI_FILE = Path(__file__).parent / "mini" / "mini.pt"
MINI_SHA256 = "d4741c5c81d6b5324d1989d3fa7d762f7409e1d18ed4008e25e00cc727a27831"


class Weights(NamedTuple):
    """A resolved `--weights`: its path (None if untrained) and a label for reports."""

    path: Path | None
    label: str

    @property
    def sha256(self) -> str:
        """Hex SHA-256 of the file, or what stands for it if untrained."""
        return f"{UNTRAINED}-{UNTRAINED_SEED}" if self.path is None else sha256_of(self.path)

    @property
    def keeps_hydrogens(self) -> bool:
        """Whether the weights were trained with hydrogens, by the published file's name."""
        return self.path is not None and self.path.name.startswith("mol_pre_all_h")


def resolve_weights(weights: str | None) -> Weights:
    """Find the weights that a setting names.

    Parameters
    ----------
    weights : a path to a checkpoint; or the name of a published one; or None, which means
        the published weights without hydrogens; or "mini" for MolSieve-Mini, the small
        pretrained model that comes with this package; or "untrained" for seeded random ones.
        A published name is looked for in the folder that UNIMOL_WEIGHT_DIR names, else in
        unimol_tools' own folder and in ~/.cache/molsieve/weights, and downloaded if absent.

    Raises
    ------
    InputError
        If the file is missing, or the download fails, or the download or MolSieve-Mini has the
        wrong SHA-256.
    """
    if weights == UNTRAINED:
        return Weights(None, UNTRAINED)
    if weights == MINI:
        return _mini()
    name = weights or NO_HYDROGENS
    if name in PUBLISHED and not Path(name).is_file():
        path = find_or_download(
            name, HUB_REPOSITORY, f"--weights {MINI}, a small Uni-Mol that comes with MolSieve"
        )
    else:
        path = Path(name).expanduser()
        if not path.is_file():
            raise InputError(
                f"--weights {name}: no such file; give a checkpoint's path, one of "
                f"{', '.join(PUBLISHED)}, {MINI}, or {UNTRAINED}"
            )
    return Weights(path.absolute(), path.name)


def _mini() -> Weights:
    if not MINI_FILE.is_file():
        raise InputError(f"--weights {MINI}: {MINI_FILE} is not there; install MolSieve anew")
    if sha256_of(MINI_FILE) != MINI_SHA256:
        raise InputError(
            f"--weights {MINI}: {MINI_FILE} is not the file that belongs to this version "
            f"(its SHA-256 is not {MINI_SHA256}); install MolSieve anew, or, if it is another "
            "model that you mean, give its path"
        )
    return Weights(MINI_FILE, MINI)


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of a file; read anew only if the file has changed."""
    status = path.stat()
    return _sha256_of(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=8)
def _sha256_of(path: Path, *_version: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def weight_folders() -> list[Path]:
    """The folders in which published weights are looked for; a download goes to the first."""
    if WEIGHT_DIR_VARIABLE in os.environ:
        return [Path(os.environ[WEIGHT_DIR_VARIABLE]).expanduser()]
    folders = [Path("~/.cache/molsieve/weights").expanduser()]
    spec = importlib.util.find_spec("unimol_tools")  # locates the package, does not import it
    if spec and spec.origin:
        folders.append(Path(spec.origin).parent / "weights")
    return folders


def _find_published(name: str) -> Path | None:
    for folder in weight_folders():
        path = folder / name
        if path.is_file():
            expected = PUBLISHED_SHA256.get(name)
            if expected and sha256_of(path) != expected:
                log.warning("%s is not the published file: its SHA-256 differs", path)
            return path
    return None


def find_or_download(name: str, repository: str, instead: str) -> Path:
    """A published checkpoint in a folder of weights, after a download if it is in none.

    Parameters
    ----------
    name : of the file in the repository, and its path below the folder.
    repository : of huggingface.co.
    instead : what works without it, for the error.

    Raises
    ------
    InputError
        If the download fails, or has the wrong SHA-256.
    """
    return _find_published(name) or _download(name, repository, instead)


def no_weights(
    what: str, name: str, repository: str, error: Exception, *, instead: str,
    copy: str = "PATH to a copy you have", flag: str = "weights",
) -> InputError:  # fmt: skip
    """The error of published weights that cannot be had, with the three ways out.

    Parameters
    ----------
    what : the model.
    name : of the file or folder, below a folder of weights.
    repository : of huggingface.co.
    error : of the download.
    instead : what works without them.
    copy : what the flag may name.
    """
    return InputError(
        f"the {what} weights {name} are not on this machine and could not be downloaded "
        f"({type(error).__name__}). Three ways out: (1) --{flag} {copy}; "
        f"(2) put {name} into {weight_folders()[0]} or set {WEIGHT_DIR_VARIABLE} to its folder; "
        f"(3) run once with network access to huggingface.co/{repository}. "
        f"To work without them: {instead}"
    )


def _download(name: str, repository: str, instead: str) -> Path:
    """Fetch a published checkpoint, verify its SHA-256, and only then give it its name."""
    folder = weight_folders()[0]
    log.info("%s is not on this machine; asking huggingface.co for it", name)
    try:
        from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
        from huggingface_hub.utils import logging as hub_logging

        hub_logging.set_verbosity_error()  # its retries are no news; a failure is told below

        expected = PUBLISHED_SHA256.get(name)
        if expected is None:  # the hub names a large file by its SHA-256
            expected = get_hf_file_metadata(hf_hub_url(repository, name), timeout=10).etag
        partial_folder = folder / ".incomplete"
        fetched = Path(hf_hub_download(repository, name, local_dir=partial_folder, etag_timeout=10))
    except Exception as error:  # no network, no hub client, no disk: all end in the same advice
        log.debug("download of %s failed", name, exc_info=True)
        raise no_weights("Uni-Mol", name, repository, error, instead=instead) from None
    if sha256_of(fetched) != expected:
        fetched.unlink()
        raise InputError(
            f"the download of {name} has the wrong SHA-256 (expected {expected}) and was "
            "deleted; run again, or fetch the file by hand and pass --weights PATH"
        )
    target = folder / name
    target.parent.mkdir(parents=True, exist_ok=True)
    return fetched.rename(target)
