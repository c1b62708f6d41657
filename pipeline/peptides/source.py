"""A file's peptides with their class: each sequence once, and what could not be used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from pipeline.encoding.plan import EncodingPlan, check_inputs, open_run
from pipeline.encoding.stored_features import encode_molecules
from pipeline.generation.class_rows import told_as
from pipeline.molecules.kinds import Kind
from pipeline.molecules.rejected import REJECTED
from pipeline.peptides.settings import GeneratePeptidesSettings
from pipeline.runtime.errors import InputError
from pipeline.runtime.text import some
from pipeline.store.keyed_table import KeyedTable

ONE_CLASS = "peptide"  # its name where no column has a class
MOST_CLASSES = 100
PRECISION = "float16"  # of the latents in the store


@dataclass(frozen=True)
class PeptideSource:
    """Peptides that can be used, each once.

    Attributes
    ----------
    sequences, keys : n of them, and what stands for each in the store.
    classes : (n,) the number of each one's class in `names`.
    residues : the store's table of residues' latents.
    rejected : of `REJECTED`.
    rows_in : that the file holds.
    notes : what reading guessed.
    latents : what makes them, for reports.
    """

    sequences: Sequence[str]
    keys: Sequence[str]
    classes: np.ndarray
    names: tuple[str, ...]
    residues: KeyedTable
    rejected: pa.Table
    kind: Kind
    rows_in: int
    notes: Sequence[str]
    latents: str


def read_source(settings: GeneratePeptidesSettings) -> tuple[EncodingPlan, PeptideSource]:
    """Read a file's peptides, and make sure that the store has the latents of their residues.

    Raises
    ------
    InputError
        If the file or a setting cannot be used, or a class that was asked for is not there.
    """
    if settings.split_column is not None:
        raise InputError("--split_column: all rows are learned from; leave it out")
    if settings.domain_column is not None:
        raise InputError("--domain_column: --class_column names the classes here; leave it out")
    settings = replace(settings, domain_column=settings.class_column)
    with told_as("--class_column"):
        notes = check_inputs(settings)
    plan, source = open_run(settings, notes)
    plan = plan.with_residues(PRECISION)
    table = source.molecules
    if settings.class_column is None:
        one = pa.array([ONE_CLASS] * table.num_rows, pa.string())
        table = table.set_column(table.column_names.index("domain"), "domain", one)
    table, rejected = different(table)
    names = tuple(sorted(set(table["domain"].to_pylist())))
    _check_classes(names, settings)
    source = replace(source, rejected=pa.concat_tables([source.rejected, rejected]))
    encoded = encode_molecules(table, source, plan)
    number = {name: place for place, name in enumerate(names)}
    label, kept = encoded.result.label, encoded.molecules
    return plan, PeptideSource(
        kept["smiles"].to_pylist(),
        kept["key"].to_pylist(),
        np.array([number[name] for name in kept["domain"].to_pylist()], np.int64),
        names,
        encoded.result.residues,
        encoded.rejected,
        source.kind,
        source.rows,
        source.notes,
        f"{label['encoder']} (weights: {label['weights']})",
    )


def different(table: pa.Table) -> tuple[pa.Table, pa.Table]:
    """The first row of each sequence that has a class and but one, and the rejections of others.

    Parameters
    ----------
    table : `id`, `key`, `smiles` (the sequence), `domain` (the class).
    """
    rows = list(zip(*(table[name].to_pylist() for name in ("id", "key", "domain"))))
    classes: dict[str, set[str]] = {}
    first: dict[str, str] = {}
    for row_id, key, name in rows:
        if name is not None:
            classes.setdefault(key, set()).add(name)
            first.setdefault(key, row_id)
    reasons = []
    for row_id, key, name in rows:
        of = sorted(classes.get(key, ()))
        if name is None:
            reasons.append(("class", "it has no class"))
        elif len(of) > 1:
            reasons.append(("class", f"rows with its sequence are of several classes: {some(of)}"))
        elif first[key] != row_id:
            reasons.append(("duplicate", f"duplicate: of {first[key]}"))
        else:
            reasons.append(None)
    bad = [reason is not None for reason in reasons]
    named = table.filter(pa.array(bad, pa.bool_())).select(["id", "smiles"])
    stages, texts = zip(*filter(None, reasons)) if any(bad) else ((), ())
    columns = [named["id"], named["smiles"], pa.array(stages, pa.string()),
               pa.array(texts, pa.string())]  # fmt: skip
    return (
        table.filter(pa.array([not each for each in bad], pa.bool_())),
        pa.table(columns, schema=REJECTED),
    )


def _check_classes(names: Sequence[str], settings: GeneratePeptidesSettings) -> None:
    if not names:
        raise InputError(f"{settings.data_file}: no peptide has a class")
    if len(names) > MOST_CLASSES:
        raise InputError(
            f"--class_column {settings.class_column}: it has {len(names):,} values, at most "
            f"{MOST_CLASSES} are taken for classes"
        )
    broken = [name for name in names if len(name.splitlines()) != 1]
    if broken:
        raise InputError(
            f"--class_column {settings.class_column}: the class {broken[0]!r} is no single line, "
            "which a FASTA header must be; rename it"
        )
    unknown = sorted(set(settings.classes or ()) - set(names))
    if unknown:
        raise InputError(f"--classes {unknown[0]}: there is none of that name, but {some(names)}")
