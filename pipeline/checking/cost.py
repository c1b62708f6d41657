"""What encoding a data file's molecules would cost on this cluster."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pyarrow as pa

from pipeline.checking.settings import CheckSettings
from pipeline.checking.structures import with_rejected
from pipeline.checking.tally import Tally
from pipeline.conformers.structure import structure_counts
from pipeline.encoders.settings import EncoderSettings
from pipeline.encoding.cost.costs import Costs, costs_of
from pipeline.encoding.in_store.structures import structures
from pipeline.encoding.lookup import without
from pipeline.encoding.plan import (
    EncodingPlan,
    check_kind,
    check_structures,
    encoder_pool,
    plan_encoding,
)
from pipeline.encoding.stored_features import encode
from pipeline.encoding.views import heaviest, settings_of_view
from pipeline.runtime.nodes.cluster import cluster_cores
from pipeline.training.checkpoints.checkpoint import load_checkpoint
from pipeline.training.checkpoints.checkpoint_encoder import check_same_encoder, settings_of
from pipeline.training.settings import CheckpointSettings


@dataclass(frozen=True)
class Cost:
    """A run over the molecules that the store lacks.

    Attributes
    ----------
    encoder : its name and weights; of a checkpoint with several views the one that costs most.
    stored, to_make : distinct molecules that the store has, and lacks.
    core_hours, gpu_hours : that those would take; on a CPU, encoding counts as core hours.
    hours : of wall-clock time on the cluster as it is, or may grow.
    gigabytes : that the store would take for them, on disk.
    measured_on : molecules that the costs were measured on.
    now : whether they were measured by this call, start-up of workers included.
    structures : of the sample that this call encoded, how many have each structure, and how many
        were rejected.
    """

    encoder: dict[str, str]
    stored: int
    to_make: int
    core_hours: float
    gpu_hours: float
    hours: float
    gigabytes: float
    measured_on: int
    now: bool
    structures: dict[str, int]


def plan_of(settings: CheckSettings) -> EncodingPlan:
    """The encoder that the settings name, as a run would have it.

    Raises
    ------
    InputError
        If the encoder or its weights cannot be had, the checkpoint not be read, the encoder takes
        molecules of another kind, or no structures and --structures file is asked of it.
    """
    encoder = _encoder_settings(settings)
    check_kind(settings, [encoder.foundation_model])
    plan = plan_encoding(encoder)
    check_structures(settings.structures, plan.tables)
    return plan


def cost_of(tally: Tally, settings: CheckSettings, plan: EncodingPlan) -> Cost:
    """Look up a file's molecules in the store, and reckon what the others would cost.

    A sample of them is encoded; it tells the costs where no run of this encoder has left any in
    the store.
    """
    index, given = plan.tables.features.index(), settings.structures == "file"
    have = index.find(tally.distinct()) >= 0
    lacks = pa.array(index.find(tally.sample["key"].to_pylist()) < 0)
    sample = tally.sample.filter(lacks).slice(0, settings.sample)
    costs, now = costs_of(plan, given), False
    counts: dict[str, int] = {}
    if sample.num_rows:
        result = encode(sample, plan)
        made = without(sample, result.rejected)
        if plan.tables.conformers is not None:
            found = structure_counts(structures(made["key"], plan.tables).to_pylist())
            counts = with_rejected(found, sample.num_rows - made.num_rows)
        if costs is None:
            costs, now = result.costs, True
    to_make = int((~have).sum()) * tally.molecules / max(1, tally.counted)
    each = costs or Costs(0, 0.0, 0.0, 0.0)
    pool = encoder_pool(plan.settings, plan.device)
    gpu = pool.device == "cuda"
    core_seconds = (
        each.conformer_seconds + each.graph_seconds + (0 if gpu else each.encoder_seconds)
    )
    core_hours = to_make * core_seconds / 3600
    gpu_hours = to_make * each.encoder_seconds / 3600 if gpu else 0.0
    return Cost(
        encoder={name: plan.tables.identity[name] for name in ("encoder", "weights")},
        stored=int(have.sum()),
        to_make=int(to_make),
        core_hours=core_hours,
        gpu_hours=gpu_hours,
        hours=max(core_hours / cluster_cores(), gpu_hours / pool.actors),
        gigabytes=to_make * each.bytes / 1e9,
        measured_on=each.molecules,
        now=now,
        structures=counts,
    )


def _encoder_settings(settings: CheckSettings) -> EncoderSettings:
    if settings.checkpoint is None:
        return settings
    checkpoint = load_checkpoint(settings.checkpoint)
    use = CheckpointSettings(
        checkpoint=settings.checkpoint, weights=settings.weights, device=settings.device,
        cache_root=settings.cache_root,
    )  # fmt: skip
    found = settings_of(checkpoint, use, data_file=settings.data_file, fragments=settings.fragments)
    check_same_encoder(checkpoint, found)
    found = settings_of_view(found, heaviest(found.view_names))
    return replace(
        found, encoding_batch_size=settings.encoding_batch_size,
        encoder_workers=settings.encoder_workers,
    )  # fmt: skip
