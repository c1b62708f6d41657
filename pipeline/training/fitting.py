"""Detectors that are fitted at once, and the choice among detectors by validation."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.detectors.base import Detector, Inputs
from pipeline.detectors.feature_space import FeatureSpace
from pipeline.detectors.registry import ENERGY_HEADS, detector_class, needs
from pipeline.encoding.views import EncodedViews
from pipeline.runtime.errors import InputError
from pipeline.training.checkpoints.references import References
from pipeline.training.settings import TrainSettings
from pipeline.training.synthetic_ood import SyntheticOod, untried
from pipeline.training.trained import Trained

log = logging.getLogger(__name__)

# What --detector auto chooses among, from the simplest on, which wins where two are equal. Those
# that need labels tell a property, and are worse than any of these wherever that was measured.
CANDIDATES = (
    "tanimoto", "knn", "mahalanobis", "distance_lr", "oe_knn", "oe_mahalanobis", "bce", "dpo",
)  # fmt: skip


def detectors_of(settings: TrainSettings) -> tuple[str, ...]:
    """The detectors to train: one, or with --detector auto all that it chooses among.

    Raises
    ------
    InputError
        If flags do not fit together.
    """
    name = settings.detector or settings.loss
    if settings.detector in ENERGY_HEADS and settings.loss not in ("dpo", settings.detector):
        raise InputError(
            f"--detector {settings.detector} and --loss {settings.loss} name two energy heads; "
            "leave one of them out"
        )
    if settings.finetune_encoder and name not in ENERGY_HEADS:
        raise InputError(
            f"--finetune_encoder trains with an energy head ({', '.join(ENERGY_HEADS)}), not with "
            f"--detector {name}"
        )
    if settings.group_weights == "dro" and name not in (*ENERGY_HEADS, "auto"):
        raise InputError(
            f"--group_weights dro weighs the loss of an energy head ({', '.join(ENERGY_HEADS)}); "
            f"--detector {name} has none"
        )
    if name == "auto":
        return tuple(each for each in CANDIDATES if each not in untried(settings))
    if needs(name).labels and settings.label_column is None and settings.id_file is not None:
        raise InputError(f"--detector {name} learns from labels; name them by --label_column")
    return (name,)


class FitInputs(NamedTuple):
    """What a detector is fitted to and validated on.

    Attributes
    ----------
    references, ood_train, id_val, ood_val : molecules in a feature space.
    labels : (n,) of the references, NaN where none is known.
    """

    references: Inputs
    ood_train: Inputs
    id_val: Inputs
    ood_val: Inputs
    labels: np.ndarray


def fit_inputs(
    molecules: pa.Table,
    encoded: EncodedViews,
    space: FeatureSpace,
    data_seed: int,
    synthetic: SyntheticOod | None = None,
) -> FitInputs:
    """The reference molecules, and those of the other training roles, in a feature space.

    Parameters
    ----------
    molecules : `key`, `smiles`, `role`, `label`; every key has features.
    synthetic : what stands for OOD molecules, if there are none.
    """
    references = References(molecules, data_seed)

    def inputs(table: pa.Table) -> Inputs:
        return space.inputs(references.described(table, encoded))

    def of_role(role: str) -> Inputs:
        if synthetic is not None and role in synthetic.features:
            return synthetic.inputs(role)
        return inputs(molecules.filter(pc.equal(molecules["role"], role)))

    others = map(of_role, ("ood_train", "id_val", "ood_val"))
    labels = references.molecules["label"].to_numpy(zero_copy_only=False)
    return FitInputs(inputs(references.molecules), *others, labels)


def fit_on(name: str, given: FitInputs, settings: TrainSettings) -> tuple[Detector, Trained]:
    """Fit a detector on the references, and on OOD molecules and labels if it learns from them.

    Raises
    ------
    InputError
        If it cannot learn from these.
    """
    started = time.perf_counter()
    wants = needs(name)
    detector = detector_class(name).fit(
        given.references,
        given.ood_train if wants.ood else None,
        given.labels if wants.labels else None,
        settings,
        settings.seed,
    )
    seconds = time.perf_counter() - started
    scores = [detector.scores(inputs) for inputs in (given.id_val, given.ood_val)]
    return detector, Trained(
        files=detector.save(),
        config={"detector": name},
        history=[],
        best_val_auroc=_auroc(*scores),
        stats={"train_time_seconds": seconds},
    )


def fit_detector(
    name: str,
    molecules: pa.Table,
    encoded: EncodedViews,
    space: FeatureSpace,
    settings: TrainSettings,
    synthetic: SyntheticOod | None = None,
) -> Trained:
    """As `fit_on`, of molecules as `fit_inputs` takes them."""
    given = fit_inputs(molecules, encoded, space, settings.data_seed, synthetic)
    return fit_on(name, given, settings)[1]


def best_of(
    names: Sequence[str], train: Callable[[str], Trained], left_out: Mapping[str, str] | None = None
) -> Trained:
    """The one with the best validation AUROC; its `stats` tell all of them.

    A detector that cannot be fitted to these molecules is left out, and that is said.

    Parameters
    ----------
    left_out : those that were left out before, and why.
    """
    tried: dict[str, Trained] = {}
    failed = dict(left_out or {}) if len(names) > 1 else {}
    for name, why in failed.items():
        log.info("--detector auto: %s is left out: %s", name, why)
    for name in names:
        try:
            tried[name] = train(name)
        except InputError as error:
            if len(names) == 1:
                raise
            failed[name] = str(error)
            log.warning("--detector auto: %s is left out: %s", name, error)
    if not tried:
        raise InputError(f"--detector auto: none could be fitted; {next(iter(failed.values()))}")
    if len(names) == 1:
        return tried[names[0]]
    best = max(tried, key=lambda name: tried[name].best_val_auroc)  # of equals the first
    aurocs = {name: made.best_val_auroc for name, made in tried.items()}
    told = ", ".join(f"{name} {area:.3f}" for name, area in aurocs.items())
    log.info("--detector auto: %s, by AUROC on validation molecules: %s", best, told)
    chosen = {"chosen_by_validation_auroc": aurocs, "left_out": failed}
    return tried[best].beside(tried.values(), **chosen)


def _auroc(id_scores: np.ndarray, ood_scores: np.ndarray) -> float:
    from sklearn.metrics import roc_auc_score  # slow to import, and no driver needs it

    is_ood = np.repeat([0, 1], [len(id_scores), len(ood_scores)])
    return float(roc_auc_score(is_ood, np.concatenate([id_scores, ood_scores])))
