"""`from pipeline import Sieve`: fit, score, save, load, as in a notebook."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from pipeline import Sieve
from pipeline.generation.settings import ShellSettings
from pipeline.molecules.identity import canonicalize
from pipeline.runtime.errors import InputError
from pipeline.scoring.levels import SCORES
from pipeline.training import synthetic_ood
from tests.commands import REPOSITORY
from tests.made_sets import INSIDE, VIEWS, hiv, moses, values_of
from tests.scoring_here import scoring_here

LIBRARY = [moses()[150], "nonsense", moses()[0], hiv()[70], moses()[150], None, "", hiv()[71]]
COLUMNS = [name for name in SCORES.names if name != "id"]
QUICK = {"views": VIEWS, "detector": "knn", "knn_k": 3, "device": "cpu"}


@pytest.fixture(autouse=True, scope="module")
def here(ray_session):
    with scoring_here():
        yield


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> str:
    return str(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def sieve(store) -> Sieve:
    """Fitted to pandas' columns, with a gap among the values."""
    values = pd.Series(values_of(moses()[:INSIDE]))
    values[5] = float("nan")
    smiles = pd.Series(moses()[:INSIDE])
    return Sieve.fit(smiles, y=values, ood=hiv()[:60], cache_root=store, **QUICK)


@pytest.fixture(scope="module")
def table(sieve) -> pd.DataFrame:
    return sieve.score(LIBRARY)


def test_rows_come_in_the_order_given_with_reasons_for_what_cannot_be_judged(table):
    assert list(table.columns) == [*COLUMNS, "reason"] and len(table) == len(LIBRARY)
    bad = [1, 5, 6]
    for place, smiles in enumerate(LIBRARY):
        row = table.iloc[place]
        if place in bad:
            assert isinstance(row["reason"], str) and math.isnan(row["energy"])
            assert row["smiles"] == smiles or not smiles
        else:
            assert pd.isna(row["reason"]) and row["smiles"] == canonicalize(smiles)
            assert math.isfinite(row["energy"]) and math.isfinite(row["expected_error"])
            assert row["lower"] < row["prediction"] < row["upper"]
    np.testing.assert_allclose(
        table.loc[0, ["energy", "p_value", "prediction"]].astype(float),
        table.loc[4, ["energy", "p_value", "prediction"]].astype(float),
    )
    known = [bool(value) if value is not None else None for value in table["in_training"]]
    assert known == [False, None, True, False, False, None, None, False]
    assert table["nearest_id"][2] == "0"  # the place in what was given to fit


def test_many_molecules_keep_their_places(sieve):
    """In more chunks than one, the last of them not full; ten sorts after nine."""
    smiles = [*moses()[100:140], "bad", *moses()[140:150]]
    found = sieve.score(smiles)
    good = [canonicalize(s) if s != "bad" else s for s in smiles]
    assert found["smiles"].tolist() == good
    assert found["reason"].notna().tolist() == [s == "bad" for s in smiles]


def test_arrow_and_pandas_say_the_same(sieve, table):
    found = sieve.score(pa.array(LIBRARY), arrow=True)
    assert isinstance(found, pa.Table)
    pd.testing.assert_frame_equal(found.to_pandas(), table)
    whole = sieve.score(LIBRARY[:1], arrow=True)  # where nothing is rejected
    assert whole.schema == found.schema


def test_levels_are_settings_of_score(sieve, table):
    wide = sieve.score(LIBRARY, alpha=0.9, interval_alpha=0.5)
    assert (wide["p_value"].dropna() == table["p_value"].dropna()).all()
    assert (wide["is_ood"].dropna() == (wide["p_value"].dropna() <= 0.9)).all()
    assert (wide["upper"] - wide["lower"] <= table["upper"] - table["lower"]).dropna().sum() >= 5


def test_saved_and_loaded_it_scores_the_same(sieve, table, store, tmp_path):
    sieve.save(tmp_path / "kept")
    assert not list((tmp_path / "kept").rglob("*.p*kl*"))
    loaded = Sieve.load(tmp_path / "kept", cache_root=store, device="cpu")
    pd.testing.assert_frame_equal(loaded.score(LIBRARY), table)
    assert "knn" in repr(loaded) and repr(loaded) == repr(sieve)
    with pytest.raises(InputError, match="there already"):
        sieve.save(tmp_path / "kept")
    with pytest.raises(InputError, match="not a checkpoint"):
        Sieve.load(tmp_path / "absent")


def test_synthetic_ood_needs_no_molecules_unlike_the_training_set(store, monkeypatch):
    pytest.importorskip("diffusers")
    small = ShellSettings(width=16, batch_size=32, steps=30, sampling_steps=10)
    monkeypatch.setattr(synthetic_ood, "ShellSettings", lambda: small)
    how = {"views": "ecfp,descriptors", "detector": "oe_knn", "knn_k": 3, "device": "cpu"}
    sieve = Sieve.fit(moses(), ood="synthetic", ood_size=60, cache_root=store, **how)
    assert sieve.stats["synthetic_ood"]["train"] > 0
    table = sieve.score([hiv()[70], moses()[0]])
    assert table["p_value"].between(0, 1).all() and table["in_training"].tolist() == [False, True]
    with pytest.raises(InputError, match="--views distances does not go with --ood synthetic"):
        Sieve.fit(moses(), ood="synthetic", cache_root=store, **{**how, "views": VIEWS})


def test_without_labels_there_are_no_errors(store):
    sieve = Sieve.fit(moses()[:INSIDE], ood=hiv()[:60], cache_root=store, **QUICK)
    table = sieve.score(moses()[150:153], arrow=True)
    assert table["expected_error"].null_count == table["upper"].null_count == 3
    assert table["energy"].null_count == 0 and "errors" not in sieve.stats


@pytest.mark.parametrize(
    ("smiles", "more", "told"),
    [
        (moses()[:INSIDE], {"y": [1.0]}, "y has 1 values for 120 molecules"),
        (moses()[:INSIDE], {"y": ["high"] * INSIDE}, "y must be numbers"),
        (moses()[:INSIDE], {"y": np.zeros((INSIDE, 2))}, "y must be numbers"),
        (moses()[:10], {}, "10 different molecules are too few"),
        ("CCO", {}, "one string"),
        ([1, 2], {}, "must be strings"),
        (moses()[:INSIDE], {"ood": hiv()[:5]}, "at least 20"),
    ],
)
def test_what_cannot_be_fitted_is_told(store, smiles, more, told):
    with pytest.raises(InputError, match=told):
        Sieve.fit(smiles, cache_root=store, **{**QUICK, **more})


def test_what_cannot_be_scored_is_told(sieve):
    with pytest.raises(InputError, match="one string"):
        sieve.score("CCO")
    none = sieve.score([])
    assert len(none) == 0 and "energy" in none.columns
    bad = sieve.score(["no SMILES", "C1CC"])
    assert bad["reason"].notna().all() and bad["energy"].isna().all()


def test_it_is_loaded_when_it_is_asked_for_and_encoders_without(tmp_path: Path):
    code = (
        "import sys, pipeline.encoders.unimol\n"
        "for name in ('ray', 'rdkit', 'sklearn', 'pandas', 'pipeline.sieve'):\n"
        "    assert name not in sys.modules, name\n"
        "assert not hasattr(pipeline, 'Sift')\n"
        "from pipeline import Sieve\n"
        "assert 'pipeline.sieve' in sys.modules and Sieve.fit\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True, timeout=300)
