"""ESMFold's weights: a folder in Hugging Face's layout, found, identified and loaded."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.encoders.esm.weights import CONFIG, OWNER, EsmWeights, published_folder
from pipeline.runtime.errors import InputError

if TYPE_CHECKING:
    from transformers import EsmForProteinFolding

PUBLISHED = "esmfold_v1"


def check_library() -> None:
    """InputError if transformers is not installed; it takes seconds to import."""
    if find_spec("transformers") is None:
        raise InputError(
            "--structures esmfold needs the package 'transformers'; install it with: "
            "pip install 'molsieve[esm]'"
        )


def resolve_weights(weights: str | None) -> EsmWeights:
    """Find the model that a setting names.

    Parameters
    ----------
    weights : a folder; or "facebook/esmfold_v1", which None means too: looked for and downloaded
        as `pipeline.encoders.esm.weights.published_folder` does.

    Raises
    ------
    InputError
        If there is no such folder, it holds no ESMFold, or the download fails.
    """
    folder = Path(weights or PUBLISHED).expanduser()
    if folder.is_dir():
        return _checked(EsmWeights(folder.absolute(), folder.resolve().name))
    if weights in (None, PUBLISHED, f"{OWNER}/{PUBLISHED}"):
        instead = "--structures folder, with files of AlphaFold DB"
        found = published_folder(PUBLISHED, "ESMFold", flag="structure_weights", instead=instead)
        return _checked(EsmWeights(found, PUBLISHED))
    raise InputError(
        f"--structure_weights {weights}: no such folder; give one with {CONFIG} and "
        f"model.safetensors, or {OWNER}/{PUBLISHED}"
    )


def _checked(weights: EsmWeights) -> EsmWeights:
    """The weights, if their folder holds what ESMFold's must."""
    at = f"--structure_weights {weights.folder}"
    try:
        config = json.loads((weights.folder / CONFIG).read_text())
        files = weights.files or [weights.folder / "model.safetensors"]
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise InputError(f"{at}: no model in Hugging Face's layout: {error}") from None
    if not isinstance(config, dict) or not config.get("is_folding_model"):
        raise InputError(
            f"{at}: its {CONFIG} is that of a model without the folding part; give ESMFold's"
        )
    missing = [path.name for path in files if not path.is_file()]
    if missing:
        raise InputError(f"{at}: the folder lacks {', '.join(missing)}")
    return weights


def load_model(weights: EsmWeights) -> EsmForProteinFolding:
    """The model in float32, on the CPU, for inference.

    Raises
    ------
    InputError
        If the folder's model is another, or incomplete.
    """
    from transformers import EsmConfig, EsmForProteinFolding

    from pipeline.encoders.esm.model import read_model

    def in_full(config: EsmConfig) -> None:
        config.esmfold_config.fp16_esm = False  # its fp16 overflows

    return read_model(
        EsmForProteinFolding, weights, "ESMFold", flag="structure_weights", adapt=in_full
    )
