"""Training on two shifted Gaussians, and the same recipe as a plain loop."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import safetensors.torch
import torch
import torch.nn.functional as F
from sklearn.metrics import roc_auc_score
from torch import nn

from pipeline.detectors.feature_space import FeatureSpace
from pipeline.encoding.stored_features import EncodeResult
from pipeline.encoding.views import EncodedViews
from pipeline.molecules.rejected import REJECTED
from pipeline.store.keyed_table import KeyedTable, features_table
from pipeline.training.outputs import write_checkpoint, write_training
from pipeline.training.settings import TrainSettings
from pipeline.training.trainer import train_head
from pipeline.training.worker.batches import ResidentBatches

ROLES = ("id_train", "ood_train", "id_val", "ood_val")
# Batches of 64 leave the last one of an epoch a single molecule: one of two workers has none.
SIZES = (257, 150, 90, 80)
PATIENCE = 3
UNKNOWN = {"label": pa.float64(), "domain": pa.string()}
CPU = torch.device("cpu")


def synthetic(
    folder: Path, sizes: tuple[int, ...] = SIZES, *, shift: float = 0.2, shards: int = 3
) -> tuple[pa.Table, EncodeResult]:
    """Two shifted Gaussians in a features table of the store, as encoding would leave them."""
    rng = np.random.default_rng(5)
    roles = np.repeat(ROLES, sizes)
    features = rng.normal(size=(len(roles), 16)) + shift * np.char.startswith(roles, "ood")[:, None]
    keys = [f"{n:032x}" for n in rng.permutation(len(roles))]
    table = KeyedTable(str(folder), "features", {"test": "training"})
    table.create()
    for shard in range(shards):
        rows = features[shard::shards].astype(np.float32)
        table.write(features_table(keys[shard::shards], rows), f"run{shard}")
    ids = [f"m{i}" for i in range(len(keys))]
    smiles = ["C"] * len(keys)  # of no interest to training
    columns = {"id": ids, "key": keys, "smiles": smiles, "role": roles}
    columns |= {name: pa.nulls(len(ids), kind) for name, kind in UNKNOWN.items()}
    molecules = pa.table(columns)
    return molecules, encoded_in(table)


def encoded_in(table: KeyedTable) -> EncodeResult:
    identity = {"encoder": "synthetic", "weights": "none"}
    return EncodeResult(table, pa.table({"key": pa.array([], pa.string())}), 0, 0, 2.5, 9.0,
                        0.0, 0.25, None, identity)  # fmt: skip


def train(
    molecules: pa.Table, encoded: EncodeResult, s: TrainSettings, device: str
) -> dict[str, Any]:
    """Train a head on the features as they are, and write what comes of it."""
    space = FeatureSpace.unchanged("minimol")
    views = EncodedViews(molecules, REJECTED.empty_table(), encoded, {"minimol": encoded})
    s = s.sized()
    trained = train_head(molecules, views, space, s, device)
    write_checkpoint(f"{s.output_dir}/checkpoint", trained, molecules, views, space, s)
    return write_training(trained, molecules, views, s, device)


def features_of(molecules: pa.Table, encoded: EncodeResult, role: str) -> torch.Tensor:
    keys = molecules.filter(pa.compute.equal(molecules["role"], role))["key"].to_pylist()
    return torch.from_numpy(encoded.features.read_features(keys))


def settings(folder: Path, **changes: Any) -> TrainSettings:
    recipe = {"lr": 3e-4, "batch_size": 64, "epochs": 60, "early_stopping_patience": PATIENCE}
    return TrainSettings(
        data_file="synthetic", output_dir=str(folder), device="cpu",
        **{**recipe, "dropout": 0.0, **changes},
    )  # fmt: skip


@dataclass(frozen=True)
class Run:
    """A finished training run, by what it returned and wrote."""

    folder: Path
    stats: dict[str, Any]

    @property
    def dynamics(self) -> list[dict[str, str]]:
        with open(self.folder / "training_dynamics.csv", newline="") as file:
            return list(csv.DictReader(file))

    def column(self, name: str) -> list[float]:
        return [float(epoch[name]) for epoch in self.dynamics]

    @property
    def weights(self) -> list[np.ndarray]:
        state = safetensors.torch.load_file(self.folder / "checkpoint" / "model.safetensors")
        return [state[name].numpy() for name in sorted(state)]


def plain_loop(
    molecules: pa.Table, encoded: EncodeResult, s: TrainSettings
) -> tuple[list[float], list[float], list[np.ndarray]]:
    """The recipe without Ray: losses and validation AUROCs by epoch, the best epoch's weights."""
    id_train, ood_train, id_val, ood_val = (features_of(molecules, encoded, r) for r in ROLES)
    torch.manual_seed(s.seed)
    head = nn.Sequential(
        nn.Linear(16, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 1)
    )
    optimizer = torch.optim.AdamW(head.parameters(), lr=s.lr, weight_decay=1e-3)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 10, 0.9)
    order = ResidentBatches(id_train, ood_train, s.batch_size, s.seed, 0, 1, CPU)
    losses, aurocs, best, waited = [], [], [], 0
    while len(losses) < s.epochs and waited < s.early_stopping_patience:
        parts = []
        for batch in order.epoch(len(losses)):
            e_id, e_ood = head(batch.id_rows)[:, 0], head(batch.ood_rows)[:, 0]
            loss = F.softplus(-0.1 * (e_ood[:, None] - e_id[None, :])).mean()
            loss = loss + 0.01 * ((e_id**2).mean() + (e_ood**2).mean())
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(head.parameters(), 1.0)
            optimizer.step()
            parts.append(loss.item())
        scheduler.step()
        with torch.no_grad():
            energies = torch.cat([head(id_val), head(ood_val)])[:, 0]
        auroc = roc_auc_score([0] * len(id_val) + [1] * len(ood_val), energies)
        waited += 1
        if auroc > max(aurocs, default=-1):
            best, waited = [p.detach().numpy().copy() for p in head.parameters()], 0
        losses.append(np.mean(parts))
        aurocs.append(auroc)
    # Parameters come as weight, bias; a saved head's sort as bias, weight of each layer.
    return losses, aurocs, [best[i] for i in (1, 0, 3, 2, 5, 4)]


def without_times(history: list[dict[str, float]]) -> list[dict[str, float]]:
    """A training's epochs, but for the seconds that they took."""
    return [{name: v for name, v in epoch.items() if "time" not in name} for epoch in history]
