"""What the store has of molecules, and what is left to do."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.encoding.in_store.given_structures import are_given
from pipeline.encoding.in_store.tables import REJECTIONS, TO_EMBED
from pipeline.encoding.plan import EncodingPlan
from pipeline.runtime.errors import InputError
from pipeline.store.keyed_table import KeyedTable


@dataclass(frozen=True)
class Pending:
    """Work left: what to embed, and what has its conformer in the store.

    Attributes
    ----------
    unmade : TO_EMBED.
    stored : `KeyedTable.places` of conformers, and `smiles`.
    """

    unmade: pa.Table
    stored: pa.Table

    @property
    def rows(self) -> int:
        """Molecules to encode."""
        return self.unmade.num_rows + self.stored.num_rows


def unique(molecules: pa.Table) -> pa.Table:
    """One row a key, in the order of keys: hashes, so large and small molecules mix."""
    table = molecules.select(TO_EMBED.names).combine_chunks()
    return table.take(np.unique(keys_of(table), return_index=True)[1])


def refused(wanted: pa.Table, plan: EncodingPlan) -> pa.Table:
    """Rejections of molecules wanted now that earlier runs kept."""
    found_so_far = REJECTIONS.empty_table()
    tables = plan.tables
    if plan.settings.force_recompute_cache or plan.settings.retry_rejected:
        return found_so_far
    for table in (tables.conformer_rejections, tables.feature_rejections):
        if table is not None:
            # A later run may have made what an earlier one gave up.
            made = tables.conformers if table is tables.conformer_rejections else None
            found = rejections_in(table, without(wanted, found_so_far), made)
            found_so_far = pa.concat_tables([found_so_far, found])
    return found_so_far


def rejections_in(table: KeyedTable, wanted: pa.Table, made: KeyedTable | None = None) -> pa.Table:
    """A table's rejections of molecules wanted, but for what another table has."""
    index, keys = table.index(), keys_of(wanted)
    here = keys[index.find(keys) >= 0].astype(str)
    if made is not None and len(here):
        here = here[made.index().find(here) < 0]
    if not len(here):
        return REJECTIONS.empty_table()
    return table.read(here, index).select(REJECTIONS.names)


def without(table: pa.Table, others: pa.Table) -> pa.Table:
    """The rows whose key others do not have."""
    return table.filter(pc.invert(pc.is_in(table["key"], others["key"].combine_chunks())))


def keys_of(table: pa.Table) -> np.ndarray:
    """The keys (n,) as an index wants them."""
    return np.array(table["key"].to_pylist(), dtype="S32")


def known(wanted: pa.Table, plan: EncodingPlan) -> pa.Table:
    """Molecules that the store has all of; none where it must be made anew."""
    if plan.settings.force_recompute_cache:
        return wanted.slice(0, 0)
    keys = keys_of(wanted)
    found = [table.index().find(keys) >= 0 for table in plan.tables.made_by_encoder]
    return wanted.filter(pa.array(np.logical_and.reduce(found)))


def pending_of(todo: pa.Table, plan: EncodingPlan) -> Pending:
    """Molecules to encode: those to embed first, and those whose conformer is in the store.

    Raises
    ------
    InputError
        If the store lacks structures that can only come from the molecules' own file.
    """
    conformers = plan.tables.conformers
    if conformers is None:
        return Pending(todo, todo.slice(0, 0))
    given = are_given(todo)
    if plan.settings.force_recompute_cache and not given.any():
        return Pending(todo, todo.slice(0, 0))
    index = conformers.index()
    have = index.find(keys_of(todo)) >= 0
    lost = given & ~have
    if lost.any():
        raise InputError(
            f"{plan.settings.cache_root} lacks the structures of {lost.sum():,} molecules that "
            "came with coordinates (--structures file), the first "
            f"{todo['smiles'].filter(pa.array(lost))[0].as_py()}; encode their file again with it"
        )
    if plan.settings.force_recompute_cache:
        have = given
    ready = todo.filter(pa.array(have))
    places = conformers.places(ready["key"].to_pylist(), index)
    order = pc.index_in(places["key"], ready["key"].combine_chunks())
    places = places.append_column("smiles", ready["smiles"].take(order))
    return Pending(todo.filter(pa.array(~have)), places)
