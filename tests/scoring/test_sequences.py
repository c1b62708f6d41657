"""Sequences from a training set to a screened library and its page; a small random ESM-2."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy.spatial.distance import cdist

from pipeline import Sieve
from pipeline.molecules.features.fingerprints import fingerprints
from pipeline.molecules.kinds import SEQUENCE
from pipeline.report.run import run_report
from pipeline.report.settings import ReportSettings
from pipeline.runtime.errors import InputError
from pipeline.scoring.screen import ScreenSettings, run_screen
from pipeline.training.checkpoints.checkpoint import load_checkpoint
from tests.made_peptides import BAD, families, write_peptides
from tests.scoring_here import scored, scoring_here


@pytest.fixture(scope="module")
def home(ray_session, encoder_in_process, tmp_path_factory, peptides) -> Path:
    return write_peptides(tmp_path_factory.mktemp("peptides"), peptides)


@pytest.fixture(scope="module")
def how(home, esm_folder) -> dict:
    return {
        "id_file": str(home / "training.fasta"), "library": str(home / "library.fasta"),
        "ood_file": str(home / "ood.csv"), "sequence_column": "seq", "detector": "tanimoto",
        "weights": str(esm_folder), "precision": "fp32", "cache_root": str(home / "store"),
        "device": "cpu", "top": 3, "alpha": 0.1, "output_dir": str(home / "out"),
        "encoder_workers": 1,
    }  # fmt: skip


@pytest.fixture(scope="module")
def made(how) -> dict:
    with scoring_here():
        return run_screen(ScreenSettings(**how))


def test_a_library_is_judged_and_its_files_say_sequence(home, made, peptides):
    assert made["training"]["views"] == ["esm", "distances"]
    rows, inside = scored(home / "out"), families(peptides, "AMP")
    assert len(rows) == 20 and made["scores"]["rejected"] == len(BAD)
    assert {row["sequence"] for row in rows[:10]} <= set(inside.values())
    assert "smiles" not in rows[0] and "nearest_smiles" not in rows[0]
    assert [row["in_training"] for row in rows] == [True] * 10 + [False] * 10
    known = load_checkpoint(str(home / "out/training/checkpoint")).of_role(
        "id_train", "id_val", "id_cal"
    )
    prints = [fingerprints(texts, SEQUENCE) for texts in (
        [row["sequence"] for row in rows], known["smiles"].to_pylist()
    )]  # fmt: skip
    similarity = 1 - cdist(*(each.astype(bool) for each in prints), "jaccard")
    found = [row["nearest_similarity"] for row in rows]
    assert found == pytest.approx(similarity.max(axis=1), abs=1e-6)
    text_of = dict(zip(known["id"].to_pylist(), known["smiles"].to_pylist()))
    assert all(text_of[row["nearest_id"]] == row["nearest_sequence"] for row in rows)
    rejected = scored(home / "out", "rejected")
    assert [row["sequence"] for row in rejected] == list(BAD.values())


def test_both_ends_are_a_table_and_pictures_of_letters(home, made):
    with open(home / "out/top.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6 and all(row["sequence"] and row["nearest_sequence"] for row in rows)
    for name in ("most_ood.png", "least_ood.png", "beside_nearest.png"):
        assert (home / "out" / name).stat().st_size > 5000


def test_the_audit_is_of_charge_length_and_composition(made):
    audit = made["training"]["audit"]
    assert audit["tanimoto"]["fingerprint"] == "k-mers" and len(audit["descriptors"]) == 26


def test_the_page_writes_sequences_and_leaves_scaffolds_out(home, made):
    page = home / "page.html"
    run_report(ReportSettings(folder=str(home / "out"), output=str(page)))
    text, row = page.read_text(), scored(home / "out")[-1]
    assert row["sequence"] in text and 'class="letters"' in text
    assert "Scaffolds are not counted: sequences have none." in text
    assert "PCA of k-mers" in text and "cannot be drawn" not in text
    assert '<button type="button">Sequence</button>' in text and "MK-LV" in text


def test_other_levels_are_written_under_the_same_names(how, home, made):
    with scoring_here():
        again = run_screen(ScreenSettings(**{**how, "alpha": 0.5}))
    assert again["scores"]["rows_of_this_run"] == 0
    [part] = (home / "out/scores").glob("*.parquet")
    assert "nearest_sequence" in pq.read_schema(part).names


def test_background_molecules_are_no_sequences(how):
    plain = {"ood_file": None, "ood": "background"}
    with pytest.raises(InputError, match="--ood background has molecules as SMILES alone"):
        run_screen(ScreenSettings(**{**how, **plain}))


def test_an_encoder_of_smiles_is_refused(how):
    with pytest.raises(InputError, match=r"holds sequences, and (ecfp|minimol) takes SMILES"):
        run_screen(ScreenSettings(**{**how, "views": "ecfp,distances"}))


@pytest.mark.parametrize("detector", ["distance_lr", "mahalanobis", "lof", "oe_knn"])
def test_detectors_take_sequences(how, home, made, detector):
    changes = {"detector": detector, "output_dir": str(home / detector), "top": 0}
    with scoring_here():
        found = run_screen(ScreenSettings(**{**how, **changes}))
    energies = [row["energy"] for row in scored(home / detector)]
    assert found["scores"]["detector"] == detector and np.isfinite(energies).all()


def test_a_sieve_of_sequences_gives_predictions_and_expected_errors(how, peptides, home):
    inside, outside = families(peptides, "AMP"), families(peptides, "UniProt")
    texts = list(inside.values())
    given = {name: how[name] for name in ("weights", "precision", "cache_root", "device")}
    sieve = Sieve.fit(
        texts, [float(text.count("K")) for text in texts], kind="sequence", views="esm",
        ood=list(outside.values())[:45], detector="knn", knn_k=3, encoder_workers=1, **given,
    )  # fmt: skip
    with scoring_here():
        table = sieve.score([texts[0], "MK-LV", list(outside.values())[-1]], arrow=True, alpha=0.1)
        nothing = sieve.score(["MK-LV"], arrow=True, alpha=0.1)
    assert table["sequence"].to_pylist()[0] == texts[0] and "smiles" not in table.column_names
    assert [value is None for value in table["expected_error"].to_pylist()] == [False, True, False]
    assert "gaps" in table["reason"][1].as_py() and "gaps" in nothing["reason"][0].as_py()
    with pytest.raises(InputError, match="kind is 'protein'"):
        Sieve.fit(texts, kind="protein")
