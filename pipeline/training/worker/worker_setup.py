"""What a training worker starts from: the model, its optimiser's groups, the molecules.

Without finetuning the model is the head and the molecules are features; with it, the model
begins at the cut and the molecules are the trunk's activations, stored or computed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import psutil
import pyarrow as pa
import ray.train
import torch
from torch import nn

from pipeline.detectors.feature_space import Standard
from pipeline.detectors.heads.energy_head import EnergyHead
from pipeline.encoders.unimol.batching import training_budget_for
from pipeline.encoders.unimol.encoder import UniMolEncoder
from pipeline.encoders.unimol.finetuning.top import Top
from pipeline.encoders.unimol.finetuning.trunk import ComputedRows, TokenRows
from pipeline.encoders.unimol.model import UniMolConfig
from pipeline.encoders.unimol.published_format import load_model
from pipeline.encoders.unimol.weights import resolve_weights
from pipeline.encoding.in_store.trunk_table import bytes_of, trunk_rows
from pipeline.runtime import telemetry
from pipeline.runtime.errors import InputError
from pipeline.store.keyed_table import Index, KeyedTable, feature_matrix
from pipeline.training.finetuning.energy_model import EnergyModel
from pipeline.training.finetuning.plan import FinetunePlan, open_for_training
from pipeline.training.settings import TrainSettings
from pipeline.training.worker.batches import Batches, ResidentBatches, Rows, StreamedBatches

# Share of the device's free memory that resident rows may take, over all workers; reading them
# from the store takes twice as much host memory again for a while.
RESIDENT_SHARE = {"cuda": 0.5, "cpu": 0.2}


@dataclass(frozen=True)
class FinetuneJob:
    """What finetuning adds to a `TrainingJob`.

    Attributes
    ----------
    trunk : the stored activations; None if they are computed from the conformers.
    conformers : the store's table of them.
    """

    plan: FinetunePlan
    trunk: KeyedTable | None
    conformers: KeyedTable


@dataclass(frozen=True)
class TrainingJob:
    """What a worker needs: settings, the features' table, the keys of each role.

    Attributes
    ----------
    standard : what the head standardises features by; None takes them as they are.
    domains : by training role, the number of each molecule's domain, with --group_weights dro.
    """

    settings: TrainSettings
    features: KeyedTable
    keys: dict[str, list[str]]
    threads: int
    finetune: FinetuneJob | None = None
    standard: Standard | None = None
    domains: dict[str, np.ndarray] | None = None

    def feature_width(self, index: Index) -> int:
        """Columns of the features' table, whose index is given."""
        return self.features.read_features(self.keys["id_train"][:1], index).shape[1]

    @property
    def streamed(self) -> KeyedTable | None:
        """The table that training rows come from, if they come from one."""
        return self.features if self.finetune is None else self.finetune.trunk


class WorkerSetup(NamedTuple):
    """See the module; `validation` holds ID and OOD rows.

    `domains` are the numbers of ID and of OOD domains, if the loss goes by them.
    """

    model: nn.Module
    groups: list[dict[str, Any]]
    batches: Batches
    validation: list[Rows]
    feature_width: int
    domains: tuple[int, ...] = ()


def set_up(job: TrainingJob, device: torch.device, agree: Callable[[float], float]) -> WorkerSetup:
    """Build what this worker trains, and on what.

    Parameters
    ----------
    agree : gives worker 0's value, so that all workers take the same decision.
    """
    torch.manual_seed(job.settings.seed)
    setup = _head_alone if job.finetune is None else _with_encoder
    counts = [int(numbers.max()) + 1 for numbers in (job.domains or {}).values()]
    return setup(job, device, agree)._replace(domains=tuple(counts))


def _head_alone(
    job: TrainingJob, device: torch.device, agree: Callable[[float], float]
) -> WorkerSetup:
    settings, index = job.settings, job.features.index()
    width = job.feature_width(index)
    model = _head(width, settings, job.standard).to(device)

    def read(role: str) -> torch.Tensor:
        return torch.from_numpy(job.features.read_features(job.keys[role], index)).to(device)

    def to_rows(table: pa.Table) -> torch.Tensor:
        return torch.from_numpy(feature_matrix(table)).to(device)

    fits = agree(float(fits_in_memory(job, width, device))) == 1.0
    batches = _batches(job, device, fits, read, to_rows)
    groups = [{"params": list(model.parameters()), "lr": settings.lr}]
    return WorkerSetup(model, groups, batches, [read("id_val"), read("ood_val")], width)


def fits_in_memory(job: TrainingJob, width: int, device: torch.device) -> bool:
    """Whether the training molecules' features may stay in a device's memory."""
    count = len(job.keys["id_train"]) + len(job.keys["ood_train"])
    return 4 * width * count <= _resident_limit(job.settings, device)


