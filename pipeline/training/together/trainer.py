"""Which heads train together, and training them by Ray Train."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, replace

import pyarrow as pa

from pipeline.detectors.feature_space import FeatureSpace
from pipeline.encoding.views import EncodedViews
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import absolute, remove, result_or_error
from pipeline.runtime.nodes.cluster import cluster_cores
from pipeline.runtime.train.ray_train import fit, read_state, torch_trainer
from pipeline.training.settings import TrainSettings
from pipeline.training.together.loop import heads_loop
from pipeline.training.trained import Trained
from pipeline.training.trainer import (
    OUT_OF_MEMORY_ADVICE,
    head_job,
    made_of,
    train_head,
    training_name,
    written_features,
)

log = logging.getLogger(__name__)

# Settings that may differ among heads of one batched model: they change no tensor's shape.
OF_A_HEAD = (
    "seed", "output_dir", "detector", "loss", "dpo_beta", "lambda_reg", "hinge_margin",
    "hinge_topk", "hinge_squared", "group_step", "dropout", "lr", "weight_decay", "grad_clip",
    "epochs", "lr_schedule", "lr_step_epochs", "lr_decay", "warmup_steps",
    "early_stopping_patience",
)  # fmt: skip


def can_train_together(settings: Sequence[TrainSettings], device: str, least: int = 2) -> bool:
    """Whether heads can train as one batched model: on a CPU, by one worker, the encoder frozen.

    On a GPU torch draws the dropout of one head in a way that several cannot repeat, and several
    workers share the batches of one head. Those train one after the other.

    Parameters
    ----------
    settings : each with an energy head; what is not in `OF_A_HEAD` must be the same in all.
    least : heads that are worth it. One head takes the same numbers to rounding, without the
        streams of Ray Data that a training alone prepares.
    """
    first = settings[0]
    same = len({repr(_shared(each)) for each in settings}) == 1
    alone = first.finetune_encoder or first.num_workers > 1 or device != "cpu"
    return len(settings) >= least and same and not alone


def _shared(settings: TrainSettings) -> dict[str, object]:
    return {name: value for name, value in asdict(settings).items() if name not in OF_A_HEAD}


def together(settings: Sequence[TrainSettings]) -> list[list[int]]:
    """Places of settings that differ in `OF_A_HEAD` alone, each kind in a list of its own."""
    kinds: dict[str, list[int]] = {}
    for place, each in enumerate(settings):
        kinds.setdefault(repr(_shared(each)), []).append(place)
    return list(kinds.values())


def train_heads(
    molecules: pa.Table,
    encoded: EncodedViews,
    space: FeatureSpace,
    settings: Sequence[TrainSettings],
    device: str,
    share: float = 1.0,
    least: int = 2,
) -> list[Trained | Exception]:
    """As `train_head` for each of the settings, together if `can_train_together`.

    Each head is what it is alone: the same seed, batches, dropout, learning rates, early stopping
    and best epoch; numbers agree to rounding. A run that was killed continues if it is started
    again with the same heads. Where the features do not fit --resident_gb, heads train one after
    the other, and that is said.

    Returns
    -------
    list
        In the settings' order what was trained, or why it failed; in the statistics of those that
        trained together `heads_together` is their number, and times are a head's share.
    """
    if can_train_together(settings, device, least):
        made = _together(molecules, encoded, space, settings, share)
        if made is not None:
            return made
        log.warning(
            "features do not fit --resident_gb (by default a fifth of the memory that is free): %s "
            "heads train one after the other", len(settings),
        )  # fmt: skip
    return [
        result_or_error(train_head, molecules, encoded, space, each, device, None, share)
        for each in settings
    ]


def _together(
    molecules: pa.Table,
    encoded: EncodedViews,
    space: FeatureSpace,
    settings: Sequence[TrainSettings],
    share: float,
) -> list[Trained | Exception] | None:
    """None if the features do not fit into memory."""
    first = settings[0]
    storage = f"{absolute(first.output_dir)}/.ray_train"
    # Equal for the same heads alone, whatever their folders.
    name = training_name(first, encoded.result.identity, [training_name(s) for s in settings],
                         molecules.select(["key", "role"]).to_pydict())  # fmt: skip
    with written_features(molecules, encoded, space, first, storage, name) as features:
        job = head_job(molecules, features, space, first, share)
        trainer = torch_trainer(
            heads_loop,
            {"job": job, "heads": tuple(settings)},
            workers=1,
            use_gpu=False,
            cores=share * cluster_cores(),
            storage=storage,
            name=name,
            light=True,
        )
        log.info("%s heads train together", len(settings))
        result = fit(trainer, OUT_OF_MEMORY_ADVICE)
    outcomes = result.return_value["outcomes"]
    if not result.return_value["resident"]:
        remove(f"{storage}/{name}")
        return None
    ran_in = "driver" if trainer.running_in_local_mode else "workers"
    states = read_state(result.checkpoint)["heads"]
    made: list[Trained | Exception] = []
    for each, outcome, state in zip(settings, outcomes, states):
        if outcome["failure"] is not None:
            made.append(InputError(outcome["failure"]))
            continue
        more = {"heads_together": len(settings)}
        made.append(made_of(outcome, state["best"], each, ran_in).beside([], **more))
    good = [i for i, each in enumerate(made) if isinstance(each, Trained)]
    if not good:
        remove(f"{storage}/{name}")
        return made
    # The state goes once the last of them is written: till then a new start with the same heads
    # need not train again.
    made[good[-1]] = replace(made[good[-1]], leftovers=(f"{storage}/{name}",))
    return made
