"""Output folders as the jobs write them, made up: small ones of each kind."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from pipeline.evaluation.audit import audit
from pipeline.evaluation.metrics import evaluate
from pipeline.molecules.rejected import REJECTED
from pipeline.runtime.text import records_csv
from pipeline.scoring.levels import SCORES
from pipeline.suite.results.output import warnings_of
from pipeline.suite.results.statistics import groups_of, holm, method_of, ranks, signed_rank
from pipeline.suite.results.table import COSTS

TESTS = Path(__file__).parent.parent
HOSTILE = '<script>alert("x")</script>'
THRESHOLD, ALPHA = 1.0, 0.05


def smiles_of(name: str) -> list[str]:
    return (TESTS / f"data/{name}.smi").read_text().split()


def write_json(path: Path, content: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def write_rejected(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=REJECTED), path)


def scores_table(smiles: list[str], known: list[str], seed: int = 0, **columns) -> pa.Table:
    """Made-up SCORES: the first half inside."""
    rng, n = np.random.default_rng(seed), len(smiles)
    energy = np.where(np.arange(n) < n // 2, rng.normal(-1, 0.8, n), rng.normal(2, 0.8, n))
    made = {
        "id": [f"mol{i}" for i in range(n)], "smiles": smiles, "energy": energy,
        "p_value": np.where(energy > THRESHOLD, 0.04 * rng.random(n) + 0.001, rng.random(n)),
        "is_ood": energy > THRESHOLD, "structure": ["3d"] * n, "in_training": [False] * n,
        "nearest_id": [f"train{i % len(known)}" for i in range(n)],
        "nearest_smiles": [known[i % len(known)] for i in range(n)],
        "nearest_similarity": rng.random(n), "prediction": rng.normal(6, 1, n),
        "expected_error": rng.random(n) + 0.1, "lower": None, "upper": None, "error_scale": None,
    }  # fmt: skip
    made |= columns
    arrays = [
        pa.nulls(n, field.type) if made[field.name] is None else pa.array(made[field.name])
        for field in SCORES
    ]
    return pa.table(arrays, names=SCORES.names).cast(SCORES)


def write_library(folder: Path, **columns) -> pa.Table:
    """A scored library of 40 molecules in two parts, with a training beside it."""
    smiles = smiles_of("moses")[:20] + smiles_of("hiv")[:20]
    known = smiles_of("moses")[100:140]
    table = scores_table(smiles, known, **columns)
    for part in range(2):
        path = folder / f"scores/part-00000-000000{part}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table.slice(20 * part, 20), path)
    write_rejected(
        folder / "rejected/part-00000-0000000.parquet",
        [
            {"id": HOSTILE, "smiles": f'nonsense"{HOSTILE}', "stage": "parse",
             "reason": f"SMILES does not parse: {HOSTILE}"},
            {"id": "b", "smiles": None, "stage": "parse", "reason": "the SMILES is empty"},
        ],
    )  # fmt: skip
    write_json(
        folder / "run_summary.json",
        {
            "dataset": "library.smi", "checkpoint": str(folder / "training/checkpoint"),
            "encoder": "minimol", "weights": "w", "detector": "dpo", "alpha": ALPHA,
            "energy_threshold": THRESHOLD, "calibration_molecules": 99, "calibrated_by": "id_cal",
            "structures": {"3d": 40, "2d": 0}, "rows_in": 42, "rejected": 2,
        },
    )  # fmt: skip
    roles = ["id_train"] * 30 + ["id_val"] * 10 + ["ood_train"] * 20
    molecules = {"smiles": known + smiles_of("hiv")[100:120], "role": roles}
    path = folder / "training/checkpoint/training_molecules.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(molecules), path)
    return table


def write_training(folder: Path, detector: str = "dpo", epochs: int = 6) -> None:
    stats = {
        "encoder": "minimol", "weights": "w", "dataset": "d.json", "seed": 1, "detector": detector,
        "views": ["minimol"], "best_val_auroc": 0.9, "molecules": {"id_train": 30, "ood_train": 20},
        "train_time_seconds": 2.0, "peak_resident_memory_train_gb": 0.5,
        **({"epochs": epochs, "best_epoch": 4} if epochs else {}),
    }  # fmt: skip
    write_json(folder / "training_stats.json", stats)
    write_json(folder / "checkpoint/config.json", {"settings": {"dpo_beta": 0.5}})
    write_rejected(folder / "rejected.parquet", [])
    if epochs:
        rows = [
            {"epoch": i, "loss": 1 / i, "misranked_share": 0.5 / i, "near_boundary_share": 0.1 / i,
             "mean_margin": 2.0 * i - 2, "gradient_norm": 1 / i, "val_auroc": 0.5 + 0.06 * i}
            for i in range(1, epochs + 1)
        ]  # fmt: skip
        (folder / "training_dynamics.csv").write_bytes(records_csv(rows, {"encoder": "minimol"}))


def predictions(shift: float, seed: int = 0, count: int = 30) -> dict:
    rng = np.random.default_rng(seed)
    is_ood = np.arange(2 * count) >= count
    return {
        "id": [f"{'ood' if o else 'id'}{i}" for i, o in enumerate(is_ood)],
        "smiles": smiles_of("moses")[:count] + smiles_of("hiv")[:count],
        "is_ood": is_ood.astype(int), "energy": rng.normal(0, 1, 2 * count) + shift * is_ood,
        "domain": [str(i % 4) for i in range(2 * count)], "structure": ["3d"] * (2 * count),
    }  # fmt: skip


def write_evaluation(folder: Path, shift: float = 2.0, seed: int = 0, **columns) -> dict:
    """With an audit of its own molecules."""
    made = predictions(shift, seed) | columns
    is_ood, energies = made["is_ood"].astype(bool), made["energy"]
    training = pa.table(
        {"smiles": smiles_of("moses")[60:90] + smiles_of("hiv")[60:90],
         "role": ["id_train"] * 30 + ["ood_train"] * 30}
    )  # fmt: skip
    results = {
        "encoder": "minimol", "weights": "w", "dataset": "d.json", "detector": "dpo",
        **evaluate(energies[~is_ood], energies[is_ood], bootstrap_samples=20, seed=1),
        "audit": audit(training, made["smiles"], is_ood, energies, bootstrap_samples=20, seed=1),
    }  # fmt: skip
    write_json(folder / "ood_evaluation_results.json", results)
    content = {name: values for name, values in made.items() if values is not None}
    (folder / "detailed_predictions.csv").write_bytes(
        records_csv(pa.table(content).to_pylist(), {"encoder": "minimol", "weights": "w"})
    )
    write_rejected(folder / "test_rejected.parquet", [])
    return results


def suite_cells(data: int = 7, failed: bool = True) -> pa.Table:
    """Cells of `data` sets × 2 encoders × 3 detectors × 3 seeds, and some across two sets."""
    rng = np.random.default_rng(3)
    lead = {"dpo": 0.1, "knn": 0.0, "mahalanobis": -0.06}
    sets = [f"set_{i}" for i in range(data)]
    pairs = [(name, name) for name in sets] + [("set_0", "set_1"), ("set_1", "set_0")]
    rows = []
    for own, test in pairs:
        base = rng.normal(0.75, 0.05)
        for encoder in ("minimol", "unimol"):
            for detector, more in lead.items():
                for seed in (1, 2, 3):
                    area = base + more + 0.01 * (encoder == "unimol") + rng.normal(0, 0.01)
                    rows.append(_cell(own, test, encoder, detector, seed, float(area)))
    if failed:
        rows[0] |= {"status": "failed", "reason": f"out of memory {HOSTILE}", "auroc": None}
    return pa.Table.from_pylist(rows)


def _cell(data: str, test: str, encoder: str, detector: str, seed: int, area: float) -> dict:
    return {
        "data": data, "test_data": test, "encoder": encoder, "detector": detector, "seed": seed,
        "variant": "dpo_beta=0.1" if detector == "dpo" else "", "status": "done", "reason": "",
        "auroc": area, "aupr": area - 0.05, "aupr_id_positive": area - 0.1, "fpr95": 1 - area,
        "fpr95_id_positive": 1.1 - area, "id_mean_energy": 0.0, "ood_mean_energy": 1.0,
        "energy_separation": 1.0, "train_time_seconds": 1.5, "evaluation_time_seconds": 0.2,
        "best_descriptor": "rings", "best_descriptor_auroc": 0.86 if data == "set_0" else 0.6,
        "tanimoto_auroc": 0.55, "any_seed": False,
        "dropped_test_molecules": 1234 if data != test else 0,
    }  # fmt: skip


def write_suite(folder: Path, cells: pa.Table | None = None) -> dict:
    """The cells, and their summary by the suite's functions; intervals are made up."""
    cells = suite_cells() if cells is None else cells
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(cells, folder / "cells.parquet")
    groups = groups_of([dict.fromkeys(COSTS) | row for row in cells.to_pylist()])
    summary = {"groups": groups, "warnings": warnings_of(groups), "statistics": _statistics(groups)}
    write_json(folder / "summary.json", summary)
    return summary


