"""Every detector, trained by jobs.train and scoring by jobs.score, against its own class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import safetensors.torch

from pipeline.detectors.feature_space import Described, FeatureSpace
from pipeline.detectors.heads.energy_head import EnergyHead, energies_of
from pipeline.detectors.property_heads import property_head
from pipeline.detectors.registry import DETECTORS, ENERGY_HEADS, detector_class, needs
from pipeline.molecules.features.descriptors import descriptor_values
from pipeline.molecules.features.fingerprints import ecfp4
from pipeline.molecules.identity import canonicalize
from pipeline.scoring.run import run_scoring
from pipeline.training.run import run_training
from tests.made_sets import (
    INSIDE,
    VIEWS,
    hiv,
    moses,
    train_settings,
    values_of,
    write_set,
    write_table,
)
from tests.scoring_here import score_settings, scored, scoring_here

QUICK = {"property_patience": 2, "ensemble_size": 2, "mc_passes": 4, "isolation_trees": 20}


@pytest.fixture(scope="module")
def home(ray_session, tmp_path_factory) -> Path:
    """A training set with classes as labels, and a library of old, new and unlike molecules."""
    home = write_set(tmp_path_factory.mktemp("detectors"))
    inside = moses()[:INSIDE]
    values = values_of(inside)
    classes = [int(value > np.median(values)) for value in values]
    write_table(home / "training.csv", smiles=inside, y=classes)
    write_table(home / "library.csv", smiles=[*moses()[100:140], *hiv()[50:80]])
    return home


def described(smiles: list[str], own: np.ndarray | None = None) -> Described:
    blocks = {
        "ecfp": ecfp4(smiles).astype(np.float32),
        "descriptors": descriptor_values(smiles).astype(np.float32),
    }
    return Described(blocks, smiles, own)


@pytest.mark.parametrize("name", [*ENERGY_HEADS, *DETECTORS])
def test_trained_and_scored_as_by_its_own_class(home, name, monkeypatch):
    monkeypatch.setattr(property_head, "MOST_EPOCHS", 5)
    label = {"label_column": "y"} if needs(name).labels else {}
    settings = train_settings(home, name, detector=name, **label, **QUICK)
    stats = run_training(settings)
    folder = home / name / "checkpoint"
    with scoring_here():
        summary = run_scoring(score_settings(home, folder, f"{name}_scores"))
    assert stats["detector"] == summary["detector"] == name
    rows = scored(home / f"{name}_scores")
    library = [canonicalize(s) for s in [*moses()[100:140], *hiv()[50:80]]]
    assert [row["smiles"] for row in rows] == library

    molecules = pq.read_table(folder / "training_molecules.parquet").to_pylist()
    of = {role: [m for m in molecules if m["role"] == role]
          for role in ("id_train", "ood_train", "id_cal")}  # fmt: skip
    known, outside, held = ([m["smiles"] for m in rows] for rows in of.values())
    training = described(known, np.arange(len(known)))
    space = FeatureSpace.fit(VIEWS.split(","), training, settings.data_seed)
    own = np.array([known.index(s) if s in known else -1 for s in library])
    inputs = [space.inputs(described(s, o)) for s, o in ((library, own), (held, None))]
    if name in ENERGY_HEADS:
        head = EnergyHead(inputs[0].features.shape[1], settings.hidden_dim)
        head.load_state_dict(safetensors.torch.load_file(folder / "model.safetensors"))
        expected, calibration = (energies_of(head, each.features) for each in inputs)
    else:
        labels = np.array([m["label"] for m in of["id_train"]], float) if label else None
        exposed = space.inputs(described(outside)) if needs(name).ood else None
        detector = detector_class(name).fit(
            space.inputs(training), exposed, labels, settings, settings.seed
        )
        expected, calibration = (detector.scores(each) for each in inputs)
    energies = np.array([row["energy"] for row in rows])
    np.testing.assert_allclose(energies, expected, rtol=1e-4, atol=1e-5)
    p_values = [(1 + (calibration >= e - 1e-9).sum()) / (len(held) + 1) for e in energies]
    ties = np.abs(np.subtract.outer(energies, calibration)).min(axis=1) < 1e-4
    found = np.array([row["p_value"] for row in rows])
    np.testing.assert_allclose(found[~ties], np.array(p_values)[~ties], atol=1e-12)
    assert [row["is_ood"] for row in rows] == (found <= 0.1).tolist()
    assert all(row["prediction"] is row["lower"] is row["error_scale"] is None for row in rows)
