"""Uni-Mol2 in the flow: conformers of the store, features under their own key, and refusals."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from jobs import cli
from jobs.encode import encode as encode_job
from pipeline.encoders import load_encoder
from pipeline.encoders.settings import EncoderSettings
from pipeline.encoding import graph
from pipeline.encoding.in_store.tables import Tables
from pipeline.encoding.plan import check_structures, encoder_pool, plan_encoding
from pipeline.encoding.settings import EncodeSettings
from pipeline.encoding.stored_features import EncodeResult, encode
from pipeline.encoding.views import check_encoders, settings_of_view
from pipeline.molecules.identity import canonicalize, molecule_key
from pipeline.runtime.errors import InputError
from pipeline.training.finetuning.preparation import prepare_finetuning
from pipeline.training.settings import TrainSettings
from tests.commands import assert_one_line


def encoded(smiles: list[str], root: Path, weights: Path, **changes) -> EncodeResult:
    settings = EncoderSettings(**{
        "foundation_model": "unimol2", "cache_root": str(root), "weights": str(weights),
        "device": "cpu", "precision": "fp32", "encoder_workers": 1, **changes,
    })  # fmt: skip
    canonical = [canonicalize(one) for one in smiles]
    table = pa.table({"key": [molecule_key(c) for c in canonical], "smiles": canonical})
    return encode(table, plan_encoding(settings))


@pytest.mark.parametrize("by_tasks", [False, True])
def test_features_come_from_the_conformers_that_unimol_has_made(
    ray_session, encoder_in_process, checkpoint, small_weights, moses_smiles, tmp_path,
    monkeypatch, by_tasks,
):  # fmt: skip
    """Graphs made by the encoder, or by tasks as for one on a GPU."""
    kept = graph.graphs_by_tasks
    monkeypatch.setattr(
        graph, "graphs_by_tasks",
        lambda plan, pool: by_tasks and kept(plan, pool._replace(device="cuda")),
    )  # fmt: skip
    some = [*moses_smiles[:6], "CC[C](C)(C)[Ge]"]
    encoded(some[:4], tmp_path, small_weights, foundation_model="unimol")
    result = encoded(some, tmp_path, checkpoint)
    assert (result.encoded, result.rejected.num_rows) == (7, 0)
    assert (result.stages.graph_seconds > 0) is by_tasks
    made = [path for path in tmp_path.glob("conformers/*/*.parquet")]
    assert len({path.parent for path in made}) == 1  # one table of conformers for both
    assert result.conformers.index().keys.size == 7

    canonical = [canonicalize(one) for one in some]
    keys = [molecule_key(one) for one in canonical]
    encoder = load_encoder("unimol2", weights=str(checkpoint), device="cpu", precision="fp32")
    expected = encoder.encode_smiles(canonical)
    np.testing.assert_allclose(result.features.read_features(keys), expected, rtol=0, atol=1e-5)

    again = encoded(some, tmp_path, checkpoint)
    assert (again.encoded, again.known) == (0, 7)
    larger = encoded(some[:1], tmp_path, checkpoint, model_size="310m")
    assert (larger.encoded, larger.features.uri == result.features.uri) == (1, False)


def test_a_checkpoint_that_does_not_fit_is_told_before_anything_starts(
    deeper, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr("pipeline.encoding.plan.start_ray", lambda: pytest.fail("too late"))
    (tmp_path / "good.smi").write_text("CCO\n")
    argv = {
        "data_file": tmp_path / "good.smi", "foundation_model": "unimol2", "weights": deeper,
        "cache_root": tmp_path / "store", "output_dir": tmp_path / "out",
    }  # fmt: skip
    words = [str(word) for name, value in argv.items() for word in (f"--{name}", value)]
    code = cli.main(EncodeSettings, encode_job, "encode", words)
    assert_one_line(code, capsys.readouterr().err, "encode", "84m has 2 layers", "--model_size")


def test_a_folder_of_weights_is_found_by_processes_that_stand_elsewhere(
    checkpoint, tmp_path, monkeypatch
):
    monkeypatch.setattr("pipeline.encoding.plan.start_ray", lambda: None)
    monkeypatch.setattr("pipeline.encoding.plan.device_of", lambda device: "cpu")
    file = tmp_path / "kept" / "modelzoo" / "84M" / "checkpoint.pt"
    file.parent.mkdir(parents=True)
    shutil.copy(checkpoint, file)
    monkeypatch.chdir(tmp_path)
    settings = EncoderSettings(foundation_model="unimol2", weights="kept", cache_root="store")
    assert plan_encoding(settings).weights == str(file)


def test_large_checkpoints_get_as_many_encoders_as_memory_holds(tmp_path, monkeypatch):
    has = {"CPU": 8, "memory": 16 * 1024**3}
    monkeypatch.setattr("pipeline.encoding.plan.resources", lambda: has)
    monkeypatch.setattr("ray.cluster_resources", lambda: has)
    for gib, actors in ((0.5, 8), (3, 2), (20, 1)):
        path = tmp_path / "a.pt"
        with open(path, "wb") as file:
            file.truncate(int(gib * 1024**3))
        settings = EncoderSettings(foundation_model="unimol2", weights=str(path))
        assert encoder_pool(settings, "cpu").actors == actors


def test_a_size_is_refused_where_there_is_none_to_choose(tmp_path):
    root = str(tmp_path)
    for name in ("unimol", "ecfp"):
        settings = EncoderSettings(
            foundation_model=name, weights="mini", model_size="84m", cache_root=root
        )
        with pytest.raises(InputError, match=f"--model_size: {name} has one size, only unimol2"):
            Tables.of(settings)


def test_structures_of_a_file_are_refused(tmp_path):
    settings = EncodeSettings(
        data_file=str(tmp_path / "a.sdf"), foundation_model="unimol2", weights="untrained",
        structures="file", cache_root=str(tmp_path), output_dir=str(tmp_path),
    )  # fmt: skip
    with pytest.raises(InputError, match="--structures file: unimol2 reads the bonds"):
        check_structures("file", Tables.of(settings))
    (tmp_path / "a.sdf").touch()
    with pytest.raises(InputError, match="--structures file: unimol2 reads the bonds"):
        check_encoders(settings, ("unimol2", "ecfp"))


def test_finetuning_is_refused():
    settings = TrainSettings(
        data_file="a.csv", foundation_model="unimol2", finetune_encoder=True, weights="untrained"
    )
    with pytest.raises(InputError, match="unimol2 cannot be finetuned, only unimol"):
        prepare_finetuning(settings)


def test_weights_and_size_go_to_the_view_that_they_are_of():
    def views(names: str) -> dict[str, tuple]:
        given = TrainSettings(
            data_file="a.csv", views=names, weights="a.pt", finetuned="folder", model_size="164m",
            token_order="official",
        )  # fmt: skip
        each = {name: settings_of_view(given, name) for name in given.view_names}
        return {
            name: (s.weights, s.finetuned, s.token_order, s.model_size) for name, s in each.items()
        }

    assert views("unimol,unimol2,ecfp") == {
        "unimol": ("a.pt", "folder", "official", None),
        "unimol2": (None, None, "auto", "164m"),
        "ecfp": (None, None, "official", None),
    }
    assert views("unimol2,ecfp") == {
        "unimol2": ("a.pt", "folder", "official", "164m"),
        "ecfp": (None, None, "official", None),
    }
    assert views("unimol,ecfp")["ecfp"][3] == "164m"  # which is refused
