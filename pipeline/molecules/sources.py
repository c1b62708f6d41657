"""Files to molecules: every row parsed, identified, and kept with its reason if it is none.

A row keeps its id from here to the scores. What cannot be a molecule goes to `rejected` with
the reason; nothing is dropped.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray.data

from pipeline.molecules.folders import DataFile
from pipeline.molecules.formats import stream_rows
from pipeline.molecules.kinds import SMILES, Kind
from pipeline.molecules.parsers import Parsed, Parser, parsed_or_rejected, parser_of
from pipeline.molecules.reading.raw_rows import STRUCTURES
from pipeline.molecules.rejected import REJECTED, check_any_left, warn_if_many
from pipeline.molecules.settings import LibrarySettings, SourceSettings
from pipeline.runtime.errors import RowRejected

log = logging.getLogger(__name__)

MOLECULES = pa.schema(
    [("id", pa.string()), ("key", pa.string()), ("smiles", pa.string()), ("split", pa.string()),
     ("label", pa.float64()), ("domain", pa.string())]
)  # fmt: skip
FINGERPRINT = "fingerprint"  # the column of packed ones
BLOCK_ROWS = 4000
FIRST_ROWS = 1000


@dataclass(frozen=True)
class Molecules:
    """What a source holds: every input row is in exactly one of the two tables.

    Attributes
    ----------
    molecules : `id`, `key`, canonical `smiles`, `split`, `label`, `domain`; with --structures
        file, STRUCTURES besides.
    rejected : `id`, `smiles` as written, `stage`, `reason`.
    rows : input rows, as they were read.
    fragments_removed : rows of which only the largest fragment was kept (--fragments largest).
    notes : what reading the file had to guess.
    kind : what the molecules are; a sequence is in the column `smiles` too.
    tidied : rows whose writing was put right, by what was: "lower case", "final stop", "blanks".
    """

    molecules: pa.Table
    rejected: pa.Table
    rows: int
    fragments_removed: int = 0
    notes: Sequence[str] = ()
    kind: Kind = SMILES
    tidied: Mapping[str, int] = field(default_factory=dict)


def parse_rows(raw: pa.Table, settings: SourceSettings) -> Molecules:
    """Parse and identify every row of a data file, as `read_rows` has read it.

    They are parsed on all cores of the cluster. Within a split, a molecule's second row is
    rejected as a duplicate; across splits see `pipeline.molecules.roles.check_overlap`.

    Raises
    ------
    InputError
        If no row is a molecule.
    """
    parser = parser_of(settings)
    kind = parser.kind
    parsed = _parse(raw, parser)
    removed = pc.sum(parsed["fragments_removed"]).as_py() or 0
    good = parsed["reason"].is_null()
    molecules = parsed.filter(good)
    rejected = parsed.filter(pc.invert(good)).select(REJECTED.names)
    check_any_left(rejected, raw.num_rows, settings.data_file, kind)
    warn_if_many(Counter(rejected["reason"].to_pylist()), raw.num_rows, settings.data_file)
    molecules, duplicates = _drop_duplicates(molecules)
    rejected = pa.concat_tables([rejected, duplicates])
    names = [*MOLECULES.names, *(n for n in STRUCTURES.names if n in molecules.column_names)]
    result = Molecules(
        molecules.select(names), rejected, raw.num_rows, removed,
        kind=kind, tidied=tidied_counts(parsed),
    )  # fmt: skip
    if molecules.num_rows + rejected.num_rows != raw.num_rows:
        raise RuntimeError(
            f"{raw.num_rows} rows were read, {molecules.num_rows} are molecules and "
            f"{rejected.num_rows} rejected; this is a fault of MolSieve, please report it"
        )
    log.info(
        "%s: %s rows, %s %s, %s rejected (%s duplicates within a split)",
        settings.data_file, f"{result.rows:,}", f"{result.molecules.num_rows:,}", kind.many,
        f"{result.rejected.num_rows:,}", f"{duplicates.num_rows:,}",
    )  # fmt: skip
    if removed:
        log.info(
            "%s: of %s molecules only the largest fragment is kept (--fragments largest)",
            settings.data_file, f"{removed:,}",
        )  # fmt: skip
    if result.tidied:
        log.info("%s: %s", settings.data_file, tidied_line(result.tidied))
    return result


def check_first_rows(file: DataFile, settings: LibrarySettings) -> pa.Table | None:
    """Stop where none of a file's first rows is a molecule, before anything is waited for.

    Returns
    -------
    table
        Its first `FIRST_ROWS` rows as of `parse_block`; None if it has none.

    Raises
    ------
    InputError
        With the first row and the likely cause.
    """
    rows = next(stream_rows(file, settings, FIRST_ROWS), None)
    if rows is None:
        return None
    parser = parser_of(settings)
    parsed = parse_block(rows, parser)
    bad = parsed.filter(parsed["reason"].is_valid()).select(REJECTED.names)
    which = f", its first {FIRST_ROWS:,} rows" if rows.num_rows == FIRST_ROWS else ""
    check_any_left(bad, rows.num_rows, f"{file.uri}{which}", parser.kind)
    return parsed


def tidied_counts(parsed: pa.Table) -> Counter[str]:
    """Rows of `parse_block` whose writing was put right, by what was."""
    every = parsed["tidied"].drop_null().to_pylist()
    return Counter(what for changes in every for what in changes.split(", "))


def tidied_line(tidied: Mapping[str, int]) -> str:
    """What of sequences' writing does not count, in words."""
    told = ", ".join(f"{what} ({count:,})" for what, count in sorted(tidied.items()))
    return f"of sequences these do not count: {told}"


