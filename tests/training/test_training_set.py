"""--id_file: the roles that a training set and molecules unlike it are cut into."""

from __future__ import annotations

import gzip
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from scipy.stats import binom

from pipeline.molecules import sampling
from pipeline.molecules.identity import canonicalize
from pipeline.molecules.sampling import sampled_rows
from pipeline.runtime.errors import InputError
from pipeline.training import training_roles, training_set
from pipeline.training.run import check_training
from pipeline.training.training_set import open_training_set
from tests.made_sets import INSIDE, hiv, moses, train_settings, write_set, write_table

ID, OOD = ("id_train", "id_val", "id_cal"), ("ood_train", "ood_val")


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    return write_set(tmp_path_factory.mktemp("sets"))


@pytest.fixture(autouse=True)
def no_encoders(monkeypatch):
    """Plans of encoders, which need a cluster, are of no interest here."""
    monkeypatch.setattr(training_set, "plan_views", lambda settings, views: {})


def opened(home: Path, **changes) -> tuple[training_set.Molecules, pa.Table]:
    _, source, sample = open_training_set(train_settings(home, "unused", **changes))
    assert source.molecules.num_rows + source.rejected.num_rows == source.rows
    return source, sample


def of(sample: pa.Table, *roles: str) -> list[dict]:
    return [row for row in sample.to_pylist() if row["role"] in roles]


def smiles_of(rows: list[dict]) -> list[str]:
    return [row["smiles"] for row in rows]


def check_cut(rows: list[dict], validation: str) -> None:
    """Whole clusters validate: about a fifth of the molecules, never none and never all."""
    sides = {}
    for row in rows:
        sides.setdefault(row["domain"], set()).add(row["role"] == validation)
    assert all(len(side) == 1 for side in sides.values()) and None not in sides
    share = np.mean([row["role"] == validation for row in rows])
    assert 0 < share < 1


# --- roles ------------------------------------------------------------------------------------


def test_every_molecule_has_one_role_and_validation_is_cut_by_clusters(home):
    source, sample = opened(home, label_column="y", id_column=None)
    every = smiles_of(sample.to_pylist())
    assert len(every) == len(set(every)) == INSIDE + 60 == source.rows
    assert smiles_of(of(sample, *ID)) == [canonicalize(s) for s in moses()[:INSIDE]]
    assert {canonicalize(s) for s in hiv()[:60]} == set(smiles_of(of(sample, *OOD)))
    check_cut(of(sample, "id_train", "id_val"), "id_val")
    check_cut(of(sample, *OOD), "ood_val")
    counts = Counter(sample["role"].to_pylist())
    assert counts["id_cal"] == round(0.2 * INSIDE)
    assert counts["id_val"] <= 0.2 * (INSIDE - counts["id_cal"])
    assert {row["fold"] for row in of(sample, *ID)} == {-1}
    assert {row["fold"] for row in of(sample, *OOD)} == {0}
    assert all(row["label"] is not None for row in of(sample, *ID))
    assert all(row["label"] is None for row in of(sample, *OOD))
    assert any("60 a seeded sample" in note for note in source.notes)


def test_the_seed_decides(home):
    first, again, other = (opened(home, data_seed=seed)[1] for seed in (1, 1, 2))
    assert first.equals(again)
    assert first["role"].to_pylist() != other["role"].to_pylist()


def test_calibration_is_a_random_part_and_knows_no_clusters(home):
    """Over seeds, each molecule is drawn as often as any, and twins as seldom together as others.

    Were it drawn by clusters, similar molecules would be in it together.
    """
    seeds = 60
    drawn = np.zeros((seeds, INSIDE), bool)
    clusters = np.arange(INSIDE) // 5
    patched = pytest.MonkeyPatch()
    patched.setattr(training_roles, "_clusters", lambda rows, *_: clusters[: rows.num_rows])
    inside = opened(home)[0].molecules.slice(0, INSIDE)
    for seed in range(seeds):
        settings = train_settings(home, "unused", data_seed=seed)
        roles = training_roles.with_id_roles(inside, settings)["role"].to_pylist()
        drawn[seed] = np.array(roles) == "id_cal"
    patched.undo()
    assert (drawn.sum(axis=1) == 24).all()
    low, high = binom.interval(1 - 1e-4 / INSIDE, seeds, 0.2)
    assert low <= drawn.sum(axis=0).min() and drawn.sum(axis=0).max() <= high
    same = clusters[:, None] == clusters
    together = (drawn[:, :, None] & drawn[:, None, :]).mean(axis=0)
    other = ~np.eye(INSIDE, dtype=bool)
    assert together[same & other].mean() == pytest.approx(together[~same].mean(), abs=0.01)


