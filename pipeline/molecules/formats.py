"""Reading data files piece by piece as written, whatever their format."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from functools import partial
from itertools import islice

import fsspec
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.molecules.folders import (
    FASTAS,
    JSON_LINES,
    SDFS,
    SMILES_FILES,
    DataFile,
    check_flags,
    data_files,
    files_and_skipped,
)
from pipeline.molecules.reading.columns import (
    chosen_columns,
    smiles_of_header,
    smiles_place,
)
from pipeline.molecules.reading.content import PIECE_ROWS, STRUCTURE_COLUMNS, Content
from pipeline.molecules.reading.raw_rows import raw_piece
from pipeline.molecules.reading.records import PLACE
from pipeline.molecules.reading.text import told
from pipeline.molecules.settings import LibrarySettings
from pipeline.runtime.errors import InputError
from pipeline.runtime.text import some

log = logging.getLogger(__name__)

HEADS = 100  # files of a folder whose heads are looked at before any work is done
SHOWN = 3  # ids in a message


def check_files(settings: LibrarySettings) -> list[str]:
    """Look at the data files' heads, and tell what is wrong or guessed before any work is done.

    Also tells a folder that cannot be written to.

    Returns
    -------
    list
        What was guessed, in words.

    Raises
    ------
    InputError
        That names the file, and the flag to mend.
    """
    check_flags(settings)
    if settings.structures == "file" and settings.fragments == "largest":
        raise InputError("--structures file has coordinates of all fragments: --fragments keep")
    notes = notes_of(settings)
    for note in notes:
        log.warning("%s: %s", settings.data_file, note)
    for flag in ("cache_root", "output_dir"):
        folder = getattr(settings, flag, None)
        if folder is None:
            continue
        try:
            fs, path = fsspec.url_to_fs(folder)
            fs.makedirs(path, exist_ok=True)
        except Exception as error:  # each filesystem has errors of its own
            raise InputError(f"--{flag} {folder}: cannot be written to: {error}") from None
    return notes


def notes_of(settings: LibrarySettings) -> list[str]:
    """What reading the data files has to guess, in words, from their heads."""
    files, skipped = files_and_skipped(settings.data_file, settings.sequence_column)
    counts: Counter[str] = Counter()
    for file in files[:HEADS]:
        content, chosen, notes = opened(file, settings)
        with told(file.uri):
            for piece in islice(content.pieces(_wanted(chosen, settings)), 1):
                raw_piece(piece, chosen, file.uri)
        counts.update(notes)
    several = len(files) > 1
    notes = [f"{note} ({count} files)" if several else note for note, count in counts.items()]
    if skipped:
        notes.append(f"skipped {len(skipped):,} files of no known format: {some(skipped)}")
    if len(files) > HEADS:
        notes.append(f"only the first {HEADS} of {len(files):,} files were looked at beforehand")
    return notes


def opened(
    file: DataFile, settings: LibrarySettings
) -> tuple[Content, dict[str, str], list[str]]:  # fmt: skip
    """A file's content, the column that each of RAW's is read from, and what was guessed.

    Raises
    ------
    InputError
        If it is unreadable, or lacks a column.
    """
    with told(file.uri):
        content = _content(file, settings)
        chosen, notes = chosen_columns(settings, content, file.uri)
        if settings.structures == "file" and not content.has_structures:
            raise InputError(f"{file.uri}: --structures file needs an SDF; this is {content.kind}")
    return content, chosen, [*content.notes, *notes]


def read_rows(settings: LibrarySettings) -> pa.Table:
    """The rows of all data files as written, in the schema RAW.

    Raises
    ------
    InputError
        If the file is missing, empty, unreadable, of an unknown format, or lacks a column; if ids
        of a column that was named repeat or are empty, or a split has an unknown name.
    """
    files = data_files(settings.data_file, settings.sequence_column)
    named = settings.id_column is not None
    pieces = [
        piece
        for file in files
        for piece in stream_rows(file, settings, PIECE_ROWS, made_ids=not named)
    ]
    if not pieces:
        raise InputError(f"{settings.data_file}: the file has no rows")
    rows = pa.concat_tables(pieces)
    if named:
        _check_ids(rows, settings)
    return rows if named else _with_unique_ids(rows, settings)


def stream_rows(
    file: DataFile, settings: LibrarySettings, most: int, made_ids: bool = True
) -> Iterator[pa.Table]:
    """A file's rows as written, in the schema RAW: tables of `most` rows, the last of the rest.

    Rows keep their order and their number, which is in their id if the file gives none.

    Parameters
    ----------
    made_ids : give rows that have no id one; false leaves it null, but for malformed rows.

    Raises
    ------
    InputError
        If the file is unreadable, lacks a column, or names an unknown split.
    """
    content, chosen, _ = opened(file, settings)
    left, ids = None, Ids(file, given=chosen.get("id", PLACE) != PLACE)
    with told(file.uri):
        for piece in content.pieces(_wanted(chosen, settings)):
            rows = ids.named(raw_piece(piece, chosen, file.uri), made_ids)
            left = rows if left is None else pa.concat_tables([left, rows])
            while left.num_rows >= most:
                yield left.slice(0, most)
                left = left.slice(most)
        if left is not None and left.num_rows:
            yield left


def _wanted(chosen: dict[str, str], settings: LibrarySettings) -> list[str]:
    structures = STRUCTURE_COLUMNS if settings.structures == "file" else ()
    return list(dict.fromkeys([*chosen.values(), *structures]))


class Ids:
    """The ids of a file's rows, as they are read from its first row on.

    A row without an id gets the file's name and its number; beside ids that the file gives, a #
    follows, and a row that gives an id of that form is rejected: so no two are the same.
    """

    def __init__(self, file: DataFile, given: bool):
        self.stem, self.start, self.end = file.stem, 0, "#" if given else ""
        self.form = f"^{_quoted(file.stem)}:[0-9]+#$"

    def named(self, rows: pa.Table, all_rows: bool) -> pa.Table:
        """The next rows, with ids.

        Parameters
        ----------
        all_rows : name all rows without an id, not only those that are malformed.
        """
        start, self.start = self.start, self.start + rows.num_rows
        if self.end:
            rows = _without_made_up(rows, self.form)
        given = rows["id"]
        lacks = given.is_null() if all_rows else pc.and_(given.is_null(), rows["reason"].is_valid())
        if not pc.any(lacks).as_py():
            return rows
        names = [f"{self.stem}:{start + i}{self.end}" for i in range(rows.num_rows)]
        return _put(rows, "id", pc.if_else(lacks, pa.array(names, pa.string()), given))


def _without_made_up(rows: pa.Table, form: str) -> pa.Table:
    """Reject rows whose id looks like one that is made here; they get one."""
    alike = pc.match_substring_regex(rows["id"], form).fill_null(False)
    if not pc.any(alike).as_py():
        return rows
    why = "its id has the form of those that rows without one get"
    rows = _put(rows, "reason", pc.if_else(alike, why, rows["reason"]))
    rows = _put(rows, "stage", pc.if_else(alike, "read", rows["stage"]))
    return _put(rows, "id", pc.if_else(alike, pa.scalar(None, pa.string()), rows["id"]))


def _put(rows: pa.Table, name: str, column: pa.ChunkedArray) -> pa.Table:
    return rows.set_column(rows.column_names.index(name), name, column)


def _quoted(text: str) -> str:
    """A text as a pattern of Arrow's that matches it alone."""
    return "".join(sign if sign.isalnum() else f"\\x{{{ord(sign):x}}}" for sign in text)


