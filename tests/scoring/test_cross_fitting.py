"""Scores are of detectors that never saw the molecule; p-values are as small as they say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import safetensors.torch

from pipeline.detectors.distance.distance_regression import DistanceRegression
from pipeline.detectors.feature_space import FeatureSpace
from pipeline.detectors.heads.energy_head import EnergyHead, energies_of
from pipeline.evaluation.calibration import Calibration
from pipeline.molecules.features.fingerprints import packed_ecfp4
from pipeline.molecules.features.neighbours import nearest
from pipeline.molecules.identity import canonicalize
from pipeline.molecules.sources import parse_rows
from pipeline.scoring.run import run_scoring
from pipeline.training import training_roles, training_set
from pipeline.training.run import run_training
from tests.made_sets import (
    INSIDE,
    VIEWS,
    moses,
    train_settings,
    write_set,
)
from tests.scoring.known_library import GOOD, training_rows, write_library
from tests.scoring.test_every_detector import described
from tests.scoring_here import score_settings, scored, scoring_here


@pytest.fixture(autouse=True, scope="module")
def here():
    with scoring_here():
        yield


@pytest.fixture(scope="module")
def home(ray_session, tmp_path_factory) -> Path:
    """A folder with a training set and a library."""
    home = write_set(tmp_path_factory.mktemp("cross_fitting"))
    write_library(home)
    return home


def test_p_values_of_new_molecules_of_the_same_kind_are_as_small_as_they_say(home, monkeypatch):
    """Over cuts, for Tanimoto to the training molecules: a share of α, whatever α."""
    places = np.arange(INSIDE) // 5
    monkeypatch.setattr(training_roles, "_clusters", lambda rows, *_: places[: rows.num_rows])
    every = packed_ecfp4(moses())
    settings = train_settings(home, "unused", data_file=str(home / "training.csv"))
    source = training_set.as_split(training_set.read_rows(settings))
    molecules = parse_rows(source, settings).molecules
    shares = []
    for seed in range(80):
        order = np.random.default_rng(seed).permutation(200)
        inside, new = every[order[:INSIDE]], every[order[INSIDE:]]
        cut = training_roles.with_id_roles(molecules, train_settings(home, "", data_seed=seed))
        roles = np.array(cut["role"].to_pylist())
        scores = [
            1 - nearest(bits, inside[roles == "id_train"]).similarity[:, 0].astype(float)
            for bits in (inside[roles == "id_cal"], new)
        ]
        p_values = Calibration(np.sort(scores[0])).p_values(scores[1])
        shares.append([(p_values <= alpha).mean() for alpha in (0.2, 0.52, 0.8)])
    # 24 calibrate: p-values are multiples of 1/25. Ties make them a little larger.
    for found, alpha in zip(np.mean(shares, axis=0), (0.2, 0.52, 0.8)):
        assert alpha - 0.06 < found < alpha + 0.03


@pytest.mark.parametrize("detector", ["distance_lr", "dpo"])
def test_library_molecules_that_trained_are_scored_by_the_other_fold(home, detector):
    """In chunks of which some have none."""
    name = f"crossed_{detector}"
    settings = train_settings(
        home, name, detector=detector, ood="library", ood_file=None, ood_size=50,
        library=str(home / "library.csv"), lr=1e-2,
    )  # fmt: skip
    run_training(settings)
    run_scoring(score_settings(home, home / name / "checkpoint", f"{name}_s", chunk_size=10))
    rows = scored(home / f"{name}_s")
    assert [row["smiles"] for row in rows] == GOOD

    known = [m["smiles"] for m in training_rows(home / name, "id_train")]
    assert known == [m["smiles"] for m in training_rows(home / name, "id_train", cross=True)]
    space = FeatureSpace.fit(
        VIEWS.split(","), described(known, np.arange(len(known))), settings.data_seed
    )
    own = np.array([known.index(s) if s in known else -1 for s in GOOD])
    inputs, sides, scores, p_values = space.inputs(described(GOOD, own)), [], [], []
    held = space.inputs(described([m["smiles"] for m in training_rows(home / name, "id_cal")]))
    for cross in (False, True):
        folder = home / name / ("checkpoint/cross" if cross else "checkpoint")
        outside = [m["smiles"] for m in training_rows(home / name, "ood_train", cross=cross)]
        validate = [m["smiles"] for m in training_rows(home / name, "ood_val", cross=cross)]
        assert outside and validate
        sides.append({*outside, *validate})
        if detector == "dpo":
            head = EnergyHead(inputs.features.shape[1], settings.hidden_dim)
            head.load_state_dict(safetensors.torch.load_file(folder / "model.safetensors"))
            made, kept = (energies_of(head, each.features) for each in (inputs, held))
        else:
            fitted = DistanceRegression.fit(
                space.inputs(described(known, np.arange(len(known)))),
                space.inputs(described(outside)), None, settings, settings.seed,
            )  # fmt: skip
            made, kept = (fitted.scores(each) for each in (inputs, held))
        scores.append(made)
        p_values.append([(1 + (kept >= e - 1e-7).sum()) / (1 + len(kept)) for e in made])
    assert not sides[0] & sides[1] and min(map(len, sides)) >= 4
    assert not (sides[0] | sides[1]) & {canonicalize(s) for s in moses()[:INSIDE]}
    mine = np.array([s in sides[0] for s in GOOD])
    expected = np.where(mine, scores[1], scores[0])
    np.testing.assert_allclose([r["energy"] for r in rows], expected, rtol=1e-4, atol=1e-5)
    assert np.abs(scores[0] - scores[1])[mine].max() > 1e-2  # the folds differ
    expected = np.where(mine, p_values[1], p_values[0])
    np.testing.assert_allclose([r["p_value"] for r in rows], expected, atol=1.01 / 25)
