"""What jobs.train calls: a split file, or a training set, to a detector and its checkpoint."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.detectors.feature_space import FeatureSpace
from pipeline.detectors.registry import ENERGY_HEADS
from pipeline.encoding.run import write_summary
from pipeline.encoding.stored_features import Encoded
from pipeline.encoding.views import (
    EncodedViews,
    Plans,
    check_views,
    decided,
    encode_views,
    open_views,
)
from pipeline.molecules.rejected import write_rejected
from pipeline.molecules.roles import CALIBRATION, ROLES, assign_roles
from pipeline.molecules.sources import Molecules
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import remove, result_or_error
from pipeline.training.checkpoints.checkpoint import CROSS
from pipeline.training.checkpoints.references import References
from pipeline.training.finetuning.preparation import (
    FinetuneRun,
    check_finetuning_flags,
    choose_trunk,
    prepare_finetuning,
)
from pipeline.training.fitting import best_of, detectors_of, fit_detector
from pipeline.training.outputs import CHECKPOINT_FOLDER, write_checkpoint, write_training
from pipeline.training.settings import TrainSettings
from pipeline.training.synthetic_ood import SYNTHETIC, SyntheticOod, make_synthetic, untried
from pipeline.training.together.trainer import OF_A_HEAD, can_train_together, train_heads
from pipeline.training.trained import Trained
from pipeline.training.trainer import TRAINING_ROLES, train_head
from pipeline.training.training_set import check_training_set, open_training_set


@dataclass(frozen=True)
class Prepared:
    """What trainings of one set of features share.

    Attributes
    ----------
    settings : with sizes and precision decided.
    synthetic : what stands for OOD molecules with --ood synthetic, else None.
    """

    settings: TrainSettings
    device: str
    source: Molecules
    encoded: EncodedViews
    space: FeatureSpace
    finetuning: FinetuneRun | None
    synthetic: SyntheticOod | None

    @property
    def file(self) -> str:
        """The data file, or the training set."""
        return self.settings.id_file or self.settings.data_file


def run_training(settings: TrainSettings, share: float = 1.0) -> dict[str, Any]:
    """Encode the molecules, train or fit the detector on them, write the checkpoint.

    Parameters
    ----------
    share : part of the cluster's cores that the training may take.

    Returns
    -------
    dict
        The content of training_stats.json.
    """
    shared = _prepare(settings)
    settings, encoded, space = shared.settings, shared.encoded, shared.space
    synthetic = shared.synthetic
    _write_summary(shared, settings)
    folds, names = _folds(encoded.molecules), detectors_of(settings)
    folder = f"{settings.output_dir}/{CHECKPOINT_FOLDER}"

    def train(name: str, molecules: pa.Table) -> Trained:
        if name not in ENERGY_HEADS:
            return fit_detector(name, molecules, encoded, space, settings, synthetic)
        head = replace(settings, loss=name)
        return train_head(
            molecules, encoded, space, head, shared.device, shared.finetuning, share, synthetic
        )

    trained = best_of(names, partial(train, molecules=folds[0]), untried(settings))
    if synthetic is not None:
        trained = trained.beside([], synthetic_ood=synthetic.report)
    remove(folder)  # nothing of an earlier training may stay in it, such as its error model
    for fold, molecules in folds.items():
        if fold:
            crossed = train(trained.config["detector"], molecules)
            write_checkpoint(f"{folder}/{CROSS}", crossed, molecules, encoded, space, settings)
            trained = trained.beside([crossed])
    write_checkpoint(folder, trained, folds[0], encoded, space, settings, crossed=len(folds) > 1)
    return write_training(trained, encoded.molecules, encoded, settings, shared.device)


def can_share_a_training(settings: Sequence[TrainSettings], device: str) -> bool:
    """Whether `run_trainings` can take them: energy heads of one split that train together."""
    heads = all(set(detectors_of(each)) <= set(ENERGY_HEADS) for each in settings)
    return heads and settings[0].id_file is None and can_train_together(settings, device)


def run_trainings(
    settings: Sequence[TrainSettings], share: float = 1.0
) -> list[dict[str, Any] | Exception]:
    """As `run_training` for each, of heads that differ in `OF_A_HEAD` alone and train together.

    The file is read, molecules are encoded and the feature space is fitted once.

    Returns
    -------
    list
        For each the content of its training_stats.json, or why it failed.

    Raises
    ------
    InputError
        If what they share is wrong.
    """
    shared = _prepare(settings[0])
    if not can_share_a_training(settings, shared.device):
        raise ValueError("these are no heads that differ in OF_A_HEAD alone and can train together")
    several = [
        replace(shared.settings, **{name: getattr(each, name) for name in OF_A_HEAD})
        for each in settings
    ]
    for each in several:
        _write_summary(shared, each)
        if each is not several[0]:  # the first has its rejected rows
            write_rejected(shared.encoded.rejected, each.output_dir, kind=shared.source.kind)
    heads = [replace(each, loss=detectors_of(each)[0]) for each in several]
    molecules, encoded, space = shared.encoded.molecules, shared.encoded, shared.space
    made = train_heads(molecules, encoded, space, heads, shared.device, share)

    def written(settings: TrainSettings, trained: Trained | Exception) -> dict[str, Any]:
        if isinstance(trained, Exception):
            raise trained
        folder = f"{settings.output_dir}/{CHECKPOINT_FOLDER}"
        remove(folder)
        write_checkpoint(folder, trained, molecules, encoded, space, settings)
        return write_training(trained, molecules, encoded, settings, shared.device)

    return [result_or_error(written, each, trained) for each, trained in zip(several, made)]


def _prepare(settings: TrainSettings) -> Prepared:
    """Check the settings, read and encode the molecules, fit the feature space."""
    settings = settings.sized()
    notes = check_training(settings)
    finetuning = prepare_finetuning(settings) if settings.finetune_encoder else None
    plans, source, sample = _open(settings, notes, finetuning)
    settings, device = decided(settings, plans)
    encoded = encode_views(sample, source, plans)
    write_rejected(encoded.rejected, settings.output_dir, kind=source.kind)
    is_synthetic = settings.ood == SYNTHETIC
    roles = [role for role in TRAINING_ROLES if not (is_synthetic and role.startswith("ood"))]
    require_roles(encoded, roles, settings.id_file or settings.data_file)
    space = fit_space(encoded, settings)
    synthetic = make_synthetic(encoded, space, settings, device) if is_synthetic else None
    return Prepared(settings, device, source, encoded, space, finetuning, synthetic)


def _write_summary(shared: Prepared, settings: TrainSettings) -> None:
    """Write which molecules there were."""
    dataset = settings.dataset or shared.file
    write_summary(shared.source, shared.encoded, dataset, settings.output_dir)


def check_training(settings: TrainSettings) -> list[str]:
    """Tell wrong flags, files and encoders before any work; what reading has to guess, in words.

    Raises
    ------
    InputError
        That names the flag to mend.
    """
    if settings.id_file is None:
        names = ("ood", "ood_file", "library")
        lone = [name for name in names if getattr(settings, name) is not None]
        if lone:
            raise InputError(f"--{lone[0]} does nothing without --id_file")
        if settings.data_file is None:
            raise InputError(
                "required: --data_file, a split file of jobs.split, or --id_file, a training set; "
                "see --help"
            )
    check_finetuning_flags(settings)
    detectors_of(settings)
    if settings.id_file is not None:
        return check_training_set(settings)
    return check_views(settings, settings.view_names)


def _open(
    settings: TrainSettings, notes: list[str], finetuning: FinetuneRun | None
) -> tuple[Plans[TrainSettings], Molecules, pa.Table]:
    """The plans, the molecules of the source, and those that get a role."""
    if settings.id_file is not None:
        plans, source, sample = open_training_set(settings, notes)
    else:
        plans, source = open_views(settings, settings.view_names, notes)
        # The test molecules' features are the base encoder's, of no use to a finetuned one.
        roles = tuple(ROLES) if finetuning is None else TRAINING_ROLES
        sample = assign_roles(source.molecules, settings, settings.data_file, (*roles, CALIBRATION))
        sample = sample.append_column("fold", pa.array(np.zeros(sample.num_rows, int)))
    if finetuning is not None:
        (name, plan), *_ = plans.items()
        plans = {name: plan.with_trunk(choose_trunk(finetuning, sample, plan))}
    return plans, source, sample


def _folds(molecules: pa.Table) -> dict[int, pa.Table]:
    """The molecules of each training: all ID ones, and the OOD ones of its fold, if any."""
    is_ood = pc.starts_with(molecules["role"], "ood")
    numbers = sorted(pc.unique(molecules["fold"].filter(is_ood)).to_pylist()) or [0]
    return {
        number: molecules.filter(pc.or_(pc.invert(is_ood), pc.equal(molecules["fold"], number)))
        for number in numbers
    }


def fit_space(encoded: EncodedViews, settings: TrainSettings) -> FeatureSpace:
    """The feature space of the views, fitted on the reference molecules."""
    references = References(encoded.molecules, settings.data_seed)
    training = references.described(references.molecules, encoded)
    return FeatureSpace.fit(settings.view_names, training, settings.data_seed)


def require_roles(encoded: Encoded, roles: Sequence[str], source: str, least: int = 1) -> None:
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
