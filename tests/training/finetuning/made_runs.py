"""Small finetuning runs, and what they wrote."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import safetensors
import torch

from pipeline.encoders.unimol.model import UniMolConfig
from pipeline.training.run import run_training
from pipeline.training.settings import TrainSettings
from tests.molecules.data_files import read_molecules

LAYERS = UniMolConfig(layers=4, width=64, ffn_width=128, heads=8, gaussians=16)
NAMES = ("train", "iid_val", "iid_test", "ood_val", "ood_test")


def settings(home: Path, name: str, **changes: Any) -> TrainSettings:
    usual = {
        "freeze_layers": "0-1", "epochs": 3, "batch_size": 16, "encoder_lr": 1e-3, "lr": 1e-3,
        "dropout": 0.0, "encoder_dropout": 0.0, "precision": "fp32", "trunk_precision": "fp32",
    }  # fmt: skip
    return TrainSettings(
        data_file=str(home / "split.json"), weights=str(home / "base.pt"), sampling="all",
        ood_val_by="molecule", device="cpu", finetune_encoder=True, encoder_workers=1,
        cache_root=str(home / "store"), output_dir=str(home / name), **{**usual, **changes},
    )  # fmt: skip


def smiles_of(settings: TrainSettings) -> dict[str, str]:
    molecules = read_molecules(settings).molecules
    return dict(zip(molecules["id"].to_pylist(), molecules["smiles"].to_pylist()))


class Run:
    """A finished training run."""

    def __init__(self, home: Path, name: str, **changes: Any):
        self.settings = settings(home, name, **changes)
        self.stats = run_training(self.settings)
        self.checkpoint = f"{self.settings.output_dir}/checkpoint"

    def column(self, name: str) -> list[float]:
        with open(f"{self.settings.output_dir}/training_dynamics.csv") as file:
            return [float(row[name]) for row in csv.DictReader(file)]

    def tensors(self) -> dict[str, torch.Tensor]:
        with safetensors.safe_open(f"{self.checkpoint}/encoder.safetensors", "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}
