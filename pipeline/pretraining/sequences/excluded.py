"""Sequences that a pretraining must not see, such as those of test sets."""

from __future__ import annotations

import logging

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.molecules.folders import FASTAS, format_of
from pipeline.molecules.formats import read_rows
from pipeline.molecules.rejected import REJECTED
from pipeline.molecules.sequences import canonical_sequence, sequence_key
from pipeline.molecules.settings import LibrarySettings
from pipeline.pretraining.settings import PretrainSettings
from pipeline.runtime.errors import InputError, RowRejected

log = logging.getLogger(__name__)

ANY_LENGTH = 10**9


def without_excluded(molecules: pa.Table, settings: PretrainSettings) -> tuple[pa.Table, pa.Table]:
    """The rows that --exclude_file does not name, and the others as REJECTED.

    Parameters
    ----------
    molecules : with `id`, `key` and `smiles`, the sequence.

    Raises
    ------
    InputError
        If the file cannot be read, or names ids of which the data has none.
    """
    if settings.exclude_file is None:
        return molecules, REJECTED.empty_table()
    by, values = _listed(settings)
    named = pc.is_in(molecules[by], pa.array(sorted(values), pa.string()))
    excluded = molecules.filter(named).select(["id", "smiles"])
    log.info(
        "%s: %s of %s %ss exclude %s rows of %s", settings.exclude_file,
        f"{pc.count_distinct(molecules[by].filter(named)).as_py():,}", f"{len(values):,}",
        "sequence" if by == "key" else by, f"{excluded.num_rows:,}", settings.data_file,
    )  # fmt: skip
    if by == "id" and not excluded.num_rows:
        raise InputError(
            f"--exclude_file {settings.exclude_file}: none of its {len(values):,} ids is one of "
            f"{settings.data_file}, such as {molecules['id'][0].as_py()!r}"
        )
    for name, text in (("stage", "exclude"), ("reason", "is in --exclude_file")):
        excluded = excluded.append_column(name, pa.array([text] * excluded.num_rows, pa.string()))
    return molecules.filter(pc.invert(named)), excluded


def _listed(settings: PretrainSettings) -> tuple[str, set[str]]:
    """Column of the molecules that the file names values of, and the values."""
    file = settings.exclude_file
    if format_of(file) not in FASTAS and settings.sequence_column is None:
        column = settings.id_column or "id"
        texts = read_rows(LibrarySettings(data_file=file, smiles_column=column))["smiles"]
        return "id", {text.strip() for text in texts.to_pylist() if text}
    rows = read_rows(LibrarySettings(data_file=file, sequence_column=settings.sequence_column))
    keys, unreadable = set(), 0
    for text in rows["smiles"].to_pylist():
        try:
            sequence = canonical_sequence(
                text, residues="extended", min_length=1, max_length=ANY_LENGTH
            )
            keys.add(sequence_key(sequence))
        except RowRejected:
            unreadable += 1
    if unreadable:
        log.warning("%s: %s rows are no sequences and exclude nothing", file, f"{unreadable:,}")
    return "key", keys
