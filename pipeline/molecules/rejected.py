"""Rows that cannot be used, each with the stage that says so and the reason."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Mapping

import pyarrow as pa

from pipeline.molecules.kinds import SMILES, Kind, named_for
from pipeline.molecules.reading.columns import is_smiles
from pipeline.molecules.sequences import EXTRA, STANDARD
from pipeline.runtime.counts import named
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import parquet_bytes, write_atomically

log = logging.getLogger(__name__)

REJECTED = pa.schema(
    [("id", pa.string()), ("smiles", pa.string()), ("stage", pa.string()), ("reason", pa.string())]
)
MANY = 0.2  # share of rejected rows from which on something is probably wrong
COMMONEST = 3  # reasons that are told
# Shorter ones, and those in lower case, may be words: names of drugs, for one.
PROTEIN = re.compile(f"[{STANDARD}]{{15,}}")
NUCLEOTIDES = re.compile("[ACGTUN]{15,}", re.IGNORECASE)
RESIDUES = re.compile(f"[{STANDARD}{EXTRA}]+", re.IGNORECASE)
SHOWN = 80  # characters of a row in a message


def with_ids(rejected_keys: pa.Table, molecules: pa.Table) -> pa.Table:
    """Rejections by key, as encoding gives them, as one rejection for each row with that key."""
    reasons = {row["key"]: row for row in rejected_keys.to_pylist()}
    rows = molecules.select(["id", "key", "smiles"]).to_pylist()
    return pa.Table.from_pylist(
        [
            {name: row[name] for name in ("id", "smiles")}
            | {name: reasons[row["key"]][name] for name in ("stage", "reason")}
            for row in rows
            if row["key"] in reasons
        ],
        schema=REJECTED,
    )


def write_rejected(
    rejected: pa.Table, folder: str, name: str = "rejected", kind: Kind = SMILES
) -> None:
    """Write the rejected rows to a folder, and say how many there are."""
    write_atomically(f"{folder}/{name}.parquet", parquet_bytes(named_for(rejected, kind)))
    if rejected.num_rows:
        log.info("%s rows rejected; see %s/%s.parquet", f"{rejected.num_rows:,}", folder, name)


def check_any_left(rejected: pa.Table, rows: int, source: str, kind: Kind = SMILES) -> None:
    """Stop where no row is a molecule.

    Parameters
    ----------
    rejected : REJECTED.
    rows : that were read, rejected ones among them.
    source : what was read, for the message.

    Raises
    ------
    InputError
        If all were rejected, with the first row and the likely cause.
    """
    if rows == 0 or rejected.num_rows < rows:
        return
    first = rejected.slice(0, 1).to_pylist()[0]
    text = (first["smiles"] or "").strip()
    raise InputError(
        f"{source}: none of {rows:,} rows is a {kind.one}; the first, {first['id'][:SHOWN]}, is "
        f"{text[:SHOWN]!r}: {first['reason'][:200]}. {_likely_cause(text, first['id'], kind)}"
    )


def _likely_cause(text: str, name: str, kind: Kind) -> str:
    if kind is not SMILES:
        return _likely_cause_of_sequences(text)
    if is_smiles(name):
        return (
            "What is taken for its id is a SMILES: the columns stand the other way round. Name "
            "them by --smiles_column and --id_column (without a header: column_2 and column_1)"
        )
    if text.startswith("InChI="):
        return "That is an InChI; MolSieve reads SMILES: convert it (rdkit.Chem.MolFromInchi)"
    if text.replace(".", "", 1).isdigit():
        return "That is a number; name the column that holds SMILES by --smiles_column"
    if PROTEIN.fullmatch(text):
        return (
            "That looks like a sequence of amino acids: name the column that holds sequences by "
            "--sequence_column"
        )
    return "Does --smiles_column name the column that holds SMILES?"


def _likely_cause_of_sequences(text: str) -> str:
    if NUCLEOTIDES.fullmatch(text):
        return "Are these nucleotides? Translate them: sequences are of amino acids"
    if RESIDUES.fullmatch(text):
        return "--residues extended, --min_length and --max_length set what a sequence may be"
    return (
        "Are these amino acids in one-letter codes, the 20 of --residues standard? Of a table, "
        "does --sequence_column name the column that holds them?"
    )


def kind_of(reason: str) -> str:
    """A reason without what it quotes of the row, which stands after a colon."""
    return reason.split(":", 1)[0]


def warn_if_many(reasons: Mapping[str, int], rows: int, source: str) -> None:
    """Warn of the commonest kinds of reasons where a fifth of the rows or more was rejected."""
    rejected = sum(reasons.values())
    if rows == 0 or rejected < MANY * rows:
        return
    kinds: Counter[str] = Counter()
    for reason, count in reasons.items():
        kinds[kind_of(reason)] += count
    told = "; ".join(f"{kind} ({n:,})" for kind, n in named(kinds).most_common(COMMONEST))
    log.warning(
        "%s: %s of %s rows are rejected (%.0f %%), mostly for: %s",
        source, f"{rejected:,}", f"{rows:,}", 100 * rejected / rows, told,
    )  # fmt: skip
