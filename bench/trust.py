"""Which scores find the errors of predictions, on 12 targets: writes trust.md.

`python -m bench.trust --table activity_12_targets.csv.gz --out FOLDER` with the columns `smiles`,
`target` and `y`. All splits are made and written before any model is; finished pairs of a target
and a seed are kept in the folder, so that the command goes on where it stopped.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.stats import rankdata

from bench.trust_report import report
from bench.trust_table import Target, features_of, targets_of
from pipeline.detectors.heads.energy_head import EnergyHead, energies_of
from pipeline.detectors.heads.losses import training_loss
from pipeline.detectors.settings import DetectorSettings
from pipeline.molecules.features.descriptors import descriptor_values
from pipeline.molecules.features.fingerprints import packed_ecfp4
from pipeline.molecules.splitting.clusters import grouped
from pipeline.trust.described import Described
from pipeline.trust.errors.conformal import quantile
from pipeline.trust.errors.error_model import ErrorModel
from pipeline.trust.errors.inputs import SPREADS, inputs_of
from pipeline.trust.errors.out_of_fold import FoldModels, Seen, out_of_fold
from pipeline.trust.errors.prepared import Prepared
from pipeline.trust.metrics import finds_errors
from pipeline.trust.models.property_models import PROPERTY_MODELS, predict_all

CLUSTERS, ID_SHARE = 30, 0.6
PARTS = ("train", "validation", "id_test", "exposure", "ood_test")
ALPHA, BACKGROUND, STEPS, RATE = 0.1, 600, 150, 1e-3
SEEDS = (0, 1, 2, 3, 4, 5, 6, 8, 9)  # by splits of seed 7 the recipe was chosen
FLOOR = 0.05  # of the median deviation, below which no feature's deviation falls


def split(bits: np.ndarray, seed: int) -> np.ndarray:
    """The number of each molecule's part in PARTS, by clusters in seeded order."""
    clusters = grouped(np.unpackbits(bits, axis=1), CLUSTERS, seed)
    rng = np.random.default_rng(seed)
    parts, taken = np.empty(len(bits), int), 0
    for cluster in rng.permutation(CLUSTERS):
        rows = clusters == cluster
        halves = (ID_SHARE, ID_SHARE + (1 - ID_SHARE) / 2)
        parts[rows] = (0, 3, 4)[sum(taken >= share * len(bits) for share in halves)]
        taken += rows.sum()
    id_rows = rng.permutation(np.flatnonzero(parts == 0))
    for part, rows in enumerate(np.split(id_rows, [len(id_rows) * n // 10 for n in (7, 8)])):
        parts[rows] = part
    return parts


def energy(features: np.ndarray, is_id: np.ndarray, outliers: np.ndarray, seed: int) -> np.ndarray:
    """Energies (n,) of all features by an Energy-DPO head of ID rows against outliers."""
    torch.manual_seed(seed)
    settings = DetectorSettings()
    head = EnergyHead(features.shape[1], settings.hidden_dim, settings.dropout)
    optimizer = torch.optim.AdamW(head.parameters(), RATE, weight_decay=1e-3)
    known, unlike = torch.from_numpy(features[is_id]), torch.from_numpy(outliers)
    rng = torch.Generator().manual_seed(seed)
    for _ in range(STEPS):
        batches = [each[torch.randperm(len(each), generator=rng)[:256]] for each in (known, unlike)]
        loss = training_loss(*head(torch.cat(batches)).split([len(b) for b in batches]), settings)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return energies_of(head, features).astype(float)


class Made(NamedTuple):
    """A target that is split: features standardised on its training part, and of others."""

    target: Target
    bits: np.ndarray
    views: dict[str, np.ndarray]
    descriptors: np.ndarray
    parts: np.ndarray
    background: np.ndarray
    seed: int


def made(target: Target, features: dict[str, np.ndarray], parts: np.ndarray, seed: int) -> Made:
    """With all that models take; `features` by SMILES."""
    own = np.stack([features[smiles] for smiles in target.smiles])
    mean, deviation = own[parts == 0].mean(axis=0), own[parts == 0].std(axis=0)
    deviation = np.maximum(deviation, FLOOR * np.median(deviation))
    others = sorted(features.keys() - set(target.smiles))
    drawn = np.random.default_rng(seed).choice(len(others), BACKGROUND, replace=False)
    background = np.stack([features[others[row]] for row in drawn])
    own, background = (
        ((x - mean) / deviation).clip(-10, 10).astype(np.float32) for x in (own, background)
    )
    return Made(
        target, packed_ecfp4(target.smiles), {"minimol": own},
        descriptor_values(target.smiles), parts, background, seed,
    )  # fmt: skip


def measured(one: Made) -> dict[str, Any]:
    """Every score and interval on one split of one target, by property model."""
    started = time.process_time()
    fitted = np.flatnonzero(one.parts <= 1)
    prepared = Prepared.of(
        [one.target.smiles[row] for row in fitted], one.bits[fitted], one.target.y[fitted],
        {name: view[fitted] for name, view in one.views.items()},
        descriptors=one.descriptors[fitted], calibration=np.flatnonzero(one.parts[fitted] == 1),
        seed=one.seed, jobs=1,
    )  # fmt: skip
    spent = time.process_time() - started
    asked = np.flatnonzero(np.isin(one.parts, (1, 2, 4)))
    of_asked = Described(one.bits, one.views, one.descriptors).take(asked)
    seen = Seen(
        np.arange(len(asked)), predict_all(prepared.models, of_asked),
        prepared.known.surroundings(of_asked, 1),
    )  # fmt: skip
    features, is_id = one.views["minimol"], one.parts == 0
    energies = {
        "energy, outliers of the same target": energy(
            features, is_id, features[one.parts == 3], one.seed
        )[asked],
        "energy, other targets": energy(features, is_id, one.background, one.seed)[asked],
    }
    y, parts = one.target.y[asked], one.parts[asked]
    found = {
        name: of_property_model(name, prepared, seen, energies, y, parts, one.seed)
        for name in PROPERTY_MODELS
    }
    sizes = {part: int((one.parts == number).sum()) for number, part in enumerate(PARTS)}
    return {"sizes": sizes, "models": found, "fit_cpu_seconds": spent}


def of_property_model(
    name: str, prepared: Prepared, seen: Seen, energies: dict[str, np.ndarray], y: np.ndarray,
    parts: np.ndarray, seed: int,
) -> dict[str, Any]:  # fmt: skip
    """Scores of one model's predictions on the tests, and intervals that validation calibrates."""
    prediction, spread = seen.predicted[name]
    errors, around = np.abs(y - prediction), seen.around.values
    model = ErrorModel.of(prepared, name)
    expected, scale = model.ranker.expected_and_scale(out_of_fold([seen], name).inputs)
    by_rank = rankdata(expected) + rankdata(energies["energy, outliers of the same target"])
    scores = {
        "error model": expected,
        "error model of your own predictions": own_predictions(name, prepared, seen),
        "error model + energy": by_rank,
        "spread of the model": spread,
        "kNN on MiniMol": around["distance to the nearest by minimol"],
        "Mahalanobis on MiniMol": around["Mahalanobis distance by minimol"],
        "Tanimoto, nearest": around["Tanimoto distance to the nearest"],
        "Tanimoto, mean of 5": around["mean Tanimoto distance"],
        **energies,
        "shuffled error model": np.random.default_rng(seed).permutation(expected),
        "oracle": errors,
    }
    tests = parts != 1
    rmse = float(np.sqrt(np.mean(errors[tests] ** 2)))
    constant = np.ones_like(errors)
    scales = {
        "constant": constant,
        "spread": np.maximum(spread, 0.1 * spread.mean()),
        "error model": scale,
    }
    return {
        "rmse": rmse,
        "scores": {
            score: finds_errors(values[tests], errors[tests]) for score, values in scores.items()
        },
        "intervals": {kind: interval_of(errors, values, parts) for kind, values in scales.items()},
    }


def own_predictions(name: str, prepared: Prepared, seen: Seen) -> np.ndarray:
    """Expected errors as if the predictions were a user's, of a model that we do not have."""

    def without(each: Seen) -> Seen:
        return each._replace(predicted={k: v for k, v in each.predicted.items() if k != name})

    given = np.empty(len(prepared.labels))
    given[prepared.rows] = out_of_fold(prepared.folds.at_random, name).prediction
    given[prepared.held] = prepared.calibration.predicted[name][0]
    less = replace(
        prepared, folds=FoldModels(*([without(s) for s in kind] for kind in prepared.folds)),
        models={k: v for k, v in prepared.models.items() if k != name},
        calibration=without(prepared.calibration),
    )  # fmt: skip
    model = ErrorModel.of(less, None, given)
    inputs = inputs_of(seen.around, seen.predicted[name][0], without(seen).predicted)
    assert SPREADS[name] not in inputs
    return model.ranker.expected_and_scale(np.stack(list(inputs.values()), axis=1))[0]


def interval_of(errors: np.ndarray, scale: np.ndarray, parts: np.ndarray) -> dict[str, float]:
    """Coverage and mean width at ALPHA in ID and OOD test, calibrated on validation."""
    q = quantile((errors / scale)[parts == 1], ALPHA)
    found = {}
    for kind, part in (("id", 2), ("ood", 4)):
        rows = parts == part
        found[f"{kind}_coverage"] = float(np.mean(errors[rows] <= q * scale[rows]))
        found[f"{kind}_width"] = float(2 * np.mean(q * scale[rows]))
    return found


def frozen(targets: list[Target], seeds: Sequence[int], path: Path) -> tuple[dict, str]:
    """The parts of all targets and seeds, made once, and the first digits of their SHA-256."""
    if not path.exists():
        bits = {target.name: packed_ecfp4(target.smiles) for target in targets}
        content = {
            target.name: {str(seed): split(bits[target.name], seed).tolist() for seed in seeds}
            for target in targets
        }
        path.write_text(json.dumps(content))
    kept = json.loads(path.read_text())
    if any(str(seed) not in parts for parts in kept.values() for seed in seeds):
        raise SystemExit(f"{path} has splits of fewer seeds: give another --out, or move it away")
    return kept, hashlib.sha256(path.read_bytes()).hexdigest()[:12]


def main() -> None:
    """Split, measure what is not measured yet, and write trust.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder for splits and results")
    parser.add_argument("--store", default=".molsieve", help="store of features (--cache_root)")
    parser.add_argument("--seeds", type=int, nargs="+", choices=SEEDS, default=list(SEEDS))
    given = parser.parse_args()
    torch.set_num_threads(1)
    given.out.mkdir(parents=True, exist_ok=True)
    targets = targets_of(given.table)
    parts, digest = frozen(targets, SEEDS, given.out / "splits.json")
    features = features_of(targets, given.table, given.store)
    for seed in given.seeds:
        for target in targets:
            path = given.out / f"{target.name}_{seed}.json"
            if not path.exists():
                one = made(target, features, np.array(parts[target.name][str(seed)]), seed)
                path.with_suffix(".part").write_text(json.dumps(measured(one)))
                os.replace(path.with_suffix(".part"), path)
                print(time.strftime("%H:%M:%S"), path.name, flush=True)
    text = report(given.out, given.seeds, [target.name for target in targets], digest)
    (Path(__file__).parent / "trust.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