def _statistics(groups: list[dict]) -> dict:
    """As `suite.results.compared` makes them, the first encoder/detector as reference."""
    areas: dict[str, dict[str, float | None]] = {}
    for group in groups:
        if group["data"] == group["test_data"]:
            mine = areas.setdefault(method_of(group, with_encoder=True), {})
            mine[group["data"]] = group["metrics"]["auroc"]["mean"]
    reference, *others = areas
    blocks = list(areas[reference])
    whole = [name for name in areas if None not in areas[name].values()]
    versus = {}
    for name in others:
        by = {block: areas[name][block] - areas[reference][block] for block in blocks
              if None not in (areas[name][block], areas[reference][block])}  # fmt: skip
        differences = np.array(list(by.values()))
        versus[name] = {
            "difference": float(differences.mean()), "blocks": len(by),
            "better": int(sum(differences > 0.02)), "worse": int(sum(differences < -0.02)),
            "wilcoxon_p": signed_rank(differences),
            "by_block": {block: {"difference": each, "ci95": [each - 0.02, each + 0.02],
                                 "molecules": 60} for block, each in by.items()},
        }  # fmt: skip
    for each, p in zip(versus.values(), holm([v["wilcoxon_p"] for v in versus.values()])):
        each["holm_p"] = p
    scores = np.array([[areas[name][block] for name in whole] for block in blocks])
    return {
        "reference": reference, "block": "a data set", "blocks": blocks,
        "ranks": ranks(scores, whole) if whole else None,
        "left_out": [name for name in areas if name not in whole], "versus_reference": versus,
        "notes": ["something to know"],
    }  # fmt: skip


