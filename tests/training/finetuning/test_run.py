"""Finetuning from data file to checkpoint and back: training, the trunk table, evaluation."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
from sklearn.metrics import roc_auc_score

from jobs import encode as encode_job
from jobs import evaluate as evaluate_job
from jobs import train as train_job
from jobs.cli import main
from pipeline.detectors.heads.energy_head import energies_of
from pipeline.encoders import load_encoder
from pipeline.encoders.unimol.published_format import save_checkpoint
from pipeline.encoding.in_store.tables import Tables, TrunkSpec
from pipeline.encoding.plan import plan_encoding
from pipeline.encoding.settings import EncodeSettings
from pipeline.evaluation.run import run_evaluation
from pipeline.evaluation.settings import EvaluateSettings
from pipeline.molecules.identity import canonicalize
from pipeline.runtime.errors import InputError
from pipeline.runtime.telemetry import GIB
from pipeline.scoring.run import run_scoring
from pipeline.scoring.settings import ScoreSettings
from pipeline.training.checkpoints.checkpoint import load_checkpoint
from pipeline.training.finetuning.preparation import (
    FinetuneRun,
    choose_trunk,
    prepare_finetuning,
)
from pipeline.training.run import run_training
from pipeline.training.settings import TrainSettings
from tests.commands import assert_one_line
from tests.molecules.data_files import read_molecules
from tests.reference import random_model
from tests.scoring_here import scoring_here
from tests.training.finetuning.made_runs import LAYERS, NAMES, Run, settings, smiles_of


@pytest.fixture(scope="module")
def home(
    ray_session, in_process, encoder_in_process, tmp_path_factory, hiv_smiles, moses_smiles
) -> Path:
    """A folder with a checkpoint of 4 layers and a split: MOSES is ID, HIV is OOD."""
    folder = tmp_path_factory.mktemp("finetune")
    save_checkpoint(random_model(LAYERS), folder / "base.pt")
    small = [s for s in hiv_smiles if len(s) < 40]
    parts = [moses_smiles[:40], moses_smiles[40:52], moses_smiles[52:64], small[:48], small[48:60]]
    items = {name: [{"smiles": s} for s in part] for name, part in zip(NAMES, parts)}
    (folder / "split.json").write_text(json.dumps({"split": items}))
    return folder


@pytest.fixture(scope="module")
def kept(home) -> Run:
    """One worker, the trunk in the store."""
    return Run(home, "kept")


def test_only_a_short_finetuning_is_the_drivers():
    mini, published = (
        FinetuneRun(None, None, trained, frozen, None)
        for trained, frozen in ((396_800, 2_602_514), (6_305_792, 41_024_834))
    )
    assert mini.is_short(5 * 284) and not mini.is_short(5 * 2840)
    assert published.is_short(200) and not published.is_short(5 * 284)


def test_statistics_say_what_was_frozen_and_trained(kept):
    layer = 4 * 64 * 64 + 4 * 64 + 2 * 64 * 128 + 128 + 64 + 4 * 64
    total = sum(p.numel() for p in random_model(LAYERS).parameters())
    assert kept.stats["cut"] == 2 and kept.stats["trunk_kept"] is True
    assert kept.stats["encoder_parameters_trained"] == 2 * layer + 2 * 64
    assert kept.stats["encoder_parameters_frozen"] == total - 2 * layer - 2 * 64
    head = 64 * 256 + 256 + 256 * 128 + 128 + 128 + 1
    assert kept.stats["trained_parameters"] == 2 * layer + 2 * 64 + head
    for phase in ("encoding", "train", "eval"):
        assert kept.stats[f"peak_resident_memory_{phase}_gb"] > 0.05
        assert kept.stats[f"peak_gpu_memory_{phase}_gb"] == 0


def test_the_checkpoint_holds_the_trained_layers_alone(kept):
    names = set(kept.tensors())
    assert {".".join(name.split(".")[:3]) for name in names} == {
        "encoder.layers.2", "encoder.layers.3", "encoder.final_layer_norm.weight",
        "encoder.final_layer_norm.bias",
    }  # fmt: skip
    config = json.loads(Path(f"{kept.checkpoint}/config.json").read_text())
    assert config["finetuned"]["base_sha256"] == config["encoder"]["weights_sha256"]
    base = random_model(LAYERS).state_dict()
    assert all(not torch.equal(base[name], tensor) for name, tensor in kept.tensors().items())


def test_two_workers_that_compute_the_trunk_train_the_same(home, kept):
    other = Run(home, "computed", trunk_cache="off", num_workers=2)
    assert other.stats["trunk_kept"] is False and other.stats["encoded_molecules"] == 0
    for name in ("loss", "mean_margin", "val_auroc", "gradient_norm"):
        np.testing.assert_allclose(other.column(name), kept.column(name), rtol=1e-3)
    expected = kept.tensors()
    for name, tensor in other.tensors().items():
        assert (tensor - expected[name]).abs().max() < 2e-3, name


def test_the_same_seed_gives_the_same_run_and_encodes_nothing(home, kept):
    again = Run(home, "again")
    assert again.stats["encoded_molecules"] == 0
    assert again.column("loss") == kept.column("loss")
    for name, tensor in again.tensors().items():
        assert torch.equal(tensor, kept.tensors()[name])


@pytest.fixture(scope="module")
def adapted(home, kept) -> Run:
    """Everything else at once: LoRA, a stream of a trunk in bf16, accumulation, checkpointing."""
    return Run(
        home, "adapted", adapter="lora", lora_layers="1,3", lora_rank=4, resident_gb=0.0,
        trunk_precision="bf16", precision="bf16", gradient_accumulation_steps=2,
        gradient_checkpointing=True, warmup_steps=2, lr_schedule="cosine", encoder_dropout=0.1,
    )  # fmt: skip


def test_a_lower_cut_has_a_trunk_of_its_own(home, kept, adapted):
    assert adapted.stats["cut"] == 1 and adapted.stats["features_resident"] is False
    assert adapted.stats["encoded_molecules"] > 0
    cuts = {
        json.loads(path.read_text())["trunk"]["cut"]: path.parent
        for path in (home / "store" / "trunk").glob("*/_settings.json")
    }
    assert cuts.keys() == {1, 2}
    for cut, folder in cuts.items():
        table = pq.read_table(folder)
        n = np.array(table["n"].to_pylist())
        size = 4 if cut == 2 else 2
        assert [len(x.as_buffer()) for x in table["x"]] == (n * 64 * 4).tolist()
        assert [len(p.as_buffer()) for p in table["pair"]] == (n**2 * 8 * size).tolist()


@pytest.mark.parametrize("name", ["kept", "adapted"])
def test_the_loaded_encoder_has_the_energies_of_training(request, home, name):
    """The best validation AUROC comes out again from SMILES, through the loaded encoder."""
    run = request.getfixturevalue(name)
    checkpoint = load_checkpoint(run.checkpoint)
    assert checkpoint.finetuned
    encoder = load_encoder(
        "unimol", finetuned=run.checkpoint, device="cpu", precision=run.settings.precision
    )
    base = load_encoder(
        "unimol", weights=run.settings.weights, device="cpu", precision=run.settings.precision
    )
    smiles = smiles_of(run.settings)
    is_val = pc.is_in(checkpoint.molecules["role"], pa.array(["id_val", "ood_val"]))
    validation = checkpoint.molecules.filter(is_val)
    texts = [smiles[i] for i in validation["id"].to_pylist()]
    features = encoder.encode_smiles(texts)
    assert np.abs(features - base.encode_smiles(texts)).max() > 1e-2
    is_ood = pc.equal(validation["role"], "ood_val").to_numpy()
    auroc = roc_auc_score(is_ood, energies_of(checkpoint.head, features))
    tolerance = 1e-9 if name == "kept" else 0.05
    assert auroc == pytest.approx(run.stats["best_val_auroc"], abs=tolerance)


def test_evaluation_encodes_with_the_finetuned_layers(home, kept):
    evaluation = EvaluateSettings(
        checkpoint=kept.checkpoint, cache_root=str(home / "store"), device="cpu",
        output_dir=str(home / "evaluation"), bootstrap_samples=100,
    )  # fmt: skip
    results = run_evaluation(evaluation)
    assert results["weights"] == "base.pt, finetuned"
    with open(home / "evaluation" / "detailed_predictions.csv") as file:
        rows = list(csv.DictReader(file))
    encoder = load_encoder("unimol", finetuned=kept.checkpoint, device="cpu", precision="fp32")
    head = load_checkpoint(kept.checkpoint).head
    expected = energies_of(head, encoder.encode_smiles([row["smiles"] for row in rows]))
    np.testing.assert_allclose([float(row["energy"]) for row in rows], expected, atol=1e-4)


def test_scoring_encodes_with_the_finetuned_layers(home, kept, tmp_path):
    """In a store of its own; the energies are those of training, from SMILES by the model."""
    lines = json.loads((home / "split.json").read_text())["split"]["iid_test"]
    smiles = [canonicalize(line["smiles"]) for line in lines]
    (tmp_path / "library.smi").write_text("\n".join(smiles))
    wanted = ScoreSettings(
        checkpoint=kept.checkpoint, data_file=str(tmp_path / "library.smi"), device="cpu",
        cache_root=str(tmp_path / "store"), output_dir=str(tmp_path / "out"), alpha=0.2,
        encoder_workers=1, top=0,
    )  # fmt: skip
    with scoring_here():
        run_scoring(wanted)
    scores = pq.read_table(tmp_path / "out/scores/part-00000-0000000.parquet")
    assert scores["smiles"].to_pylist() == smiles
    encoder = load_encoder("unimol", finetuned=kept.checkpoint, device="cpu", precision="fp32")
    expected = energies_of(load_checkpoint(kept.checkpoint).head, encoder.encode_smiles(smiles))
    np.testing.assert_allclose(scores["energy"], expected, atol=1e-5)


def test_a_changed_encoder_file_is_refused(kept, tmp_path, capsys):
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    for path in Path(kept.checkpoint).iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "encoder.safetensors").write_bytes(b"x" * 100)
    argv = ["--checkpoint", str(folder), "--output_dir", str(tmp_path / "out")]
    code = main(EvaluateSettings, evaluate_job.evaluate, "evaluate", argv)
    assert_one_line(code, capsys.readouterr().err, "evaluate", "encoder.safetensors", "config.json")


def test_encoding_with_other_base_weights_is_refused(home, kept, tmp_path, capsys):
    save_checkpoint(random_model(LAYERS, seed=9), tmp_path / "other.pt")
    argv = [
        "--data_file", str(home / "split.json"), "--finetuned", kept.checkpoint,
        "--weights", str(tmp_path / "other.pt"), "--output_dir", str(tmp_path / "out"),
    ]  # fmt: skip
    code = main(EncodeSettings, encode_job.encode, "encode", argv)
    assert_one_line(code, capsys.readouterr().err, "encode", "finetuned from weights")


def test_other_base_weights_are_refused(home, kept, tmp_path, capsys):
    save_checkpoint(random_model(LAYERS, seed=9), tmp_path / "other.pt")
    argv = ["--checkpoint", kept.checkpoint, "--weights", str(tmp_path / "other.pt"),
            "--output_dir", str(tmp_path / "out")]  # fmt: skip
    code = main(EvaluateSettings, evaluate_job.evaluate, "evaluate", argv)
    assert_one_line(code, capsys.readouterr().err, "evaluate", "--weights")


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ({"freeze_layers": "3-20"}, "--freeze_layers 3-20: there is no layer 20"),
        ({"freeze_layers": "a-b"}, "--freeze_layers a-b"),
        ({"freeze_layers": "0-3"}, "every layer is frozen"),
        ({"freeze_layers": "none", "trunk_cache": "on"}, "--trunk_cache on"),
        ({"trunk_cache": "on", "trunk_gb": "0.00001"}, "do not fit"),
        ({"foundation_model": "minimol"}, "minimol cannot be finetuned"),
        ({"finetune_encoder": "false"}, "--freeze_layers does nothing without --finetune_encoder"),
        ({"lora_rank": "4"}, "--lora_rank does nothing without --adapter lora"),
        ({"encoder_lr": "0"}, "--encoder_lr must be above 0"),
        ({"adapter": "loha"}, "--adapter"),
    ],
)
def test_wrong_settings_are_told_in_one_line(home, tmp_path, capsys, flags, told):
    usual = {
        "data_file": home / "split.json", "weights": home / "base.pt", "sampling": "all",
        "finetune_encoder": "true", "freeze_layers": "0-1", "device": "cpu",
        "cache_root": tmp_path / "store", "output_dir": tmp_path / "out",
    }  # fmt: skip
    argv = [word for k, v in {**usual, **flags}.items() for word in (f"--{k}", str(v))]
    code = main(TrainSettings, train_job.train, "train", argv)
    assert_one_line(code, capsys.readouterr().err, "train", told)


def test_finetuning_starts_from_published_weights_alone(home, kept):
    with pytest.raises(InputError, match="leave --finetuned out"):
        run_training(settings(home, "twice", finetuned=kept.checkpoint))


def test_a_trunk_made_in_another_precision_is_another(kept):
    spec = TrunkSpec(2, "bf16")
    keys = {
        Tables.of(replace(kept.settings, precision=precision)).with_trunk(spec).trunk.key
        for precision in ("fp32", "bf16")
    }
    assert len(keys) == 2


def test_a_trunk_in_the_store_needs_no_room(home, kept):
    molecules = read_molecules(kept.settings).molecules
    seen = load_checkpoint(kept.checkpoint).molecules
    molecules = molecules.filter(pc.is_in(molecules["key"], seen["key"].combine_chunks()))
    wanted = settings(home, "any", trunk_gb=0.0)
    run = prepare_finetuning(wanted)
    assert choose_trunk(run, molecules, plan_encoding(wanted)) == TrunkSpec(2, "fp32")
    anew = replace(wanted, force_recompute_cache=True)
    assert choose_trunk(run, molecules, plan_encoding(anew)) is None


def test_the_trunk_is_kept_where_its_estimated_size_fits(home, kept):
    """The estimate is the size that the kept one has."""
    molecules = read_molecules(kept.settings).molecules
    smiles = molecules.filter(pc.is_in(molecules["split"], pa.array(NAMES[:2] + NAMES[3:4])))
    run = prepare_finetuning(kept.settings)
    table = pq.read_table(next((home / "store" / "trunk").glob("*")))
    size = sum(len(cell.as_buffer()) for name in ("x", "pair") for cell in table[name]) / GIB
    smiles = smiles.set_column(1, "key", pa.array([f"{n:032x}" for n in range(smiles.num_rows)]))
    for room, expected in ((1.02 * size, TrunkSpec(2, "fp32")), (0.98 * size, None)):
        wanted = settings(home, "any", trunk_gb=room)
        assert choose_trunk(run, smiles, plan_encoding(wanted)) == expected