def _parse(raw: pa.Table, parser: Parser) -> pa.Table:
    """Parse the rows; on all cores, in input order. See `parse_block`."""
    if raw.num_rows <= BLOCK_ROWS:  # done before Ray Data would have started
        return parse_block(raw, parser)
    raw = raw.append_column("row", pa.array(np.arange(raw.num_rows)))
    blocks = [raw.slice(start, BLOCK_ROWS) for start in range(0, raw.num_rows, BLOCK_ROWS)]
    parsed = ray.data.from_arrow(blocks).map_batches(
        parse_block, fn_kwargs={"parser": parser}, batch_format="pyarrow", batch_size=None
    )
    tables = list(parsed.iter_batches(batch_size=None, batch_format="pyarrow"))
    return pa.concat_tables(tables).sort_by("row").drop_columns("row")


def parse_block(block: pa.Table, parser: Parser, fingerprints: bool = False) -> pa.Table:
    """Parse the `smiles` of raw rows; for the reasons see the parser.

    Parameters
    ----------
    parser : of `parser_of`.
    fingerprints : add FINGERPRINT, of the molecule as it is parsed here.

    Returns
    -------
    pa.Table
        The rows with canonical `smiles`, or with `stage` and `reason`; besides, `key`,
        `fragments_removed` (bool) and `tidied` (see `Parsed`). With STRUCTURES among the rows, a
        molecule is its structure too: other coordinates, another key.
    """
    texts, given = block["smiles"].to_pylist(), "coords" in block.column_names
    stages, reasons = block["stage"].to_pylist(), block["reason"].to_pylist()
    coords = _coordinates(block) if given else [None] * block.num_rows
    made: list[Parsed | None] = [None] * block.num_rows
    for i, text in enumerate(texts):
        if reasons[i] is not None:
            continue
        found = parsed_or_rejected(parser, text, coords[i], fingerprints)
        if given and coords[i] is None and isinstance(found, Parsed):
            found = RowRejected("the record has no coordinates (--structures file)")
        if isinstance(found, RowRejected):
            stages[i], reasons[i] = "parse", str(found)
        else:
            made[i], texts[i] = found, found.text
    for name, values in {"smiles": texts, "stage": stages, "reason": reasons}.items():
        column = pa.array(values, pa.string())
        block = block.set_column(block.column_names.index(name), name, column)
    block = block.append_column("key", pa.array([m and m.key for m in made], pa.string()))
    if fingerprints:
        prints = pa.array([m and m.fingerprint for m in made], pa.binary())
        block = block.append_column(FINGERPRINT, prints)
    removed = pa.array([m is not None and m.fragments_removed for m in made], pa.bool_())
    block = block.append_column("fragments_removed", removed)
    return block.append_column("tidied", pa.array([m and m.tidied for m in made], pa.string()))


def _coordinates(block: pa.Table) -> list[np.ndarray | None]:
    """Each row's coordinates (3N,) in Å, None where its record has none."""
    return [cell.values.to_numpy() if cell.is_valid else None for cell in block["coords"]]


def _drop_duplicates(molecules: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Keep each molecule's first row in a split; the others become rejections."""
    first: dict[tuple[str, str], tuple[str, float | None]] = {}
    keep, reasons = [], []
    columns = (molecules[name].to_pylist() for name in ("split", "key", "id", "label"))
    for split, key, row_id, label in zip(*columns):
        row = (row_id, label)
        original = first.setdefault((split, key), row) if split is not None else row
        keep.append(original is row)
        if original is not row:
            differs = ", with another label" if labels_differ([original[1], label]) else ""
            reasons.append(f"duplicate of {original[0]} in split {split}{differs}")
    mask = pa.array(keep, pa.bool_())
    dropped = molecules.filter(pc.invert(mask)).select(["id", "smiles"])
    dropped = dropped.append_column("stage", pa.array(["duplicate"] * len(reasons), pa.string()))
    dropped = dropped.append_column("reason", pa.array(reasons, pa.string()))
    return molecules.filter(mask), dropped


def labels_differ(labels: Sequence[float | None]) -> bool:
    """Whether there are two labels among some; a missing one, or NaN, is none."""
    return len({label for label in labels if label is not None and label == label}) > 1
