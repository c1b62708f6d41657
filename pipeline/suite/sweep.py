"""The settings of --sweep: which detectors each concerns, and their combinations, the variants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from itertools import product
from typing import Any

from pipeline.conformers.settings import ConformerSettings
from pipeline.detectors.registry import ENERGY_HEADS, needs
from pipeline.detectors.settings import EnergyHeadSettings, PropertyHeadSettings
from pipeline.encoders.settings import EncoderSettings
from pipeline.molecules.settings import SamplingSettings
from pipeline.runtime.errors import InputError
from pipeline.runtime.settings import OptimizerSettings
from pipeline.suite.settings import INSTEAD, SuiteSettings, check_value
from pipeline.training.settings import FinetuneSettings

Variant = dict[str, Any]
Sampling = tuple[tuple[str, Any], ...]  # the settings of a variant that choose molecules

OF_ENCODER = {f.name for kind in (EncoderSettings, ConformerSettings) for f in fields(kind)}
SAMPLING = {f.name for f in fields(SamplingSettings)}
OF_TESTS = {"sampling", "test_size", "debug_dataset_size", "data_seed"}  # choose test molecules too
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
SWEPT = (SAMPLING - OF_TESTS) | OF_HEADS | OF_LABELS | OF_DETECTORS.keys()


def sampling_of(variant: Variant) -> Sampling:
    """The settings of a variant that choose molecules."""
    return tuple((name, value) for name, value in variant.items() if name in SAMPLING)


def variant_text(variant: Variant) -> str:
    """A variant as tables name it: "dpo_beta=0.1, lr=0.001"; nothing if nothing is swept."""
    return ", ".join(f"{name}={_shown(value)}" for name, value in variant.items())


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


def variants_of(detector: str, sweep: Mapping[str, Sequence[Any]]) -> list[Variant]:
    """All combinations of the swept settings that concern a detector."""
    names = [name for name in sweep if concerns(name, detector)]
    return [dict(zip(names, values)) for values in product(*(sweep[name] for name in names))]


def check_sweep(settings: SuiteSettings, detectors: Sequence[str]) -> None:
    """Tell what of --sweep cannot be swept, or would sweep nothing.

    Raises
    ------
    InputError
        That names the setting.
    """
    for name, values in settings.sweep.items():
        where = f"--sweep {name}"
        _check_name(where, name, detectors)
        if name in SAMPLING and settings.search is not None:
            raise InputError(
                f"{where} chooses molecules, and a search compares trainings on the same ones; "
                "leave --search out"
            )
        tries = _tries(where, values, settings.search is not None)
        check_distinct(where, [_shown(value) for value in tries])
        for value in tries:
            check_value(where, name, value)
            try:
                replace(settings, **{name: value})
            except InputError as error:
                raise InputError(f"--sweep: {error}") from None
    if settings.search is not None and not settings.sweep:
        raise InputError("--search needs --sweep, the settings to search in")


def _check_name(where: str, name: str, detectors: Sequence[str]) -> None:
    if name in INSTEAD:
        raise InputError(f"{where}: use {INSTEAD[name]}")
    if name in OF_ENCODER:
        raise InputError(f"{where}: give --encoders an entry for each value")
    if name in {f.name for f in fields(FinetuneSettings)} - OF_HEADS:
        raise InputError(f"{where}: a suite does not finetune encoders; see jobs.compare")
    if name in OF_TESTS:
        raise InputError(
            f"{where} chooses test molecules too, and variants are compared on the same ones; "
            "give --data an entry for each value, as {name: …, file: …, " + name + ": …}"
        )
    if name not in SWEPT:
        raise InputError(f"{where}: no setting of training or sampling has that name")
    if not any(concerns(name, detector) for detector in detectors):
        raise InputError(f"{where}: concerns none of --detectors {' '.join(detectors)}")


def _tries(where: str, values: Any, is_search: bool) -> list[Any]:
    """The values that are named; of a search's bounds both."""
    if isinstance(values, dict) and is_search:
        _check_bounds(where, values)
        return list(values.values())
    if isinstance(values, list) and values:
        return values
    mend = "give a list of values, as [0.1, 1]"
    more = "" if isinstance(values, list) else "; bounds go with --search"
    raise InputError(f"{where}: {values!r}: {mend}{more}")


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def check_distinct(where: str, names: Sequence[str]) -> None:
    """InputError if there is no name, or one twice: tables would take two for one."""
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
