"""The peptides that were made: FASTA with class and scores, and the same as Parquet."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

import pyarrow as pa

from pipeline.runtime.files import parquet_bytes, write_atomically

FASTA, TABLE = "generated.fasta", "generated.parquet"


def write_peptides(rows: pa.Table, folder: str) -> None:
    """Write both files; `rows` has `id`, `sequence`, and what else is told of each."""
    write_atomically(f"{folder}/{TABLE}", parquet_bytes(rows))
    write_atomically(f"{folder}/{FASTA}", fasta_of(rows).encode())


def fasta_of(rows: pa.Table) -> str:
    """Records whose headers are the id and then name=value, quoted as in a shell."""
    names = [name for name in rows.column_names if name not in ("id", "sequence")]
    return "".join(
        f">{row['id']} {_described({name: row[name] for name in names})}\n{row['sequence']}\n"
        for row in rows.to_pylist()
    )


def described_in(description: str) -> dict[str, str]:
    """What a header tells after the id, as text: the inverse of what `fasta_of` writes."""
    return dict(word.split("=", 1) for word in shlex.split(description))


def _described(values: Mapping[str, object]) -> str:
    return " ".join(
        shlex.quote(f"{name}={_text(value)}") for name, value in values.items() if value is not None
    )


def _text(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def repeats_of(sequences: Sequence[str]) -> list[bool]:
    """Whether the same peptide stands before."""
    seen: set[str] = set()
    return [text in seen or bool(seen.add(text)) for text in sequences]
