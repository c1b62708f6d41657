"""20,000 lines that are made to break things: each is encoded, or rejected with a reason."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from jobs import encode as encode_job
from jobs.cli import main
from pipeline.encoding.settings import EncodeSettings
from pipeline.store.keyed_table import KeyedTable
from tests.encoding.adversarial import LINES, adversarial


@pytest.fixture(scope="module")
def encoded(ray_session, moses_smiles, small_weights, tmp_path_factory) -> tuple[Path, list[str]]:
    """The output folder of jobs.encode, and the kind of each line."""
    folder = tmp_path_factory.mktemp("bad")
    kinds = adversarial(moses_smiles)
    lines = [(line, kind) for kind, those in kinds.items() for line in those]
    random.Random(0).shuffle(lines)
    named = [b"%s\tn:%d" % (line, i) for i, (line, _) in enumerate(lines)]
    (folder / "lines.smi").write_bytes(b"\n".join([b"smiles\tname", *named, b""]))
    flags = {
        "data_file": folder / "lines.smi", "cache_root": folder / "store", "device": "cpu",
        "output_dir": folder / "out", "weights": small_weights, "conformer_seconds": 3,
        "conformer_gb": 1, "conformer_method": "etkdg",
    }  # fmt: skip
    argv = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
    assert main(EncodeSettings, encode_job.encode, "encode", argv) == 0
    return folder, [kind for _, kind in lines]


def test_every_line_is_encoded_or_rejected_with_a_reason(encoded):
    folder, _ = encoded
    molecules = pq.read_table(folder / "out/molecules.parquet").to_pylist()
    rejected = pq.read_table(folder / "out/rejected.parquet").to_pylist()
    ids = [row["id"] for row in molecules + rejected]
    assert len(ids) == LINES and {int(row.split(":")[1].rstrip("#")) for row in ids} == set(
        range(LINES)
    )
    assert all(row["stage"] and row["reason"] for row in rejected)
    identity = json.loads((folder / "out/run_summary.json").read_text())["encoder_identity"]
    keys = sorted({row["key"] for row in molecules})
    features = KeyedTable(str(folder / "store"), "features", identity).read_features(keys)
    assert np.isfinite(features).all()


def test_what_is_a_molecule_is_encoded_however_odd(encoded):
    folder, kinds = encoded
    found = pq.read_table(folder / "out/molecules.parquet", columns=["id"])["id"].to_pylist()
    count, total = (
        Counter(kinds[int(row.split(":")[1].rstrip("#"))] for row in found),
        Counter(kinds),
    )
    assert count["salt"] == total["salt"] and count["fragments"] == total["fragments"]
    for kind in ("metal", "radical", "weird", "unbalanced"):
        assert 0 < count[kind] < total[kind], kind
    assert count["empty"] == 0


def test_what_is_too_large_is_rejected_as_that(encoded):
    folder, kinds = encoded
    rows = pq.read_table(folder / "out/rejected.parquet").to_pylist()
    reasons = {int(row["id"].split(":")[1].rstrip("#")): row["reason"] for row in rows}
    for place in (place for place, kind in enumerate(kinds) if kind == "long"):
        assert "characters, more than 5,000" in reasons[place]
    limits = "took more than 3 s|needs more than 1 GiB"
    large = [reasons.get(place) for place, kind in enumerate(kinds) if kind == "polymer"]
    assert all(reason is None or re.search(limits, reason) for reason in large)
    assert sum(reason is not None for reason in large) > len(large) / 2
