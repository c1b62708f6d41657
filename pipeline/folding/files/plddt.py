"""Where a structure file has pLDDT; B-factors of measured structures are none."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from pipeline.folding.files.library import library
from pipeline.runtime.errors import RowRejected

if TYPE_CHECKING:
    import gemmi

PREDICTION = re.compile(r"^(ALPHAFOLD|ESMFOLD)\b.* PREDICTION\b", re.I)  # titles of predictions
TYPES = ("pLDDT", "pLDDT in [0,1]")  # ModelCIF's names of it, of residues by their Cα


class Plddt:
    """Where a file has pLDDT: in a table by residue, in B-factors, or nowhere."""

    def __init__(self, table: dict[tuple[str, int], float] | None, in_b_factors: bool):
        self.table, self.in_b_factors = table, in_b_factors

    @classmethod
    def of(cls, structure: gemmi.Structure, block: gemmi.cif.Block | None) -> Plddt:
        """Of a file; the block is mmCIF's."""
        if block is not None and (table := _local_plddt(block, str(structure[0].num))):
            return cls(table, False)
        title = structure.info["_struct.title"] if "_struct.title" in structure.info else ""
        measured = "_exptl.method" in structure.info and not re.search(
            "THEORETICAL|PREDICT", structure.info["_exptl.method"], re.I
        )
        return cls(None, bool(PREDICTION.match(title.strip())) and not measured)

    def __bool__(self) -> bool:
        return self.table is not None or self.in_b_factors

    def at(self, residue: gemmi.Residue, ca: gemmi.Atom) -> float:
        """As the file has it."""
        if self.table is not None:
            return self.table.get((residue.subchain, residue.label_seq), np.nan)
        return ca.b_iso if self.in_b_factors else np.nan


def _local_plddt(block: gemmi.cif.Block, model: str) -> dict[tuple[str, int], float]:
    """ModelCIF's pLDDT by residue (AlphaFold DB's files have it); empty without.

    Of several such metrics the first counts, and rows of another model do not.
    """
    metrics = block.find("_ma_qa_metric.", ["id", "mode", "type"])
    kinds = [row.str(0) for row in metrics if row.str(1) == "local" and row.str(2) in TYPES]
    is_null = library().cif.is_null
    names = ["label_asym_id", "label_seq_id", "metric_id", "metric_value", "?model_id"]
    rows = block.find("_ma_qa_metric_local.", names)
    return {
        (row.str(0), int(row.str(1))): float(row.str(3))
        for row in rows
        if row.str(2) in kinds[:1]
        and not is_null(row[1])
        and not is_null(row[3])
        and (not row.has(4) or is_null(row[4]) or row.str(4) == model)
    }


def as_share(plddt: np.ndarray) -> np.ndarray:
    """pLDDT from 0 to 1, of 0 to 1 (ESMFold) or 0 to 100 (AlphaFold).

    Raises
    ------
    RowRejected
        If it is neither.
    """
    known = plddt[np.isfinite(plddt)]
    if len(known) and not (known.min() >= 0 and known.max() <= 100):
        raise RowRejected(
            f"its pLDDT is not from 0 to 100: from {known.min():g} to {known.max():g}"
        )
    # Not one residue of a whole chain above 1 of 100 is no prediction's.
    return plddt if len(known) == 0 or known.max() <= 1 else plddt / 100