def test_a_domain_column_gives_the_domains_but_not_the_cut(home, tmp_path):
    assays = [f"assay {i % 3}" for i in range(INSIDE)]
    file = write_table(tmp_path / "assays.csv", smiles=moses()[:INSIDE], assay=assays)
    _, sample = opened(home, id_file=str(file), domain_column="assay")
    assert [row["domain"] for row in of(sample, *ID)] == assays
    _, plain = opened(home)
    assert sample["role"].to_pylist() == plain["role"].to_pylist()


def test_molecules_that_look_alike_to_fingerprints_can_be_cut(home, tmp_path):
    """Long chains have few different fingerprints: fewer clusters, not an error."""
    chains = ["C" * n + end for end in ("O", "N", "S", "F") for n in range(6, 26)]
    file = write_table(tmp_path / "chains.csv", smiles=chains)
    _, sample = opened(home, id_file=str(file))
    check_cut(of(sample, "id_train", "id_val"), "id_val")
    _, sample = opened(home, ood_file=str(file))
    check_cut(of(sample, *OOD), "ood_val")


def test_molecules_of_one_fingerprint_are_told_to_be_too_alike(home, tmp_path):
    file = write_table(tmp_path / "chains.csv", smiles=["C" * n for n in range(8, 88)])
    with pytest.raises(InputError, match=r"--ood file.*fingerprint"):
        opened(home, ood_file=str(file))
    with pytest.raises(InputError, match=r"--id_file .*chains.csv.*fingerprint"):
        opened(home, id_file=str(file))


# --- duplicates, and molecules on both sides --------------------------------------------------


def test_rows_that_repeat_a_molecule_or_are_none_are_rejected_with_reasons(home, tmp_path):
    inside = [*moses()[:INSIDE], moses()[3], "nonsense", ""]
    values = [*range(INSIDE), 99, 1, 2]
    file = write_table(tmp_path / "t.csv", smiles=inside, y=values)
    source, sample = opened(home, id_file=str(file), label_column="y")
    assert len(of(sample, *ID)) == INSIDE
    reasons = [row["reason"] for row in source.rejected.to_pylist()]
    assert len(reasons) == 3 and any("duplicate" in r and "another label" in r for r in reasons)


def test_ood_molecules_that_the_training_set_has_are_left_out_and_said(home, tmp_path):
    twisted = "".join(["OC(=O)c1ccccc1", "OC(C)=O"])  # not canonical
    inside = [*moses()[:INSIDE], "CC(=O)Oc1ccccc1C(=O)O"]
    both = [*moses()[:7], *hiv()[:40], "O=C(O)c1ccccc1OC(C)=O"]
    assert twisted not in inside
    file = write_table(tmp_path / "t.csv", smiles=inside)
    ood = write_table(tmp_path / "o.csv", smiles=both)
    source, sample = opened(home, id_file=str(file), ood_file=str(ood))
    assert set(smiles_of(of(sample, *OOD))) == {canonicalize(s) for s in hiv()[:40]}
    reasons = Counter(row["reason"] for row in source.rejected.to_pylist())
    assert reasons == {"it is in the training set too": 8}
    assert any(note.startswith("8 of them left out") for note in source.notes)


# --- where OOD molecules come from ------------------------------------------------------------


def test_the_background_is_a_seeded_sample_of_public_molecules(home):
    shipped = Path(training_set.__file__).parents[1] / "molecules/background/background.smi.gz"
    lines = gzip.decompress(shipped.read_bytes()).decode().split("\n")
    public = {line.split()[0] for line in lines if line.strip() and not line.startswith("smiles")}
    source, sample = opened(home, ood_file=None, ood_size=300)
    found = smiles_of(of(sample, *OOD))
    assert len(found) == 300 and {canonicalize(s) for s in public} > set(found)
    again, other = (
        smiles_of(of(opened(home, ood_file=None, ood_size=300, data_seed=seed)[1], *OOD))
        for seed in (42, 7)
    )
    assert again == found != other
    assert any("--ood background" in note for note in source.notes)


def test_a_sample_of_a_file_is_uniform_seeded_and_in_order(home, tmp_path, monkeypatch):
    monkeypatch.setattr(sampling, "PIECE", 7)  # it is read in many pieces
    chains = [f"C{'C' * i}" for i in range(50)]
    file = write_table(tmp_path / "chains.csv", smiles=chains)
    source = train_settings(home, "unused", data_file=str(file))
    drawn = np.zeros(50)
    for seed in range(300):
        rows = sampled_rows(source, 10, seed)["smiles"].to_pylist()
        places = [chains.index(row) for row in rows]
        assert len(places) == 10 and places == sorted(set(places))
        drawn[places] += 1
    low, high = binom.interval(1 - 1e-4 / 50, 300, 0.2)
    assert low <= drawn.min() and drawn.max() <= high
    first, again = (sampled_rows(source, 10, 1) for _ in range(2))
    assert first.equals(again)
    assert sampled_rows(source, 99, 1)["smiles"].to_pylist() == chains