def _with_encoder(
    job: TrainingJob, device: torch.device, agree: Callable[[float], float]
) -> WorkerSetup:
    settings, plan = job.settings, job.finetune.plan
    model, groups = build_energy_model(settings, plan, device, job.standard)
    base = model.top.model

    trunk = job.finetune.trunk
    if trunk is not None:
        index = trunk.index()
        precision = settings.trunk_precision

        def read(role: str) -> Rows:
            return trunk_rows(trunk.read(job.keys[role], index), precision)

        def to_rows(table: pa.Table) -> Rows:
            return trunk_rows(table, precision)

        every = sum(job.keys.values(), [])
        need = _trunk_bytes(trunk, every, index, base.config, precision)
        fits = agree(float(need <= _resident_limit(settings, torch.device("cpu")))) == 1.0
    else:
        encoder = UniMolEncoder(
            settings.weights, str(device), settings.precision, token_order=settings.token_order
        )
        conformers = job.finetune.conformers
        index, fits, to_rows = conformers.index(), True, None

        def read(role: str) -> Rows:
            table = conformers.read(job.keys[role], index).select(["atoms", "coords"])
            molecules = [encoder.prepare(row) for row in table.to_pylist()]
            if plan.from_tokens:
                return TokenRows(molecules, base.pad)
            return ComputedRows(molecules, base.pad, encoder.forward, plan.cut)

    batches = _batches(job, device, fits, read, to_rows, index_device=torch.device("cpu"))
    validation = [
        read(role) if fits else _ReadWhenAsked(trunk, job.keys[role], index, precision)
        for role in ("id_val", "ood_val")
    ]
    return WorkerSetup(model, groups, batches, validation, model.top.width)


def build_energy_model(
    settings: TrainSettings,
    plan: FinetunePlan,
    device: torch.device,
    standard: Standard | None = None,
) -> tuple[EnergyModel, list[dict[str, Any]]]:
    """The encoder's open layers and the head on a device, and their optimiser's groups."""
    base, _ = load_model(resolve_weights(settings.weights), settings.token_order)
    trained = list(open_for_training(base, plan).values())
    top = Top(base, plan.cut, plan.frozen_layers, settings.encoder_dropout, plan.from_tokens)
    head = _head(top.width, settings, standard)
    open_layers = base.config.layers - plan.cut
    # fp16 would need its gradients scaled.
    dtype = torch.bfloat16 if settings.precision == "bf16" else torch.float32
    budget = training_budget_for(device, settings.eval_batch_size, base.config, open_layers)
    model = EnergyModel(top, head, budget, dtype, settings.gradient_checkpointing).to(device)
    return model, [
        {"params": list(head.parameters()), "lr": settings.lr},
        {"params": trained, "lr": settings.encoder_lr},
    ]


def _head(width: int, settings: TrainSettings, standard: Standard | None) -> EnergyHead:
    head = EnergyHead(width, settings.hidden_dim, settings.dropout)
    if standard is not None:
        head.standardise(*standard)
    return head


class _ReadWhenAsked:
    """Stored activations of which a slice at a time is in memory, in the order of the shards."""

    def __init__(self, trunk: KeyedTable, keys: list[str], index: Index, precision: str):
        self.trunk, self.precision = trunk, precision
        self.places = trunk.places(keys, index)

    def __len__(self) -> int:
        return self.places.num_rows

    def __getitem__(self, rows: slice) -> Rows:
        return trunk_rows(self.trunk.read_places(self.places[rows]), self.precision)


def _batches(
    job: TrainingJob,
    device: torch.device,
    resident: bool,
    read: Callable[[str], Rows],
    to_rows: Callable[[pa.Table], Rows] | None,
    index_device: torch.device | None = None,
) -> Batches:
    context, settings = ray.train.get_context(), job.settings
    place = context.get_world_rank(), context.get_world_size()
    roles = "id_train", "ood_train"
    common = settings.batch_size, settings.seed, *place
    domains = job.domains and tuple(
        torch.from_numpy(job.domains[role]).to(device) for role in roles
    )
    if resident:
        rows = map(read, roles)
        return ResidentBatches(*rows, *common, index_device or device, domains)
    if domains:
        raise InputError(
            "--group_weights dro needs all training rows in memory, and they exceed --resident_gb; "
            "raise that, or leave it out"
        )
    shards = [ray.train.get_dataset_shard(role) for role in roles]
    sizes = [len(job.keys[role]) for role in roles]
    return StreamedBatches(*shards, *sizes, *common, to_rows)


def _trunk_bytes(
    trunk: KeyedTable, keys: list[str], index: Index, config: UniMolConfig, precision: str
) -> int:
    places = trunk.places(keys, index)
    tokens = []
    for shard in pa.compute.unique(places["shard"]).to_pylist():
        rows = places.filter(pa.compute.equal(places["shard"], shard))["row"]
        tokens += trunk.read_shard(shard, ["n"])["n"].take(rows).to_pylist()
    return bytes_of(np.array(tokens), config, precision)


def _resident_limit(settings: TrainSettings, device: torch.device) -> float:
    if settings.resident_gb is not None:
        return settings.resident_gb * telemetry.GIB
    share = RESIDENT_SHARE["cpu"] * psutil.virtual_memory().available / settings.num_workers
    if device.type == "cuda":
        share = min(share, RESIDENT_SHARE["cuda"] * torch.cuda.mem_get_info(device)[0])
    return share