def write_comparison(folder: Path, seeds: tuple[int, ...] = (1, 2)) -> None:
    """Runs of both arms, and their summary by the comparison's own functions."""
    from pipeline.comparison.run_folders import ARMS, read_run
    from pipeline.comparison.statistics import summarize

    for arm in ARMS:
        for seed in seeds:
            run = folder / f"{arm}/seed_{seed}"
            write_training(run)
            write_evaluation(run, 1.0 if arm == "frozen" else 2.0, seed)
    runs = [read_run(str(folder), arm, seed) for arm in ARMS for seed in seeds]
    audit = runs[0].results["audit"]
    summary = {
        "encoder": "minimol", "weights": "w", "dataset": "d.json",
        **summarize(runs, {("finetuned", 9): "it broke"}, bootstrap_samples=20, seed=1),
        "rivals": {name: audit[name] for name in ("descriptor", "tanimoto")},
    }  # fmt: skip
    write_json(folder / "comparison_summary.json", summary)
    write_rejected(folder / "rejected.parquet", [])


def write_everything(folder: Path) -> Path:
    """All kinds side by side."""
    write_library(folder / "screen", id=[HOSTILE, *(f"mol{i}" for i in range(1, 40))])
    write_training(folder / "screen/training")
    write_comparison(folder / "comparison")
    write_suite(folder / "suite")
    write_evaluation(folder / "tested")
    write_training(folder / "fitted", "knn", epochs=0)
    return folder
