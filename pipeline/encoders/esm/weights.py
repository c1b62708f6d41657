"""ESM-2's weights: what `--weights` and `--model_size` name, and where its folder is found."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.encoders.esm.tokens import MASK, PAD, VOCABULARY
from pipeline.encoders.unimol.weights import (
    UNTRAINED,
    UNTRAINED_SEED,
    no_weights,
    sha256_of,
    weight_folders,
)
from pipeline.runtime.errors import InputError

log = logging.getLogger(__name__)

OWNER = "facebook"
DEFAULT_SIZE = "8m"
PUBLISHED = {
    "8m": "esm2_t6_8M_UR50D",
    "35m": "esm2_t12_35M_UR50D",
    "150m": "esm2_t30_150M_UR50D",
    "650m": "esm2_t33_650M_UR50D",
    "3B": "esm2_t36_3B_UR50D",
}
MINI = "mini-protein"
MINI_FOLDER = Path(__file__).parent / "mini"
MINI_SHA256 = "02ea59434e9b66a08d4b54a4eaba1b2a408e4a7563c007d1a8c24d3481e16c7c"
CONFIG, VOCABULARY_FILE = "config.json", "vocab.txt"
SAFE, PICKLED, _INDEX = "model.safetensors", "pytorch_model.bin", ".index.json"
# Where tensors are, in the order in which transformers looks for them: one file, or several that
# an index names.
_PLACES = (SAFE, SAFE + _INDEX, PICKLED, PICKLED + _INDEX)
_SHARDS = {SAFE: "model-*.safetensors", PICKLED: "pytorch_model-*.bin"}  # as the hub names them
_OF_TOKENS = {"vocab_size": len(VOCABULARY), "pad_token_id": PAD, "mask_token_id": MASK}
_DIGEST = re.compile("[0-9a-f]{64}")  # as the hub's cache names large files


class EsmWeights(NamedTuple):
    """A resolved `--weights`: a folder in Hugging Face's layout (None if untrained), and a label.

    The label is for reports.
    """

    folder: Path | None
    label: str

    @property
    def files(self) -> list[Path]:
        """The files with tensors, safetensors before others."""
        return [] if self.folder is None else weight_files(self.folder)

    @property
    def sha256(self) -> str:
        """Hex SHA-256 of the tensors' file, or of several files' digests; or what stands for it."""
        if self.folder is None:
            return f"{UNTRAINED}-{UNTRAINED_SEED}"
        digests = [sha256_of(path) for path in self.files]
        return digests[0] if len(digests) == 1 else _joined(digests)

    @property
    def config_sha256(self) -> str:
        """Hex SHA-256 of the model's configuration, or what stands for it."""
        return UNTRAINED if self.folder is None else sha256_of(self.folder / CONFIG)


def resolve_weights(weights: str | None, model_size: str | None = None) -> EsmWeights:
    """Find the model that the settings name.

    Parameters
    ----------
    weights : a folder in Hugging Face's layout; or a published model's name, such as
        esm2_t33_650M_UR50D, with or without "facebook/"; or "mini-protein" for
        MolSieve-Mini-Protein, the small pretrained model that comes with this package; or
        "untrained" for seeded random values of a small model; None for the published model of the
        size. A published model is looked for below the folder that UNIMOL_WEIGHT_DIR names (else
        ~/.cache/molsieve/weights), then in the cache of huggingface_hub, and downloaded if absent.
    model_size : one of PUBLISHED; only without weights, whose size is their own.

    Raises
    ------
    InputError
        If there is no such size or folder, the folder holds no ESM-2, or the download fails.
    """
    if model_size is not None and model_size not in PUBLISHED:
        raise InputError(f"--model_size {model_size}: ESM-2 is published in {', '.join(PUBLISHED)}")
    if weights is not None and model_size is not None:
        raise InputError(
            f"--model_size {model_size} and --weights {weights}: these have a size of their own; "
            "leave one out"
        )
    if weights == UNTRAINED:
        return EsmWeights(None, UNTRAINED)
    if weights == MINI:
        if not (MINI_FOLDER / CONFIG).is_file():
            raise InputError(f"--weights {MINI}: {MINI_FOLDER} is not there; install MolSieve anew")
        if sha256_of(MINI_FOLDER / SAFE) != MINI_SHA256:
            raise InputError(
                f"--weights {MINI}: {MINI_FOLDER / SAFE} is not the file that belongs to this "
                "version; install MolSieve anew, or, if it is another model that you mean, give "
                "its folder"
            )
        return EsmWeights(_checked(MINI_FOLDER), MINI)
    name = PUBLISHED[model_size or DEFAULT_SIZE] if weights is None else weights
    folder = Path(name).expanduser()
    published = name.removeprefix(f"{OWNER}/")
    if published in PUBLISHED.values() and not folder.is_dir():
        return EsmWeights(_checked(published_folder(published)), published)
    if not folder.is_dir():
        raise InputError(
            f"--weights {name}: no such folder; for esm give a folder with {CONFIG} and "
            f"model.safetensors, a name such as {PUBLISHED[DEFAULT_SIZE]}, {MINI}, or {UNTRAINED}"
        )
    return EsmWeights(_checked(folder.absolute()), folder.resolve().name)


def checkpoint_of(weights: str | None, model_size: str | None) -> Path | None:
    """The folder that both settings lead to, None if untrained; errors as of what finds it."""
    return resolve_weights(weights, model_size).folder


