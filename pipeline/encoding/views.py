"""Several encoders' features of the same molecules, side by side: what `--views` asks for.

Each view is encoded and stored as if it were asked for alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.encoders import ENCODERS, SIZED, encoder_class
from pipeline.encoding.in_store.tables import Tables
from pipeline.encoding.plan import EncodingPlan, check_kind, check_structures, plan_encoding
from pipeline.encoding.settings import EncodedSourceSettings
from pipeline.encoding.stored_features import Encoded, EncodeResult, encode_molecules
from pipeline.molecules.formats import check_files, read_rows
from pipeline.molecules.reading.raw_rows import STRUCTURES
from pipeline.molecules.sources import Molecules, parse_rows
from pipeline.runtime.errors import InputError

S = TypeVar("S", bound=EncodedSourceSettings)

DISTANCES = "distances"  # the view that no encoder makes: how far the training molecules are
Plans = dict[str, EncodingPlan[S]]


def view_names(views: str | None, foundation_model: str) -> tuple[str, ...]:
    """The views that the flags name, in the order given; `--foundation_model X` is `--views X`.

    Raises
    ------
    InputError
        If a name is unknown or repeats, or no encoder is among them.
    """
    if views is None:
        return (foundation_model,)
    names = tuple(name.strip() for name in views.split(","))
    known = [*ENCODERS, DISTANCES]
    for name in names:
        if name not in known:
            raise InputError(f"--views: no view is called {name!r}; there are: {', '.join(known)}")
        if names.count(name) > 1:
            raise InputError(f"--views: {name} is named twice")
    if not encoders_of(names):
        raise InputError(
            f"--views {views}: distances are between features, so name an encoder beside it, such "
            f"as --views ecfp,{DISTANCES}"
        )
    return names


def encoders_of(views: Sequence[str]) -> tuple[str, ...]:
    """The views that encoders make."""
    return tuple(name for name in views if name != DISTANCES)


def heaviest(views: Sequence[str]) -> str:
    """The view whose encoder costs most: one with conformers, of sizes, else one with torch."""

    def weight(name: str) -> tuple[bool, bool, bool]:
        encoder = encoder_class(name)
        return encoder.needs_conformers, name in SIZED, encoder.uses_torch

    return max(encoders_of(views), key=weight)


def settings_of_view(settings: S, name: str) -> S:
    """The settings that the encoder of a view would have alone.

    Weights and what belongs to them are Uni-Mol's; where it is no view, Uni-Mol2's; and ESM-2's.
    """
    named = {view.strip() for view in (getattr(settings, "views", None) or name).split(",")}
    others: dict[str, Any] = {}
    if name == "unimol2" and "unimol" in named:
        others = {"weights": None, "finetuned": None, "token_order": "auto"}
    elif name not in ("unimol", "unimol2", "esm"):
        others = {"weights": None, "finetuned": None}
    if name not in SIZED and named & set(SIZED):
        others["model_size"] = None
    return replace(settings, foundation_model=name, **others)


def check_views(settings: EncodedSourceSettings, views: Sequence[str]) -> list[str]:
    """As `pipeline.encoding.plan.check_inputs`, for every view."""
    notes = check_files(settings)
    check_encoders(settings, views)
    return notes


def check_encoders(settings: EncodedSourceSettings, views: Sequence[str]) -> None:
    """Tell an encoder that cannot be had, or structures that none takes, before any work.

    Raises
    ------
    InputError
        That names the flag to mend.
    """
    names = encoders_of(views)
    check_kind(settings, names)
    tables = [Tables.of(settings_of_view(settings, name)) for name in names]
    if settings.structures == "file" and all(table.conformers is None for table in tables):
        told = f"{' and '.join(names)} take{'s' if len(names) == 1 else ''} no 3D structures"
        raise InputError(f"--structures file: {told}; leave it out")
    for table in tables:
        if table.conformers is not None:
            check_structures(settings.structures, table)


def plan_views(settings: S, views: Sequence[str]) -> Plans[S]:
    """The plan of each encoder; errors as `plan_encoding`."""
    return {name: plan_encoding(settings_of_view(settings, name)) for name in encoders_of(views)}


def decided(settings: S, plans: Plans[S]) -> tuple[S, str]:
    """The settings with the precision decided, if an encoder has one, and the device."""
    precisions = {plan.settings.precision for plan in plans.values()} - {"auto"}
    precision = precisions.pop() if precisions else settings.precision
    return replace(settings, precision=precision), next(iter(plans.values())).device


def open_views(
    settings: S, views: Sequence[str], notes: Sequence[str] = ()
) -> tuple[Plans[S], Molecules]:
    """As `pipeline.encoding.plan.open_run`, for every view."""
    rows = read_rows(settings)
    plans = plan_views(settings, views)
    return plans, replace(parse_rows(rows, settings), notes=notes)


@dataclass(frozen=True)
class EncodedViews(Encoded):
    """As `Encoded`, of molecules that have all views; `result` speaks for all of them.

    Attributes
    ----------
    results : what encoding did for each view.
    """

    results: Mapping[str, EncodeResult]

    def blocks(self, keys: Sequence[str]) -> dict[str, np.ndarray]:
        """Each view's features (n, width) of molecules."""
        return {view: made.features.read_features(keys) for view, made in self.results.items()}


def encode_views(molecules: pa.Table, source: Molecules, plans: Plans) -> EncodedViews:
    """Encode molecules for every view; those that one view lacks are rejected, with its reason."""
    encoded: dict[str, Encoded] = {}
    for name, plan in plans.items():
        given = [column for column in STRUCTURES.names if column in molecules.column_names]
        takes = plan.tables.conformers is not None
        encoded[name] = encode_molecules(
            molecules if takes else molecules.drop_columns(given), source, plan
        )
        left = pc.is_in(molecules["key"], encoded[name].molecules["key"].combine_chunks())
        molecules = molecules.filter(left)
        source = replace(source, rejected=encoded[name].rejected)
    # The last view has dropped what it and those before it lack; a structure is told by the one
    # that needs conformers.
    last = list(encoded.values())[-1]
    told = next((e for n, e in encoded.items() if plans[n].tables.conformers is not None), last)
    kept = told.molecules.filter(
        pc.is_in(told.molecules["key"], last.molecules["key"].combine_chunks())
    )
    results = {name: each.result for name, each in encoded.items()}
    return EncodedViews(kept, last.rejected, together(results), results)


def together(results: Mapping[str, EncodeResult]) -> EncodeResult:
    """What encoding did for all views, as one result; `features` is the first view's table."""
    every = list(results.values())
    if len(every) == 1:
        return every[0]
    seconds = sum(made.seconds for made in every)
    encoded = max(made.encoded for made in every)
    return replace(
        max(every, key=lambda made: made.seconds),
        features=every[0].features,
        rejected=pa.concat_tables([made.rejected for made in every]),
        known=min(made.known for made in every),
        encoded=encoded,
        seconds=seconds,
        rate=encoded / seconds if seconds else 0.0,
        peak_gpu_memory_gb=max(made.peak_gpu_memory_gb for made in every),
        peak_resident_memory_gb=max(made.peak_resident_memory_gb for made in every),
        identity=identity_of({name: made.identity for name, made in results.items()}),
        conformers=next((made.conformers for made in every if made.conformers), None),
    )


def identity_of(identities: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """What decides the features of all views; of a single one what decides its own."""
    if len(identities) == 1:
        return next(iter(identities.values()))
    return {
        "encoder": "+".join(identities),
        "weights": "; ".join(dict.fromkeys(made["weights"] for made in identities.values())),
        "views": dict(identities),
    }
