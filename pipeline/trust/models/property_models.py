"""The property models by name, and several of them fitted to the same molecules."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from pipeline.detectors.kept import array_bytes, read_arrays
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import json_bytes
from pipeline.trust.described import Described
from pipeline.trust.models.forest import ForestModel
from pipeline.trust.models.gaussian_process import GaussianProcess
from pipeline.trust.models.mlp_ensemble import MlpEnsemble


class PropertyModel(Protocol):
    """What predicts labels, and says how unsure it is."""

    @classmethod
    def fit(
        cls, known: Described, labels: np.ndarray, *, binary: bool, seed: int, jobs: int | None,
        light: bool = False,
    ) -> PropertyModel:  # fmt: skip
        """Fit to labels (n,) on so many cores (None: one); `light` where it serves one fold."""

    def predict(self, asked: Described) -> tuple[np.ndarray, np.ndarray]:
        """Labels, and the spread in their unit: float64 (n,) each."""

    def save(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Arrays, and what else decides predictions, ready for JSON."""

    @classmethod
    def load(
        cls, arrays: Mapping[str, np.ndarray], more: dict[str, Any], known: Described
    ) -> PropertyModel:
        """The inverse of `save`; `known` are the molecules it was fitted to."""


PROPERTY_MODELS: dict[str, type[PropertyModel]] = {
    "forest": ForestModel,
    "mlp": MlpEnsemble,
    "gp": GaussianProcess,
}
Predicted = dict[str, tuple[np.ndarray, np.ndarray]]  # labels and spread of each model


def model_names(molecules: Described, property_model: str | None) -> list[str]:
    """The models that molecules have the features for.

    Raises
    ------
    InputError
        If `property_model` is none of them.
    """
    names = [name for name in PROPERTY_MODELS if name != "mlp" or molecules.encoded()]
    if property_model is not None and property_model not in names:
        raise InputError(
            f"--property_model {property_model} is not there: it is one of {', '.join(names)}"
            + ("; mlp needs unimol, unimol2 or minimol among --views" if "mlp" not in names else "")
        )
    return names


def fit_models(
    names: Sequence[str],
    known: Described,
    labels: np.ndarray,
    *,
    binary: bool,
    seed: int,
    jobs: int | None,
    light: bool = False,
) -> dict[str, PropertyModel]:
    """Each of these models fitted to the same labels (n,)."""
    return {
        name: PROPERTY_MODELS[name].fit(
            known, labels, binary=binary, seed=seed, jobs=jobs, light=light
        )
        for name in names
    }


def predict_all(models: Mapping[str, PropertyModel], asked: Described) -> Predicted:
    """What each model says."""
    return {name: model.predict(asked) for name, model in models.items()}


def save_models(models: Mapping[str, PropertyModel]) -> dict[str, bytes]:
    """Two files for each model: its arrays as safetensors, the rest as JSON."""
    files = {}
    for name, model in models.items():
        arrays, more = model.save()
        files[f"{name}.safetensors"] = array_bytes(arrays)
        files[f"{name}.json"] = json_bytes(more)
    return files


def load_models(
    names: Sequence[str], files: Mapping[str, bytes], known: Described
) -> dict[str, PropertyModel]:
    """The inverse of `save_models`; `known` are the molecules the models were fitted to."""
    return {
        name: PROPERTY_MODELS[name].load(
            read_arrays(files[f"{name}.safetensors"]), json.loads(files[f"{name}.json"]), known
        )
        for name in names
    }