def _content(file: DataFile, settings: LibrarySettings) -> Content:
    """Open a file; the readers come in only when they are needed."""
    if file.format == ".parquet":
        from pipeline.molecules.reading.columnar import open_parquet

        return open_parquet(file.uri)
    if file.format in SDFS:
        from pipeline.molecules.reading.sdf import open_sdf

        return open_sdf(file.uri)
    if file.format in FASTAS:
        from pipeline.molecules.reading.fasta import open_fasta

        return open_fasta(file.uri)
    if file.format == ".json" or file.format in JSON_LINES:
        from pipeline.molecules.reading.records import open_json, open_json_lines

        by_line = file.format in JSON_LINES
        return open_json_lines(file.uri) if by_line else open_json(file.uri, file.stem)
    from pipeline.molecules.reading.delimited import open_delimited
    from pipeline.molecules.reading.smiles_lines import open_smiles

    smiles_of = partial(smiles_of_header, settings=settings)
    if file.format not in SMILES_FILES:
        usual = "\t" if file.format == ".tsv" else ","
        place_of = partial(smiles_place, settings=settings)
        table = open_delimited(file.uri, usual, smiles_of, place_of)
        is_list = file.format == ".txt" and len(table.columns) == 1
        if not is_list or settings.sequence_column is not None:
            return table
    return open_smiles(file.uri, smiles_of)


def _check_ids(rows: pa.Table, settings: LibrarySettings) -> None:
    where = f"{settings.data_file}: id column {settings.id_column!r}"
    if rows["id"].null_count:
        raise InputError(f"{where} has {rows['id'].null_count} empty ids")
    repeated = _repeated(rows["id"])
    if repeated:
        raise InputError(
            f"{where} is not unique: {len(repeated)} ids repeat, the first: "
            f"{', '.join(repeated[:SHOWN])}"
        )


def _repeated(ids: pa.ChunkedArray) -> list[str]:
    counts = ids.value_counts()
    return counts.filter(pc.greater(counts.field("counts"), 1)).field("values").to_pylist()


def _with_unique_ids(rows: pa.Table, settings: LibrarySettings) -> pa.Table:
    """Names that a file gives unasked need not be unique: the second is called `name#2`."""
    repeated = set(_repeated(rows["id"]))
    if not repeated:
        return rows
    log.warning(
        "%s: %s names of molecules repeat, the first: %s; the second of each is called NAME#2, "
        "and so on", settings.data_file, f"{len(repeated):,}", sorted(repeated)[0],
    )  # fmt: skip
    ids = rows["id"].to_pylist()
    taken, seen = set(ids), Counter()
    for place, name in enumerate(ids):
        if name not in repeated:
            continue
        seen[name] += 1
        while seen[name] > 1 and f"{name}#{seen[name]}" in taken:
            seen[name] += 1
        if seen[name] > 1:
            ids[place] = f"{name}#{seen[name]}"
    return _put(rows, "id", pa.array(ids, pa.string()))