def weight_files(folder: Path) -> list[Path]:
    """The files of a folder that transformers takes the model's tensors from; [] if it has none.

    Those that an index names need not be there.

    Raises
    ------
    InputError
        If the index is damaged.
    """
    place = next((name for name in _PLACES if (folder / name).is_file()), None)
    if place is None:
        return []
    if not place.endswith(_INDEX):
        return [folder / place]
    try:
        shards = set(_json_object(folder / place)["weight_map"].values())
        return [folder / shard for shard in sorted(shards)]
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise InputError(
            f"--weights {folder}: {place} is damaged: {type(error).__name__}: {error}; fetch it "
            "again"
        ) from None


def _json_object(path: Path) -> dict[str, Any]:
    """A file's JSON; ValueError if it is no object."""
    content = json.loads(path.read_text())
    if not isinstance(content, dict):
        raise ValueError(f"{type(content).__name__} where an object should be")
    return content


def _lacks(folder: Path) -> list[str]:
    """Names of the files with tensors that are not there."""
    files = weight_files(folder) or [folder / SAFE]
    return [path.name for path in files if not path.is_file()]


def _checked(folder: Path) -> Path:
    """The folder, if it holds an ESM-2 whose tokens are those known here."""
    try:
        config = _json_object(folder / CONFIG)
    except (OSError, ValueError) as error:
        raise InputError(
            f"--weights {folder}: no model in Hugging Face's layout: {CONFIG}: {error}"
        ) from None
    if config.get("model_type") != "esm" or config.get("is_folding_model"):
        what = "ESMFold" if config.get("is_folding_model") else config.get("model_type")
        raise InputError(f"--weights {folder}: its {CONFIG} is that of {what}, not of ESM-2")
    if config.get("position_embedding_type") != "rotary":
        raise InputError(f"--weights {folder}: it is an older ESM, without rotary positions")
    if config.get("is_decoder"):
        raise InputError(f"--weights {folder}: it is a decoder (is_decoder), which ESM-2 is not")
    if "transformers_weights" in config:  # by which transformers would take another file
        raise InputError(f"--weights {folder}: take transformers_weights out of its {CONFIG}")
    vocabulary = folder / VOCABULARY_FILE
    tokens = list(VOCABULARY)
    if vocabulary.is_file():
        tokens = vocabulary.read_text(errors="replace").split()
    if tokens != list(VOCABULARY) or any(config.get(name) != n for name, n in _OF_TOKENS.items()):
        raise InputError(
            f"--weights {folder}: its tokens are not the {len(VOCABULARY)} of ESM-2; its "
            f"{CONFIG} must have {', '.join(f'{name} {n}' for name, n in _OF_TOKENS.items())}"
        )
    missing = _lacks(folder)
    if missing:
        raise InputError(f"--weights {folder}: the folder lacks {', '.join(missing)}")
    return folder


def published_folder(
    name: str, what: str = "ESM-2", *, flag: str = "weights",
    instead: str = f"--weights {MINI}, a small ESM-2 that comes with MolSieve",
) -> Path:  # fmt: skip
    """A published model's folder, after a download if it is not on this machine.

    Parameters
    ----------
    name : of the repository, which is OWNER's, and of its folder below those of weights.
    what, flag, instead : as `no_weights`.

    Raises
    ------
    InputError
        If the download fails, or is not what it should be.
    """
    found = _find(name)
    if found is None:
        log.info("%s is not on this machine; asking huggingface.co for it", name)
        found = _download(name, what, flag, instead)
    return found


def _find(name: str) -> Path | None:
    """A published model's folder on this machine."""
    for above in weight_folders():
        if (above / name / CONFIG).is_file():
            return above / name
    try:
        folder = _snapshot(name, [CONFIG], local_files_only=True)
    except Exception:  # huggingface_hub says in many ways that it has nothing
        return None
    # A download that was cut short is taken up again.
    return folder if (folder / CONFIG).is_file() and not _lacks(folder) else None


def _download(name: str, what: str, flag: str, instead: str) -> Path:
    """Fetch a published model into the cache of huggingface_hub, and verify it."""
    try:
        folder = _snapshot(name, [CONFIG, VOCABULARY_FILE, SAFE, SAFE + _INDEX, _SHARDS[SAFE]])
        if not weight_files(folder):
            folder = _snapshot(name, [PICKLED, PICKLED + _INDEX, _SHARDS[PICKLED]])
    except Exception as error:  # no network, no hub client, no disk: all end in the same advice
        log.debug("download of %s failed", name, exc_info=True)
        raise no_weights(
            what, name, f"{OWNER}/{name}", error,
            copy="FOLDER of a copy you have (config.json, vocab.txt, model.safetensors)",
            instead=instead, flag=flag,
        ) from None  # fmt: skip
    for path in weight_files(folder):
        _verify(path, flag)
    return folder


def _verify(path: Path, flag: str) -> None:
    """InputError if a file of the hub's cache is not what its name there, a SHA-256, says."""
    kept = path.resolve()
    if _DIGEST.fullmatch(kept.name) and sha256_of(path) != kept.name:
        kept.unlink()
        path.unlink()
        raise InputError(
            f"the download of {path.name} has the wrong SHA-256 and was deleted; run again, or "
            f"fetch the folder by hand and pass --{flag} FOLDER"
        )


def _snapshot(name: str, patterns: Sequence[str], **how: Any) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils import logging as hub_logging

    hub_logging.set_verbosity_error()  # its retries are no news; a failure is told
    repository = f"{OWNER}/{name}"
    return Path(snapshot_download(repository, allow_patterns=patterns, etag_timeout=10, **how))


def _joined(digests: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()
