"""What a suite is asked for: encoders, detectors, variants, and the trainings of all of these.

A training is of one data set, encoder, detector, seed and variant; tested on one data set, it is a
cell. A variant is a combination of swept settings; of these a detector takes the ones that concern
it, so that nothing is trained twice to the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import product
from typing import Any

from pipeline.conformers.settings import ConformerSettings
from pipeline.detectors.registry import DETECTORS, ENERGY_HEADS, depends_on_seed, needs
from pipeline.detectors.settings import EnergyHeadSettings, PropertyHeadSettings
from pipeline.encoders.settings import EncoderSettings
from pipeline.molecules.settings import SamplingSettings
from pipeline.runtime.errors import InputError
from pipeline.runtime.settings import OptimizerSettings
from pipeline.suite.settings import INSTEAD, SuiteSettings, check_value
from pipeline.training.settings import FinetuneSettings, TrainSettings

Variant = dict[str, Any]
FOUND = "searched"  # the name of what a search has found

OF_ENCODER = {f.name for kind in (EncoderSettings, ConformerSettings) for f in fields(kind)}
SAMPLING = {f.name for f in fields(SamplingSettings)}
OF_HEADS = {
    *(f.name for kind in (EnergyHeadSettings, OptimizerSettings) for f in fields(kind)),
    "epochs", "batch_size", "lr_schedule", "lr_step_epochs", "lr_decay", "warmup_steps",
    "early_stopping_patience", "gradient_accumulation_steps",
} - {"loss"}  # fmt: skip
# Settings of some detectors alone; of a network for the labels, of all that have one.
OF_DETECTORS = {
    "dpo_beta": {"dpo"}, "hinge_margin": {"hinge"}, "hinge_topk": {"hinge"},
    "hinge_squared": {"hinge"}, "knn_k": {"knn", "oe_knn"}, "lof_neighbours": {"lof"},
    "isolation_trees": {"isolation_forest"}, "odin_temperature": {"odin"}, "odin_epsilon": {"odin"},
    "mc_passes": {"mc_dropout"}, "ensemble_size": {"ensemble"}, "exposure_weight": {"energy_oe"},
    "exposure_margin_id": {"energy_oe"}, "exposure_margin_ood": {"energy_oe"},
}  # fmt: skip
OF_LABELS = {f.name for f in fields(PropertyHeadSettings)}


@dataclass(frozen=True)
class Encoder:
    """An encoder, or views side by side, and its name in tables."""

    name: str
    changes: Mapping[str, Any]

    def settings(self, common: TrainSettings) -> TrainSettings:
        """The settings of a training on it."""
        return replace(common, **self.changes)


@dataclass(frozen=True)
class Training:
    """One training; `settings` are complete but for the precision.

    Attributes
    ----------
    variant : the swept settings that concern it.
    is_found : whether a search has found these, which then differ between data sets.
    sample : those of them that choose molecules.
    """

    data: str
    encoder: str
    detector: str
    seed: int
    variant: Variant
    settings: TrainSettings
    is_found: bool = False

    @property
    def variant_name(self) -> str:
        """The variant in tables: the same for all data sets."""
        return FOUND if self.is_found else variant_text(self.variant)

    @property
    def sample(self) -> tuple[tuple[str, Any], ...]:
        """See the class."""
        return sampling_of(self.variant)

    @property
    def any_seed(self) -> bool:
        """Whether it stands for every seed."""
        return not depends_on_seed(self.detector)

    @property
    def is_head(self) -> bool:
        """Whether it is an energy head."""
        return self.detector in ENERGY_HEADS


def sampling_of(variant: Variant) -> tuple[tuple[str, Any], ...]:
    """The settings of a variant that choose molecules."""
    return tuple((name, value) for name, value in variant.items() if name in SAMPLING)


def variant_text(variant: Variant) -> str:
    """A variant as tables name it: "dpo_beta=0.1, lr=0.001"; nothing if nothing is swept."""
    return ", ".join(f"{name}={_shown(value)}" for name, value in variant.items())


def encoders_asked(settings: SuiteSettings) -> list[Encoder]:
    """The encoders of --encoders.

    Raises
    ------
    InputError
        If one has an unknown key or view, or two have one name.
    """
    encoders = []
    for given in settings.encoders:
        entry = {"views": given} if isinstance(given, str) else dict(given)
        allowed = {"name", "views", *OF_ENCODER} - {"foundation_model"}
        unknown = sorted(entry.keys() - allowed)
        if unknown or not isinstance(entry.get("views"), str):
            told = f"has the unknown key {unknown[0]!r}" if unknown else "has no views"
            raise InputError(f"--encoders: {given} {told}; there are: {', '.join(sorted(allowed))}")
        entry["views"] = ",".join(entry["views"].replace("+", ",").split(","))
        for key in entry.keys() & OF_ENCODER:
            check_value(f"--encoders: {given}", key, entry[key])
        name = str(entry.pop("name", entry["views"].replace(",", "+")))
        if "/" in name:
            raise InputError(f"--encoders: the name {name} has a /, which --reference reads")
        encoder = Encoder(name, entry)
        if not encoder.settings(settings).view_names:
            raise InputError(f"--encoders: {given} has no views")
        encoders.append(encoder)
    _check_distinct("--encoders", [encoder.name for encoder in encoders])
    return encoders


def detectors_asked(settings: SuiteSettings) -> list[str]:
    """The detectors of --detectors.

    Raises
    ------
    InputError
        If there is none of a name, or none at all.
    """
    names = settings.detectors
    if names == ["all"]:
        return [*ENERGY_HEADS, *DETECTORS]
    for name in names:
        if name == "auto":
            raise InputError("--detectors auto: a suite compares detectors; name them, or all")
        needs(name)
    _check_distinct("--detectors", names)
    return list(names)


def concerns(setting: str, detector: str) -> bool:
    """Whether a setting of training changes what a detector is fitted to, or how."""
    if setting == "ood_ratio":
        return needs(detector).ood
    if setting in SAMPLING:
        return True
    if setting in OF_DETECTORS:
        return detector in OF_DETECTORS[setting]
    if setting in OF_LABELS:
        return needs(detector).labels
    return setting in OF_HEADS and detector in ENERGY_HEADS


def check_sweep(settings: SuiteSettings, detectors: Sequence[str]) -> None:
    """Tell what of --sweep cannot be swept, or would sweep nothing.

    Raises
    ------
    InputError
        That names the setting.
    """
    for name, values in settings.sweep.items():
        where = f"--sweep {name}"
        if name in INSTEAD:
            raise InputError(f"{where}: use {INSTEAD[name]}")
        if name in OF_ENCODER:
            raise InputError(f"{where}: give --encoders an entry for each value")
        if name in {f.name for f in fields(FinetuneSettings)} - OF_HEADS:
            raise InputError(f"{where}: a suite does not finetune encoders; see jobs.compare")
        if name not in SAMPLING | OF_HEADS | OF_LABELS | OF_DETECTORS.keys():
            raise InputError(f"{where}: no setting of training or sampling has that name")
        if not any(concerns(name, detector) for detector in detectors):
            raise InputError(f"{where}: concerns none of --detectors {' '.join(detectors)}")
        if name in SAMPLING and settings.search is not None:
            raise InputError(
                f"{where} chooses molecules, and a search compares trainings on the same ones; "
                "leave --search out"
            )
        if isinstance(values, dict) and settings.search is not None:
            _check_bounds(where, values)
            tries = list(values.values())
        elif isinstance(values, list) and values:
            tries = values
        else:
            mend = "give a list of values, as [0.1, 1]"
            more = "" if isinstance(values, list) else "; bounds go with --search"
            raise InputError(f"{where}: {values!r}: {mend}{more}")
        _check_distinct(where, [str(value) for value in tries])
        for value in tries:
            check_value(where, name, value)
            try:
                replace(settings, **{name: value})
            except InputError as error:
                raise InputError(f"--sweep: {error}") from None
    if settings.search is not None and not settings.sweep:
        raise InputError("--search needs --sweep, the settings to search in")


def variants_of(detector: str, sweep: Mapping[str, Sequence[Any]]) -> list[Variant]:
    """All combinations of the swept settings that concern a detector."""
    names = [name for name in sweep if concerns(name, detector)]
    return [dict(zip(names, values)) for values in product(*(sweep[name] for name in names))]


def trainings_of(
    data: str,
    encoder: Encoder,
    detector: str,
    variants: Sequence[Variant],
    common: TrainSettings,
    seeds: Sequence[int],
    are_found: bool = False,
) -> list[Training]:
    """Trainings of a detector on a data set's features: of each variant all seeds.

    Parameters
    ----------
    common : of the data set.
    seeds : only the first counts for a detector that no seed changes.
    are_found : whether a search has found the variants.
    """
    kept = seeds if depends_on_seed(detector) else seeds[:1]
    loss = {"loss": detector} if detector in ENERGY_HEADS else {}
    return [
        Training(
            data, encoder.name, detector, seed, variant,
            replace(
                encoder.settings(common), detector=detector, seed=seed, **loss, **variant
            ).sized(),
            are_found and bool(variant),
        )
        for variant in variants for seed in kept
    ]  # fmt: skip


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _check_distinct(where: str, names: Sequence[str]) -> None:
    if not names:
        raise InputError(f"{where}: give at least one")
    for name in names:
        if list(names).count(name) > 1:
            raise InputError(f"{where}: {name} is there twice")


def _check_bounds(where: str, values: dict[str, Any]) -> None:
    bounds = [values.get(name) for name in ("least", "most")]
    if values.keys() != {"least", "most"} or not all(isinstance(b, int | float) for b in bounds):
        raise InputError(f"{where}: {values}: give bounds as {{least: 1e-5, most: 1e-2}}")
    if not 0 < bounds[0] < bounds[1]:
        raise InputError(f"{where}: {values}: bounds are searched on a logarithmic scale; least "
                         "must be above 0 and below most")  # fmt: skip
