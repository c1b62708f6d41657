"""The checkpoint folder: a trained detector, what it was trained on, and how well it does.

`config.json`, the detector's files (`model.safetensors` for an energy head), the feature space,
`metrics.json` and `training_molecules.parquet`; no pickle. If the encoder was finetuned,
`encoder.safetensors` holds its trained tensors, and no others. A folder `cross` in it is a second
checkpoint, trained with other OOD molecules: it scores those that this one was trained with.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import safetensors.torch

from pipeline.detectors.base import Detector
from pipeline.detectors.feature_space import Described, FeatureSpace
from pipeline.detectors.heads.energy_head import EnergyHead, energies_of
from pipeline.detectors.registry import detector_class
from pipeline.encoders.unimol.finetuning.finetuned import ENCODER, FinetunedEncoder
from pipeline.encoding.kinds import kind_of_views
from pipeline.molecules.kinds import Kind
from pipeline.runtime.files import json_bytes, parquet_bytes, write_atomically
from pipeline.store.checkpoint_folder import (
    CONFIG,
    FORMAT,
    read_config,
    read_member,
    told_as_one_line,
)
from pipeline.training.checkpoints.references import References

MODEL, METRICS = "model.safetensors", "metrics.json"
MOLECULES = "training_molecules.parquet"
CROSS = "cross"


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint.

    Attributes
    ----------
    name : of the detector; an energy head's is that of its loss.
    space : what the detector sees of molecules.
    head : an energy head, in evaluation mode, on the CPU; it takes the features of `space.plain`
        as the encoder gives them, else those of `space.inputs`. None for another detector.
    detector : None for an energy head.
    encoder : identity of the encoders that made the features, and `features_key`, its hash.
    settings : all settings of the training run.
    molecules : `id`, `key`, `smiles`, `role` of every molecule that training and validation saw,
        or that calibrates p-values; since version 0.2 `label` too.
    finetuned : whether the encoder was finetuned; `read_finetuned` reads what came of it.
    sha256 : of the detector's files and the molecules, those of `cross` too.
    cross : the checkpoint in the folder `cross`, if there is one.
    """

    name: str
    space: FeatureSpace
    head: EnergyHead | None
    detector: Detector | None
    encoder: dict[str, Any]
    features_key: str
    settings: dict[str, Any]
    molecules: pa.Table
    finetuned: bool
    sha256: str
    cross: Checkpoint | None = None

    def scores(
        self, molecules: Described, device: str = "cpu", batch_size: int = 2048
    ) -> np.ndarray:
        """OOD scores (n,) float64 of molecules, higher means more OOD; a head's are energies."""
        if self.head is None:
            return self.detector.scores(self.space.inputs(molecules))
        if self.space.plain is None:
            features = self.space.inputs(molecules).features
        else:
            features = molecules.blocks[self.space.views[0]]
        made = energies_of(self.head, features, batch_size=batch_size, device=device)
        return made.astype(np.float64)

    def of_role(self, *roles: str) -> pa.Table:
        """The molecules of some roles."""
        return self.molecules.filter(pc.is_in(self.molecules["role"], pa.array(roles)))

    @cached_property
    def kind(self) -> Kind:
        """The kind of molecules that it judges."""
        return kind_of_views(self.space.views)

    @cached_property
    def references(self) -> References:
        """The ID training molecules that the detector measures by."""
        return References(self.molecules, self.settings.get("data_seed", 42))


def save_checkpoint(
    folder: str,
    files: Mapping[str, bytes],
    config: dict[str, Any],
    metrics: dict[str, Any],
    molecules: pa.Table,
    finetuned: FinetunedEncoder | None = None,
) -> None:
    """Write a checkpoint folder, at a path or URI; config.json comes last and completes it.

    Parameters
    ----------
    files : of the detector, and of its feature space.
    config : `detector`, `views`, `encoder`, `features_key`, `settings`, and `head` for a head.
    """
    if finetuned is not None:
        config = {**config, "finetuned": finetuned.config}
        write_atomically(f"{folder}/{ENCODER}", safetensors.torch.save(finetuned.tensors))
    for name, content in files.items():
        write_atomically(f"{folder}/{name}", content)
    write_atomically(f"{folder}/{METRICS}", json_bytes(metrics))
    write_atomically(f"{folder}/{MOLECULES}", parquet_bytes(molecules))
    config = {"format": FORMAT, "files": sorted(files), **config}
    write_atomically(f"{folder}/{CONFIG}", json_bytes(config))


def head_of(
    config: Mapping[str, Any], files: Mapping[str, bytes], space: FeatureSpace
) -> EnergyHead:
    """The energy head that was trained in a feature space, in evaluation mode, on the CPU.

    Parameters
    ----------
    config, files : with `head`, and its tensors, as those of `trained.Trained`.
    """
    head = EnergyHead(**config["head"])
    head.load_state_dict(safetensors.torch.load(files[MODEL]))
    if space.plain is not None:
        head.standardise(*space.plain)
    return head.eval()


def load_checkpoint(folder: str) -> Checkpoint:
    """Read a checkpoint folder.

    Raises
    ------
    InputError
        If the folder or a file is missing, or holds something else.
    """
    folder = folder.rstrip("/")
    with told_as_one_line("checkpoint", folder):
        config = read_config(folder)
        # Versions before 0.2 had energy heads alone, on one encoder's features as they are.
        files = {name: read_member(folder, name) for name in config.get("files", [MODEL])}
        if "views" in config:
            space = FeatureSpace.load(config["views"], files)
        else:
            space = FeatureSpace.unchanged(config["encoder"]["encoder"])
        head = detector = None
        if "head" in config:
            head = head_of(config, files, space)
        else:
            detector = detector_class(config["detector"]).load(files)
        content = read_member(folder, MOLECULES)
        molecules = pq.read_table(BytesIO(content))
        cross = load_checkpoint(f"{folder}/{CROSS}") if config.get("cross") else None
        digest = hashlib.sha256(b"".join([*(files[name] for name in sorted(files)), content]))
        if cross is not None:
            digest.update(cross.sha256.encode())
        return Checkpoint(
            config.get("detector", config["settings"].get("loss", "dpo")), space, head, detector,
            config["encoder"], config["features_key"],
            config["settings"], molecules, "finetuned" in config, digest.hexdigest(),
            cross,
        )  # fmt: skip
