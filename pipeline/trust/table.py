"""A user's table of predictions and measured values, read for jobs.trust."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np

from pipeline.molecules.features.fingerprints import packed_fingerprints
from pipeline.molecules.features.neighbours import nearest
from pipeline.molecules.folders import data_files, of_file
from pipeline.molecules.formats import check_files, opened, read_rows
from pipeline.molecules.parsers import parser_of
from pipeline.molecules.reading.columns import named
from pipeline.molecules.rejected import check_any_left
from pipeline.molecules.settings import LibrarySettings, SourceSettings
from pipeline.molecules.sources import REJECTED, parse_block
from pipeline.runtime.errors import InputError
from pipeline.trust.settings import TrustSettings

LEAST = 20  # rows, of which a fifth are the worst
NEIGHBOURS, IN_DOMAIN = 5, 0.4  # similarity to the training set from which on a row is in domain
NEAREST, MEAN = "Tanimoto distance, nearest", f"Tanimoto distance, mean of {NEIGHBOURS}"


@dataclass(frozen=True)
class Predictions:
    """The n rows that can be judged.

    Attributes
    ----------
    prediction, label : (n,).
    scores : (n,) each, by name; higher means less trust.
    bounds : lower and upper (n,), if the table has them.
    in_domain : bool (n,); None where nothing tells.
    domain_by : how that was told, in words.
    rows : in the table.
    left_out : how many rows are not judged, by reason.
    notes : what was guessed, or should be known.
    """

    prediction: np.ndarray
    label: np.ndarray
    scores: dict[str, np.ndarray]
    bounds: tuple[np.ndarray, np.ndarray] | None
    in_domain: np.ndarray | None
    domain_by: str | None
    rows: int
    left_out: dict[str, int]
    notes: list[str]


def read_predictions(settings: TrustSettings) -> Predictions:
    """Read the table, and measure likeness to the training set if there is one.

    Raises
    ------
    InputError
        If a file or column is missing or cannot be read, a name stands for two scores, or fewer
        than `LEAST` rows can be judged.
    """
    asked = _asked(settings)
    source = _source(settings, settings.data_file)
    notes = check_files(source)
    here = {n: each for n, each in asked.items() if n != "label" or settings.label_file is None}
    columns = {name: _numbers(source, column, flag) for name, (flag, column) in here.items()}
    rows = read_rows(source)
    parser = parser_of(source)
    parsed = parse_block(rows, parser)
    if settings.label_file is not None:
        columns["label"], told = _labels(settings, parsed["smiles"].to_pylist())
        notes = [*notes, *told]
    bad = parsed.filter(parsed["reason"].is_valid()).select(REJECTED.names)
    check_any_left(bad, parsed.num_rows, settings.data_file, parser.kind)
    left_out, keep = {}, np.ones(parsed.num_rows, bool)
    reasons = {"no molecule": ~parsed["reason"].is_null().to_numpy(zero_copy_only=False)}
    reasons |= {f"no {name}": ~np.isfinite(values) for name, values in columns.items()}
    for reason, lacks in reasons.items():
        if np.any(lacks & keep):
            left_out[reason] = int(np.sum(lacks & keep))
        keep &= ~lacks
    if keep.sum() < LEAST:
        told = ", ".join(f"{count:,} have {reason}" for reason, count in left_out.items())
        raise InputError(
            f"{settings.data_file}: {keep.sum():,} of {len(keep):,} rows can be judged"
            f"{f' ({told})' if told else ''}, at least {LEAST} are needed"
        )
    columns = {name: values[keep] for name, values in columns.items()}
    smiles = [text for text, kept in zip(parsed["smiles"].to_pylist(), keep) if kept]
    splits = [text for text, kept in zip(parsed["split"].to_pylist(), keep) if kept]
    prediction, label = columns.pop("prediction"), columns.pop("label")
    bounds = (columns.pop("lower"), columns.pop("upper")) if "lower" in columns else None
    scores, similarity = columns, None
    if settings.id_file:
        distances, similarity, found = _likeness(settings, smiles)
        scores = {**columns, **distances}
        notes = [*notes, *found]
    in_domain, by = _domains(settings, splits, similarity)
    return Predictions(prediction, label, scores, bounds, in_domain, by, len(keep), left_out, notes)


def _asked(settings: TrustSettings) -> dict[str, tuple[str, str]]:
    """The flag and the column of each series of numbers, by its name in the results."""
    if (settings.lower_column is None) != (settings.upper_column is None):
        raise InputError("--lower_column and --upper_column go together")
    if settings.structures == "file":
        raise InputError("--structures file: no coordinates are looked at; leave it out")
    asked = {name: (f"--{name}_column", getattr(settings, f"{name}_column"))
             for name in ("prediction", "label", "lower", "upper")}  # fmt: skip
    asked = {name: each for name, each in asked.items() if each[1] is not None}
    if settings.spread_column is not None:
        asked["spread"] = ("--spread_column", settings.spread_column)
    for column in settings.score_columns:
        if column in asked or column in (NEAREST, MEAN, "random", "oracle"):
            raise InputError(f"--score_columns {column}: the name is taken; rename the column")
        asked[column] = ("--score_columns", column)
    return asked


def _source(settings: TrustSettings, file: str) -> SourceSettings:
    own = {f.name: getattr(settings, f.name) for f in fields(LibrarySettings)}
    return of_file(SourceSettings(**own, split_column=settings.split_column), file)


def _numbers(source: SourceSettings, column: str, flag: str) -> np.ndarray:
    """A column of the table, float64 (rows,); NaN in empty cells."""
    content, _, _ = opened(data_files(source.data_file)[0], source)
    if named(column, content.columns) is None:
        raise InputError(
            f"{source.data_file}: there is no column {column!r}; it has "
            f"{', '.join(map(str, content.columns))}. Set {flag}"
        )
    rows = read_rows(replace(source, label_column=column))
    return np.array(rows["label"].to_numpy(zero_copy_only=False), float)


def _labels(settings: TrustSettings, smiles: list[str | None]) -> tuple[np.ndarray, list[str]]:
    """Measured values (n,) of molecules, by --label_file, NaN where it has none; and notes."""
    source = replace(_source(settings, settings.label_file), id_column=None, split_column=None)
    notes = check_files(source)
    values = _numbers(source, settings.label_column, "--label_column")
    parsed = parse_block(read_rows(source), parser_of(source))
    known: dict[str, float] = {}
    differ = 0
    for molecule, reason, value in zip(
        parsed["smiles"].to_pylist(), parsed["reason"].to_pylist(), values
    ):
        if reason is None and np.isfinite(value):
            differ += known.setdefault(molecule, value) != value
    if differ:
        notes.append(
            f"{differ:,} rows of --label_file give a molecule another value; the first counts"
        )
    return np.array([known.get(molecule, np.nan) for molecule in smiles]), notes


def _likeness(
    settings: TrustSettings, smiles: list[str]
) -> tuple[dict[str, np.ndarray], np.ndarray, list[str]]:
    """Distances to the training set, similarity to its nearest molecule (n,), and notes."""
    source = replace(_source(settings, settings.id_file), id_column=None, split_column=None)
    notes = check_files(source)
    parser = parser_of(source)
    parsed = parse_block(read_rows(source), parser)
    bad = parsed.filter(parsed["reason"].is_valid()).select(REJECTED.names)
    check_any_left(bad, parsed.num_rows, settings.id_file, parser.kind)
    known = parsed.filter(parsed["reason"].is_null())["smiles"].to_pylist()
    if bad.num_rows:
        notes.append(f"{bad.num_rows:,} rows of --id_file are no molecules and left out")
    inside = len(set(smiles) & set(known))
    if inside:
        notes.append(
            f"{inside:,} molecules of the table are in --id_file: errors on molecules of the "
            "training say nothing of new ones, unless their predictions are out-of-fold"
        )
    prints = [packed_fingerprints(each, parser.kind) for each in (smiles, sorted(set(known)))]
    found = nearest(*prints, NEIGHBOURS)
    similarity = found.similarity.astype(float)
    distances = {NEAREST: 1 - similarity[:, 0], MEAN: 1 - similarity.mean(axis=1)}
    return distances, similarity[:, 0], notes


def _domains(
    settings: TrustSettings, splits: list[str | None], similarity: np.ndarray | None
) -> tuple[np.ndarray | None, str | None]:
    """Which rows are in domain, and how that was told."""
    if settings.split_column is not None:
        missing = sum(split is None for split in splits)
        if missing:
            raise InputError(
                f"{settings.data_file}: {missing:,} rows have no split in column "
                f"{settings.split_column!r}; write iid_test or ood_test, or leave the flag out"
            )
        return np.array([not split.startswith("ood") for split in splits]), (
            f"column {settings.split_column!r}"
        )
    if similarity is None:
        return None, None
    return similarity >= IN_DOMAIN, (
        f"Tanimoto similarity of at least {IN_DOMAIN:g} to a molecule of --id_file"
    )
