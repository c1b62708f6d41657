"""Settings of jobs.suite."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

from pipeline.runtime.errors import InputError
from pipeline.runtime.settings import bounded
from pipeline.training.settings import FinetuneSettings, TrainingSetSettings, TrainSettings

INSTEAD = {
    "data_file": "--data", "dataset": "the name of each of --data", "views": "--encoders",
    "foundation_model": "--encoders", "detector": "--detectors", "loss": "--detectors",
    "seed": "--seeds",
}  # fmt: skip
"""Settings of one training that the grid has in several values, and what names these."""


@dataclass(frozen=True, kw_only=True)
class SuiteSettings(TrainSettings):
    """Train and test a grid: data sets × encoders × detectors × seeds × settings."""

    data: list[str | dict[str, Any]] = field(default_factory=list)
    """Data sets: files with splits, names such as drugood:lbap_core_ic50_scaffold, or in a YAML
    file entries of name, file, split (settings of jobs.split) and settings of their own."""
    data_root: str = "datasets"
    """Folder or fsspec URI where data sets that are named lie; none is downloaded."""
    encoders: list[str | dict[str, Any]] = field(default_factory=lambda: ["minimol"])
    """Encoders and views, as unimol, minimol or ecfp+descriptors+distances; or in a YAML file
    entries of name, views and settings of their own, such as weights."""
    detectors: list[str] = field(
        default_factory=lambda: ["tanimoto", "knn", "mahalanobis", "bce", "dpo"]
    )
    """Detectors and energy heads, or all."""
    seeds: list[int] = field(default_factory=lambda: [42, 43, 44])
    """Seeds of each training; what does not depend on a seed is fitted once, and marked so."""
    sweep: dict[str, Any] = field(default_factory=dict)
    """Settings of training or sampling with their values, as {dpo_beta: [0.1, 1], ood_ratio: [1,
    0.02]}: all combinations, of those that concern a detector. With --search also bounds, as {lr:
    {least: 1e-5, most: 1e-2}}."""
    search: int | None = bounded(None, least=1)
    """Take, for each data set, encoder and detector, the best by validation AUROC of so many draws
    from --sweep (Ray Tune), in place of all combinations."""
    cross: bool = False
    """Also test what was trained on each data set on all others."""
    reference: str | None = None
    """The method that others are compared with: a detector, or ENCODER/DETECTOR to compare encoders
    too; with a sweep also its settings, as tables name it. Default: the first of --detectors."""
    parallel_runs: int | None = bounded(None, least=1)
    """Tasks at a time; default: one a core of the cluster."""
    bootstrap_samples: int = bounded(1000, least=100)
    """Resamples behind the 95-percent intervals."""

    def check(self) -> None:
        """Tell settings that cannot be, or would do nothing.

        Raises
        ------
        InputError
            That names the flag to mend.
        """
        defaults = {f.name: f.default for f in fields(TrainSettings)}
        for name, instead in INSTEAD.items():
            if getattr(self, name) != defaults[name]:
                raise InputError(f"--{name} is that of one training; a suite takes {instead}")
        if self.finetune_encoder:
            raise InputError("--finetune_encoder: a suite trains on features; see jobs.compare")
        for kind, where in (
            (FinetuneSettings, "jobs.compare"),
            (TrainingSetSettings, "jobs.train"),
        ):
            for f in fields(kind):
                shared = f.name == "gradient_accumulation_steps"
                if not shared and getattr(self, f.name) != f.default:
                    raise InputError(f"--{f.name} does nothing in a suite; see {where}")
        if not self.data:
            raise InputError("required: --data, the data sets to train on; see --help")
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise InputError(f"--seeds {self.seeds}: give at least one seed, and none twice")
        if min(self.seeds) < 0:
            raise InputError(f"--seeds {self.seeds}: a seed is at least 0")
        if self.cross and len(self.data) < 2:
            raise InputError("--cross needs at least two data sets in --data")


def check_value(where: str, name: str, value: Any, kind: type = TrainSettings) -> None:
    """Tell a value in a YAML file that a setting cannot have; bounds are its class's business.

    Parameters
    ----------
    where : what the message begins with.
    kind : class of settings that has it, with a default.

    Raises
    ------
    InputError
        If it is of another type, or none of the choices.
    """
    kinds, choices = kinds_of(name, kind)
    if type(value) not in kinds or (choices and value not in choices):
        default = kind.__dataclass_fields__[name].default
        raise InputError(f"{where}: {value!r} is no value of {name} (default: {default!r})")


def kinds_of(name: str, kind: type = TrainSettings) -> tuple[set[Any], tuple[Any, ...]]:
    """The types that a setting's values have, and its choices if it is one of a few."""
    hint = get_type_hints(kind)[name]
    choices = get_args(hint) if get_origin(hint) is Literal else ()
    kinds = {type(choice) for choice in choices} or {hint, *get_args(hint)}
    return kinds | ({int} if float in kinds else set()), choices
