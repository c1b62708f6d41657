"""What jobs.split calls: any table of molecules to a DrugOOD-format split file."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from dataclasses import replace
from typing import Any

import pyarrow as pa

from pipeline.molecules.folders import kind_of_source
from pipeline.molecules.formats import check_files, read_rows
from pipeline.molecules.kinds import SEQUENCE
from pipeline.molecules.parsers import parser_of
from pipeline.molecules.settings import SplitSettings
from pipeline.molecules.sources import FIRST_ROWS, parse_block, parse_rows
from pipeline.molecules.splitting.domains import domains_of, with_domains
from pipeline.molecules.splitting.repeats import distinct
from pipeline.molecules.splitting.splits import make_split
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import write_atomically
from pipeline.runtime.nodes.cluster import start_ray


def run_splitting(settings: SplitSettings) -> dict[str, Any]:
    """Cut a table and write the split file.

    Returns
    -------
    dict
        `reading`, what was guessed. Of rows: `rows_in`, `repeated` (that repeat a molecule),
        `without_domain` and `conflicting` (dropped, of molecules whose labels differ),
        `not_sampled`, `rejected` and their `reasons` with counts. Of molecules: `sizes` of each
        split; `several_rows`, `several_labels`, `several_domains`, `conflicting_molecules`;
        `fragments_removed`. And the `order` of domains, and `parts`: those of ID, ood_val and
        ood_test.

    Raises
    ------
    InputError
        If the file or a setting is wrong, or a split would be empty.
    """
    _check(settings)
    if settings.has_column:
        settings = replace(settings, domain_column=settings.column)
    notes = check_files(settings)
    rows = read_rows(settings)
    if settings.has_column:
        _check_domains(rows, settings)
    start_ray()
    source = parse_rows(_without_splits(rows), settings)
    molecules = source.molecules
    if settings.has_column:
        molecules = with_domains(molecules, settings)
    merged = distinct(molecules, settings)
    content, order, parts = make_split(merged.molecules, settings, source.kind)
    sizes = {name: len(items) for name, items in content["split"].items()}
    counts = {
        "repeated": merged.repeated,
        "without_domain": source.molecules.num_rows - molecules.num_rows,
        "conflicting": merged.dropped_rows,
        "not_sampled": merged.molecules.num_rows - sum(sizes.values()),
        "rejected": source.rejected.num_rows,
    }
    if rows.num_rows != sum(sizes.values()) + sum(counts.values()):
        raise RuntimeError(
            f"of {rows.num_rows} rows some were lost, or are there twice: {sizes}, {counts}; this "
            "is a fault of MolSieve"
        )
    text = json.dumps(content, separators=(",", ":")).encode()
    if settings.output.endswith(".gz"):
        text = gzip.compress(text, mtime=0)  # no time stamp: the same split, the same bytes
    write_atomically(settings.output, text)
    return {
        "reading": notes,
        "rows_in": rows.num_rows,
        **counts,
        "reasons": Counter(source.rejected["reason"].to_pylist()),
        "sizes": sizes,
        "several_rows": merged.several_rows,
        "several_labels": merged.several_labels,
        "several_domains": merged.several_domains if settings.has_column else 0,
        "conflicting_molecules": merged.dropped_molecules,
        "fragments_removed": source.fragments_removed,
        "order": order,
        "parts": parts,
    }


def _check(settings: SplitSettings) -> None:
    if settings.structures == "file":
        raise InputError("--structures file: a split has no coordinates; leave it out")
    if not settings.output.endswith((".json", ".json.gz")):
        raise InputError(f"--output {settings.output}: must end in .json or .json.gz")
    if settings.by == "scaffold" and kind_of_source(settings) == SEQUENCE:
        raise InputError(
            f"{settings.data_file}: sequences have no scaffolds; take --by cluster, size (their "
            "length), column or time"
        )
    if settings.has_column != (settings.column is not None):
        raise InputError("--by column, or --by time, and --column NAME go together")
    by_value = settings.by == "column" and settings.column_order == "value"
    if settings.date_format is not None and not (by_value or settings.by == "time"):
        raise InputError(
            "--date_format goes with --by time, or --by column and --column_order value"
        )


def _check_domains(rows: pa.Table, settings: SplitSettings) -> None:
    """Stop on domains that are missing or have no order, before anything is waited for.

    A row that is no molecule is rejected later, whatever its domain. So where the column has a
    fault, one row of each domain is parsed, and molecules among these must have the fault too.

    Raises
    ------
    InputError
        As `with_domains` and `domains_of`, with counts of rows.
    """
    rows = rows.filter(rows["reason"].is_null())
    fault = _fault(rows, settings)
    if fault is None:
        return
    first: dict[str | None, int] = {}
    for place, name in enumerate(rows["domain"].to_pylist()):
        first.setdefault(name, place)
    parsed = parse_block(rows.take(list(first.values())[:FIRST_ROWS]), parser_of(settings))
    if _fault(parsed.filter(parsed["reason"].is_null()), settings):
        raise fault


def _fault(rows: pa.Table, settings: SplitSettings) -> InputError | None:
    """What is wrong with the domains of rows."""
    try:
        domains_of(with_domains(rows, settings), settings)
    except InputError as error:
        return error
    return None


def _without_splits(rows: pa.Table) -> pa.Table:
    """The rows of a file that may have splits already, which do not count in a new one."""
    place = rows.column_names.index("split")
    return rows.set_column(place, "split", pa.nulls(rows.num_rows, pa.string()))
