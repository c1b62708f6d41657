"""What jobs.train calls: a split file to a trained head, and if asked a finetuned encoder."""

from __future__ import annotations

from collections import Counter
from typing import Any

from pipeline.encoding.plan import check_inputs, open_run
from pipeline.encoding.run import write_summary
from pipeline.encoding.stored_features import Encoded, encode_molecules
from pipeline.molecules.rejected import write_rejected
from pipeline.molecules.roles import ROLES, assign_roles
from pipeline.runtime.errors import InputError
from pipeline.training.finetuning.preparation import (
    check_finetuning_flags,
    choose_trunk,
    prepare_finetuning,
)
from pipeline.training.settings import TrainSettings
from pipeline.training.trainer import TRAINING_ROLES, train


def run_training(settings: TrainSettings, share: float = 1.0) -> dict[str, Any]:
    """Encode a split file's sample, train the head on it, write the checkpoint.

    Parameters
    ----------
    share : part of the cluster's cores that the training may take.

    Returns
    -------
    dict
        The content of training_stats.json.
    """
    notes = check_inputs(settings)
    check_finetuning_flags(settings)
    finetuning = prepare_finetuning(settings) if settings.finetune_encoder else None
    plan, source = open_run(settings, notes)
    # The test molecules' features are the base encoder's, of no use to a finetuned one.
    roles = tuple(ROLES) if finetuning is None else TRAINING_ROLES
    sample = assign_roles(source.molecules, settings, settings.data_file, roles)
    if finetuning is not None:
        plan = plan.with_trunk(choose_trunk(finetuning, sample, plan))
    encoded = encode_molecules(sample, source, plan)
    write_rejected(encoded.rejected, settings.output_dir)
    require_roles(encoded, TRAINING_ROLES, settings.data_file)
    write_summary(source, encoded, settings.dataset or settings.data_file, settings.output_dir)
    return train(encoded.molecules, encoded.result, plan.settings, plan.device, finetuning, share)


def require_roles(encoded: Encoded, roles: tuple[str, ...], source: str, least: int = 1) -> None:
    """Make sure that enough molecules of each role have features.

    Raises
    ------
    InputError
        That names the source and the role.
    """
    left = Counter(encoded.molecules["role"].to_pylist())
    for role in roles:
        if left[role] < least:
            raise InputError(
                f"{source}: {role} has {left[role]} molecules with features, needs at least {least}"
            )
