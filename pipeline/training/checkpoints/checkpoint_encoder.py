"""The encoder that a checkpoint's head was trained on, found again for other molecules."""

from __future__ import annotations

import logging
from dataclasses import fields, replace
from typing import Any

import pyarrow as pa

from pipeline.detectors.feature_space import Described
from pipeline.encoding.in_store.tables import Tables
from pipeline.encoding.views import Plans, settings_of_view
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import absolute
from pipeline.training.checkpoints.checkpoint import Checkpoint
from pipeline.training.settings import CheckpointSettings, TrainSettings

log = logging.getLogger(__name__)


def settings_of(
    checkpoint: Checkpoint, settings: CheckpointSettings, **changes: Any
) -> TrainSettings:
    """The training run's settings, with this run's store, device, outputs and weights.

    Parameters
    ----------
    changes : other settings to replace; None keeps the training run's.
    """
    known = {f.name for f in fields(TrainSettings)}
    trained = TrainSettings(**{k: v for k, v in checkpoint.settings.items() if k in known})
    changes = {k: v for k, v in (changes | {"weights": settings.weights}).items() if v is not None}
    if changes.get("fragments", trained.fragments) != trained.fragments:
        log.warning(
            "--fragments %s, but the head was trained with --fragments %s: a salt is another "
            "molecule to it", changes["fragments"], trained.fragments,
        )  # fmt: skip
    return replace(
        trained,
        cache_root=settings.cache_root,
        force_recompute_cache=settings.force_recompute_cache,
        retry_rejected=settings.retry_rejected,
        output_dir=settings.output_dir,
        device=settings.device,
        finetuned=absolute(settings.checkpoint) if checkpoint.finetuned else trained.finetuned,
        **changes,
    )


def described_from_store(checkpoint: Checkpoint, molecules: pa.Table, plans: Plans) -> Described:
    """Molecules (`key`, `smiles`) whose features the store has, as the checkpoint takes them."""
    keys = molecules["key"].to_pylist()
    blocks = {view: plan.tables.features.read_features(keys) for view, plan in plans.items()}
    return Described(
        blocks, molecules["smiles"].to_pylist(), checkpoint.references.rows(keys),
        kind=checkpoint.kind,
    )  # fmt: skip


def check_same_encoder(checkpoint: Checkpoint, data: TrainSettings) -> None:
    """InputError if the settings lead to another encoder than the checkpoint's, in any view."""
    then = checkpoint.encoder.get("views", {checkpoint.space.views[0]: checkpoint.encoder})
    for view, identity in then.items():
        _check_same(Tables.of(settings_of_view(data, view)).identity, identity)


def _check_same(now: dict[str, Any], then: dict[str, Any]) -> None:
    now, then = dict(now), dict(then)
    structure_now, structure_then = now.pop("conformers", None), then.pop("conformers", None)
    now.pop("weights"), then.pop("weights")  # a file's name; its SHA-256 is what counts
    changed = sorted(k for k in now.keys() | then.keys() if now.get(k) != then.get(k))
    if changed:
        told = "; ".join(f"{k} was {then.get(k)!r}, is {now.get(k)!r}" for k in changed)
        mend = (
            "Pass --weights with the training run's file"
            if "weights_sha256" in changed
            else "Train again with jobs.train"
        )
        raise InputError(f"the detector was trained on another encoder: {told}. {mend}")
    if structure_now != structure_then:
        log.warning(
            "conformers are made otherwise than for training: %s, was %s",
            structure_now, structure_then,
        )  # fmt: skip
