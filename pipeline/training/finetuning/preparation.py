"""What a finetuning run settles on the driver before anything is computed."""

from __future__ import annotations

import logging
from dataclasses import dataclass, fields

import numpy as np
import pyarrow as pa
import torch

from pipeline.encoders.unimol.encoder import UniMolEncoder
from pipeline.encoders.unimol.model import UniMol, UniMolConfig
from pipeline.encoders.unimol.published_format import read_weights
from pipeline.encoders.unimol.tokens import DEFAULT_MAX_ATOMS
from pipeline.encoders.unimol.weights import Weights, resolve_weights
from pipeline.encoding.in_store.tables import TrunkSpec
from pipeline.encoding.in_store.trunk_table import bytes_of, space_for_trunk
from pipeline.encoding.plan import EncodingPlan
from pipeline.molecules.identity import sampled_atom_counts
from pipeline.runtime.errors import InputError
from pipeline.runtime.telemetry import GIB
from pipeline.training.finetuning.plan import FinetunePlan, open_for_training, plan_finetuning
from pipeline.training.settings import FinetuneSettings, TrainSettings

log = logging.getLogger(__name__)

SAMPLE = 2_000  # molecules that the trunk's size is estimated from
# Molecules times epochs times the encoder's parameters. MolSieve-Mini's 3 million take 5 s for
# 1,400 passes on 2 cores of an Intel Xeon, where Ray Train's processes take 20 s to start.
SHORT = 1e10


@dataclass(frozen=True)
class FinetuneRun:
    """The plan, and what it means for this encoder.

    Attributes
    ----------
    trained, frozen : parameters of the encoder.
    weights : the base weights.
    """

    plan: FinetunePlan
    config: UniMolConfig
    trained: int
    frozen: int
    weights: Weights

    def is_short(self, passes: int) -> bool:
        """Whether it is through before processes for it would have started.

        Batches of many shapes leave holes in memory, but so few of them do not.

        Parameters
        ----------
        passes : training molecules times epochs.
        """
        return passes * (self.trained + self.frozen) <= SHORT


def check_finetuning_flags(settings: TrainSettings) -> None:
    """Refuse flags that would be ignored.

    Raises
    ------
    InputError
        That names the flag that is missing.
    """
    given = {f.name for f in fields(FinetuneSettings) if getattr(settings, f.name) != f.default}
    given -= {"gradient_accumulation_steps"}
    if given and not settings.finetune_encoder:
        raise InputError(f"--{min(given)} does nothing without --finetune_encoder")
    lora = sorted(name for name in given if name.startswith("lora_"))
    if lora and settings.adapter != "lora":
        raise InputError(f"--{lora[0]} does nothing without --adapter lora")


def prepare_finetuning(settings: TrainSettings) -> FinetuneRun:
    """Plan the run and log what is frozen and trained.

    Raises
    ------
    InputError
        If the encoder cannot be finetuned, or a setting does not fit it.
    """
    if settings.view_names != (UniMolEncoder.name,):
        raise InputError(
            f"--finetune_encoder: {' and '.join(settings.view_names)} cannot be finetuned, only "
            f"{UniMolEncoder.name} alone"
        )
    if settings.finetuned is not None:
        raise InputError("--finetune_encoder starts from --weights; leave --finetuned out")
    weights = resolve_weights(settings.weights)
    state = read_weights(weights, settings.token_order)
    config = UniMolConfig() if state is None else state.config
    plan = plan_finetuning(settings, config.layers)
    if plan.from_tokens and settings.trunk_cache == "on":
        raise InputError(
            "--trunk_cache on: nothing stays fixed, as the embeddings are trained too; freeze "
            "layer 0, or use --trunk_cache off"
        )
    with torch.device("meta"):
        model = UniMol(config, pad=0)
        total = sum(p.numel() for p in model.parameters())
        trained = sum(p.numel() for p in open_for_training(model, plan).values())
    frozen = total - (trained if plan.adapters is None else 0)
    log.info(
        "encoder: %s parameters frozen, %s trained (%.1f %%); layers below %s are the trunk",
        f"{frozen:,}", f"{trained:,}", 100 * trained / total, plan.cut,
    )  # fmt: skip
    return FinetuneRun(plan, config, trained, frozen, weights)


def choose_trunk(
    run: FinetuneRun, molecules: pa.Table, plan: EncodingPlan[TrainSettings]
) -> TrunkSpec | None:
    """Which activations to keep, by the room that they need; None to compute them each time.

    Parameters
    ----------
    molecules : `key` and canonical `smiles` of training and validation. Those whose activations
        the store has need no more room.

    Raises
    ------
    InputError
        If they must be kept and do not fit.
    """
    settings = plan.settings
    if run.plan.from_tokens or settings.trunk_cache == "off":
        log.info("trunk: computed anew in every epoch")
        return None
    spec = TrunkSpec(run.plan.cut, settings.trunk_precision)
    keys, first = np.unique(molecules["key"].to_pylist(), return_index=True)
    kept = plan.tables.with_trunk(spec).trunk.index()
    missing = first[(kept.find(keys) < 0) | settings.force_recompute_cache]
    if len(missing) == 0:
        log.info("trunk: in the store (%s)", settings.trunk_precision)
        return spec
    smiles = molecules["smiles"].take(missing)
    atoms = sampled_atom_counts(smiles, SAMPLE, run.weights.keeps_hydrogens)
    tokens = np.minimum(atoms, DEFAULT_MAX_ATOMS) + 2
    each = bytes_of(tokens, run.config, settings.trunk_precision) / max(1, len(tokens))
    need, space = each * len(missing), space_for_trunk(settings.cache_root, settings.trunk_gb)
    told = (
        f"{len(missing):,} molecules of {each / 1e3:.0f} kB, {need / GIB:.2f} GiB in all, and "
        f"{space / GIB:.2f} GiB allowed"
    )
    if need <= space:
        log.info("trunk: kept in the store (%s), about %s", settings.trunk_precision, told)
        return spec
    if settings.trunk_cache == "on":
        raise InputError(
            f"--trunk_cache on: the activations do not fit: {told}; raise --trunk_gb, or use "
            "--trunk_cache auto, which computes them anew in every epoch"
        )
    log.info("trunk: computed anew in every epoch, as it does not fit: about %s", told)
    return None
