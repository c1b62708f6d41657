"""What a suite is asked for: encoders, detectors, and the trainings of all variants.

A training is of one data set, encoder, detector, seed and variant; tested on one data set, it is a
cell. A variant is a combination of swept settings; of these a detector takes the ones that concern
it, so that nothing is trained twice to the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pipeline.detectors.registry import DETECTORS, ENERGY_HEADS, depends_on_seed, needs
from pipeline.runtime.errors import InputError
from pipeline.suite.settings import SuiteSettings, check_value
from pipeline.suite.sweep import (
    OF_ENCODER,
    Sampling,
    Variant,
    check_distinct,
    concerns,
    sampling_of,
    variant_text,
    variants_of,
)
from pipeline.training.settings import TrainSettings

FOUND = "searched"  # the name of what a search has found


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
    fault : why it cannot be made, if a search has found nothing for it.
    sample : those of them that choose molecules.
    """

    data: str
    encoder: str
    detector: str
    seed: int
    variant: Variant
    settings: TrainSettings
    is_found: bool = False
    fault: str | None = None

    @property
    def variant_name(self) -> str:
        """The variant in tables: the same for all data sets."""
        return FOUND if self.is_found else variant_text(self.variant)

    @property
    def sample(self) -> Sampling:
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
    check_distinct("--encoders", [encoder.name for encoder in encoders])
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
    check_distinct("--detectors", names)
    return list(names)


def variant_names(settings: SuiteSettings, detector: str) -> list[str]:
    """A detector's variants as tables will name them, before a search has found any."""
    if settings.search is None:
        return [variant_text(variant) for variant in variants_of(detector, settings.sweep)]
    return [FOUND if any(concerns(name, detector) for name in settings.sweep) else ""]


def samplings_asked(settings: SuiteSettings, detectors: Sequence[str]) -> list[Sampling]:
    """The settings that choose molecules, of all variants, each once; those of tests across too."""
    found: list[Sampling] = []
    if settings.search is None:
        found = [sampling_of(v) for each in detectors for v in variants_of(each, settings.sweep)]
    return list(dict.fromkeys([*found, *([()] if settings.cross or not found else [])]))


def trainings_of(
    data: str,
    encoder: Encoder,
    detector: str,
    variants: Sequence[Variant],
    common: TrainSettings,
    seeds: Sequence[int],
    are_found: bool = False,
    fault: str | None = None,
) -> list[Training]:
    """Trainings of a detector on a data set's features: of each variant all seeds.

    Parameters
    ----------
    common : of the data set.
    seeds : only the first counts for a detector that no seed changes.
    are_found : whether a search has found the variants.
    fault : why it has found none.
    """
    kept = seeds if depends_on_seed(detector) else seeds[:1]
    loss = {"loss": detector} if detector in ENERGY_HEADS else {}
    return [
        Training(
            data, encoder.name, detector, seed, variant,
            replace(
                encoder.settings(common), detector=detector, seed=seed, **loss, **variant
            ).sized(),
            are_found and bool(variant or fault),
            fault,
        )
        for variant in variants for seed in kept
    ]  # fmt: skip
