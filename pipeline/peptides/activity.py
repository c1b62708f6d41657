"""Probabilities that peptides are antimicrobial, and hemolytic, by the models that Macrel ships.

Santos-Júnior et al. 2020, PeerJ 8:e10555. Two random forests on 22 descriptors; they were trained
on known antimicrobial peptides, so those of a data set may be among them, and score too well.
Macrel
leaves out an M that a peptide begins with. Without the package there are no probabilities: nothing
is put in their place.
"""

from __future__ import annotations

import importlib.util
import os
import tempfile
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

NOT_MADE = "not made: install molsieve[macrel]"
MODELS = ("AMP.onnx.gz", "Hemo.onnx.gz")


class Activity(NamedTuple):
    """Probabilities (n,) float32."""

    antimicrobial: np.ndarray
    hemolytic: np.ndarray


def has_macrel() -> bool:
    """Whether Macrel is installed, and what its models need."""
    return all(importlib.util.find_spec(name) for name in ("macrel", "onnxruntime", "pandas"))


def activity(sequences: Sequence[str]) -> Activity | None:
    """Macrel's probabilities of sequences of the 20 amino acids; None without Macrel.

    Raises
    ------
    RuntimeError
        If Macrel leaves one out.
    """
    if not has_macrel():
        return None
    import macrel
    from macrel.AMP_features import fasta_features
    from macrel.AMP_predict import predict

    if not sequences:
        return Activity(np.empty(0, np.float32), np.empty(0, np.float32))
    models = [os.path.join(os.path.dirname(macrel.__file__), "data", "models", m) for m in MODELS]
    with tempfile.NamedTemporaryFile("w", suffix=".fa") as file:
        file.writelines(f">{place}\n{text}\n" for place, text in enumerate(sequences))
        file.flush()
        features = fasta_features(file.name)
    found = predict(*models, features, keep_negatives=True)
    if list(found.index) != [str(place) for place in range(len(sequences))]:
        raise RuntimeError("Macrel left sequences out; this is a fault of MolSieve, report it")
    return Activity(
        found["AMP_probability"].to_numpy(np.float32),
        found["Hemolytic_probability"].to_numpy(np.float32),
    )