def test_the_folds_of_a_library_are_disjoint_and_both_train_and_validate(home):
    source, sample = opened(home, ood="library", ood_file=None, library=str(home / "ood.csv"))
    rows = of(sample, *OOD)
    folds = [[row for row in rows if row["fold"] == fold] for fold in (0, 1)]
    assert sum(map(len, folds)) == len(rows) == 60
    for fold in folds:
        check_cut(fold, "ood_val")
    assert not {row["domain"] for row in folds[0]} & {row["domain"] for row in folds[1]}
    assert any("like the library" in note for note in source.notes)


# --- errors -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"ood": "file", "ood_file": None}, "--ood file needs --ood_file"),
        ({"ood": "library"}, "--ood_file does nothing with --ood library"),
        ({"ood": "background"}, "--ood_file does nothing with --ood background"),
        ({"ood": "library", "ood_file": None}, "--ood library needs --library"),
        ({"data_file": "split.json"}, "--data_file has splits and --id_file has none"),
        ({"id_file": None, "data_file": "s.json"}, "--ood_file does nothing without --id_file"),
        ({"id_file": None, "ood_file": None}, "required: --data_file.*--id_file"),
        (
            {"id_file": None, "ood_file": None, "data_file": "s.json", "library": "l.csv"},
            "--library does nothing without",
        ),
        ({"library": "l.csv"}, "--library does nothing with --ood file"),
        ({"ood_file": None, "structures": "file"}, "--structures file: the mol.*--ood_file"),
        ({"ood_file": "absent.csv"}, "absent.csv: no such file"),
        ({"id_file": "absent.csv"}, "absent.csv: no such file"),
        ({"detector": "msp"}, "--detector msp learns from labels.*--label_column"),
        ({"detector": "knn", "finetune_encoder": True}, "--finetune_encoder trains with an energy"),
        ({"detector": "auto", "finetune_encoder": True}, "--finetune_encoder trains with an ener"),
        ({"detector": "bce", "loss": "mse"}, "name two energy heads"),
        ({"train_size": 5}, "--train_size does nothing with --id_file"),
        ({"sampling": "good"}, "--sampling does nothing with --id_file"),
        ({"split_column": "y"}, "--split_column does nothing with --id_file"),
        (
            {"ood": "library", "library": "ood.csv", "ood_file": None, "views": "unimol",
             "finetune_encoder": True, "detector": "dpo"},
            "--finetune_encoder.*--ood library",
        ),
    ],
)  # fmt: skip
def test_wrong_flags_name_what_to_mend(home, changes, told):
    with pytest.raises(InputError, match=told) as error:
        check_training(train_settings(home, "unused", **changes))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("flag", "content", "told"),
    [
        ("id_file", {"smiles": moses()[:49]}, "49 different molecules are too few.*at least 50"),
        ("ood_file", {"smiles": hiv()[:19]}, "--ood file: 19 different .*at least 20"),
        ("id_file", {"smiles": ["no", "nor"]}, "none of 2 rows is a molecule"),
        ("ood_file", {"smiles": ["no", "nor"]}, "none of 2 rows is a molecule"),
        ("id_file", {"smiles": moses()[:60], "y": ["high"] * 60}, "y"),
        ("ood_file", {"molecule": hiv()[:60]}, "no column 'smiles'.*--smiles_column"),
    ],
)
def test_files_that_cannot_serve_are_told(home, tmp_path, flag, content, told):
    file = str(write_table(tmp_path / "file.csv", **content))
    labelled = "y" if "y" in content or flag == "ood_file" else None
    with pytest.raises(InputError, match=told) as error:
        opened(home, label_column=labelled, **{flag: file})
    assert "\n" not in str(error.value)


def test_only_the_training_file_needs_the_columns_of_labels_and_domains(home, tmp_path):
    columns = {"smiles": moses()[:60], "y": [1.5] * 60, "assay": ["a", "b"] * 30}
    file = write_table(tmp_path / "t.csv", **columns)
    _, sample = opened(home, id_file=str(file), label_column="y", domain_column="assay")
    assert {row["domain"] for row in of(sample, *ID)} == {"a", "b"}
    with pytest.raises(InputError, match="training.csv.*no column 'activity'.*--label_column"):
        opened(home, label_column="activity")
