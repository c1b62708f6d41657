"""Structures that the molecules' own file has, in place of conformers made here.

With --structures file a molecule's key stands for its coordinates too, so that they lie in the
table of conformers as those that were made, and no other file finds them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.encoding.in_store.structures import rows_of, structure_of_row
from pipeline.encoding.in_store.tables import CONFORMERS, REJECTIONS, TO_ENCODE, Tables
from pipeline.molecules.identity import molecule_key
from pipeline.runtime.errors import RowRejected


def are_given(molecules: pa.Table) -> np.ndarray:
    """Whether each of some molecules (`key`, `smiles`) is its structure too: (n,) bool."""
    pairs = zip(molecules["key"].to_pylist(), molecules["smiles"].to_pylist())
    return np.array([molecule_key(smiles) != key for key, smiles in pairs], dtype=bool)


def keep_given(molecules: pa.Table, tables: Tables, run: str) -> pa.Table:
    """Put given structures into the store that it lacks; nothing is done where none are given.

    Parameters
    ----------
    run : stamp of the shards that this run writes.

    Returns
    -------
    pa.Table
        REJECTIONS: the molecules whose structures cannot be used.
    """
    if "coords" not in molecules.column_names:
        return REJECTIONS.empty_table()
    lacks = tables.conformers.index().find(molecules["key"].to_pylist()) < 0
    rows = given_rows(molecules.filter(pa.array(lacks)), tables)
    good = rows["reason"].is_null()
    tables.conformers.write(rows.filter(good).select(CONFORMERS.names), run)
    rejected = rows.filter(pc.invert(good)).select(REJECTIONS.names)
    tables.conformer_rejections.write(rejected, run)
    return rejected


def given_rows(molecules: pa.Table, tables: Tables) -> pa.Table:
    """Rows to encode (TO_ENCODE), each molecule once, with its structure or why it has none.

    Parameters
    ----------
    molecules : `key`, `smiles` and `raw_rows.STRUCTURES`; without these, no row comes out.
    """
    if "coords" not in molecules.column_names:
        return TO_ENCODE.empty_table()
    keys = np.array(molecules["key"].to_pylist(), dtype="S32")
    rows = rows_of(molecules.take(np.unique(keys, return_index=True)[1]))
    return pa.Table.from_pylist([_to_encode(row, tables) for row in rows], schema=TO_ENCODE)


def as_seen(row: dict[str, Any], hydrogens: bool) -> tuple[np.ndarray, np.ndarray]:
    """The atomic numbers (N,) and coordinates (3N,) in Å that an encoder takes of a structure.

    Parameters
    ----------
    row : of `raw_rows.STRUCTURES`.
    hydrogens : whether the encoder sees hydrogens.

    Raises
    ------
    RowRejected
        If the structure cannot be used.
    """
    atoms, coords = np.array(row["atoms"], np.uint8), np.array(row["coords"], np.float32)
    left_out = row["hydrogens_left_out"]
    if not np.isfinite(coords).all():
        raise RowRejected("its structure has coordinates that are not finite")
    if hydrogens:
        if left_out:
            raise RowRejected(
                f"its structure leaves out {left_out} hydrogens, which the weights need"
            )
        return atoms, coords
    heavy = atoms != 1
    if not heavy.any():
        raise RowRejected("no atoms left after removing hydrogens")
    return atoms[heavy], coords.reshape(-1, 3)[heavy].ravel()


def _to_encode(row: dict[str, Any], tables: Tables) -> dict[str, Any]:
    made = {name: row[name] for name in ("key", "smiles", "kind")}
    try:
        made["atoms"], made["coords"] = as_seen(row, tables.identity["hydrogens"])
    except RowRejected as rejection:
        return {**made, "stage": "conformers", "reason": str(rejection)}
    return {**made, "structure": structure_of_row(made, tables)}
