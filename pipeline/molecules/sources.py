"""Files to molecules: every row parsed, identified, and kept with its reason if it is none.

A row keeps its id from here to the scores. What cannot be a molecule goes to `rejected` with
the reason; nothing is dropped.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray.data

from pipeline.molecules.identity import canonicalize, molecule_key
from pipeline.molecules.rejected import REJECTED
from pipeline.molecules.settings import SourceSettings
from pipeline.runtime.errors import RowRejected

log = logging.getLogger(__name__)

MOLECULES = pa.schema(
    [("id", pa.string()), ("key", pa.string()), ("smiles", pa.string()), ("split", pa.string()),
     ("label", pa.float64()), ("domain", pa.string())]
)  # fmt: skip
BLOCK_ROWS = 4000


@dataclass(frozen=True)
class Molecules:
    """What a source holds: every input row is in exactly one of the two tables.

    Attributes
    ----------
    molecules : `id`, `key`, canonical `smiles`, `split`, `label`, `domain`.
    rejected : `id`, `smiles` as written, `stage`, `reason`.
    """

    molecules: pa.Table
    rejected: pa.Table

    @property
    def rows(self) -> int:
        """Input rows."""
        return self.molecules.num_rows + self.rejected.num_rows


def parse_rows(raw: pa.Table, settings: SourceSettings) -> Molecules:
    """Parse and identify every row of a data file, as `read_rows` has read it.

    SMILES are parsed on all cores of the cluster. Within a split, a molecule's second row is
    rejected as a duplicate; across splits see `pipeline.molecules.roles.check_overlap`.
    """
    parsed = _parse(raw)
    good = parsed["reason"].is_null()
    molecules = parsed.filter(good)
    rejected = parsed.filter(pc.invert(good)).select(REJECTED.names)
    molecules, duplicates = _drop_duplicates(molecules)
    result = Molecules(molecules.select(MOLECULES.names), pa.concat_tables([rejected, duplicates]))
    log.info(
        "%s: %s rows, %s molecules, %s rejected (%s duplicates within a split)",
        settings.data_file, f"{result.rows:,}", f"{result.molecules.num_rows:,}",
        f"{result.rejected.num_rows:,}", f"{duplicates.num_rows:,}",
    )  # fmt: skip
    return result


def _parse(raw: pa.Table) -> pa.Table:
    """Add `key` and the canonical `smiles`, or a `reason`; on all cores, in input order."""
    if raw.num_rows <= BLOCK_ROWS:  # done before Ray Data would have started
        return parse_block(raw)
    raw = raw.append_column("row", pa.array(np.arange(raw.num_rows)))
    blocks = [raw.slice(start, BLOCK_ROWS) for start in range(0, raw.num_rows, BLOCK_ROWS)]
    parsed = ray.data.from_arrow(blocks).map_batches(
        parse_block, batch_format="pyarrow", batch_size=None
    )
    tables = list(parsed.iter_batches(batch_size=None, batch_format="pyarrow"))
    return pa.concat_tables(tables).sort_by("row").drop_columns("row")


def parse_block(block: pa.Table) -> pa.Table:
    """Parse the `smiles` of raw rows; for the reasons see `identity.canonicalize`."""
    keys, canonicals = [], []
    stages, reasons = block["stage"].to_pylist(), block["reason"].to_pylist()
    for i, smiles in enumerate(block["smiles"].to_pylist()):
        key, canonical = None, smiles
        if reasons[i] is None:
            try:
                canonical = canonicalize(smiles)
                key = molecule_key(canonical)
            except RowRejected as rejection:
                stages[i], reasons[i] = "parse", str(rejection)
        keys.append(key)
        canonicals.append(canonical)
    changed = {"smiles": canonicals, "stage": stages, "reason": reasons}
    for name, values in changed.items():
        column = pa.array(values, pa.string())
        block = block.set_column(block.column_names.index(name), name, column)
    return block.append_column("key", pa.array(keys, pa.string()))


def _drop_duplicates(molecules: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Keep each molecule's first row in a split; the others become rejections."""
    first: dict[tuple[str, str], str] = {}
    keep, reasons = [], []
    columns = (molecules[name].to_pylist() for name in ("split", "key", "id"))
    for split, key, row_id in zip(*columns):
        original = first.setdefault((split, key), row_id) if split is not None else row_id
        keep.append(original == row_id)
        if original != row_id:
            reasons.append(f"duplicate of {original} in split {split}")
    mask = pa.array(keep, pa.bool_())
    dropped = molecules.filter(pc.invert(mask)).select(["id", "smiles"])
    dropped = dropped.append_column("stage", pa.array(["duplicate"] * len(reasons), pa.string()))
    dropped = dropped.append_column("reason", pa.array(reasons, pa.string()))
    return molecules.filter(mask), dropped


def first_of_each(molecules: pa.Table) -> pa.Table:
    """The first row of each molecule, in input order."""
    keys = np.array(molecules["key"].to_pylist())
    return molecules.take(np.sort(np.unique(keys, return_index=True)[1]))
