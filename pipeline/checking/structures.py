"""What structures a sample of molecules has, or would get, where no encoder is named."""

from __future__ import annotations

import pyarrow as pa

from pipeline.conformers.child_process import IsolatedEmbedder
from pipeline.conformers.conformer import Conformer
from pipeline.conformers.structure import structure_counts, structure_of
from pipeline.encoders.unimol.tokens import DEFAULT_MAX_ATOMS
from pipeline.encoding.in_store.given_structures import as_seen
from pipeline.encoding.in_store.structures import rows_of
from pipeline.runtime.errors import RowRejected

SECONDS = 10.0  # that RDKit may take for one molecule
SEEN = {"hydrogens": False, "max_atoms": DEFAULT_MAX_ATOMS}  # as Uni-Mol's published weights do


def sample_structures(sample: pa.Table) -> dict[str, int]:
    """How many molecules have each kind of structure, and how many would be rejected.

    Parameters
    ----------
    sample : of `Tally`; its structures are the file's where it has them, else RDKit makes them.
    """
    given = "coords" in sample.column_names
    found = _given(sample) if given else _made(sample["smiles"].to_pylist())
    return with_rejected(structure_counts(found), sample.num_rows - len(found))


def with_rejected(counts: dict[str, int], rejected: int) -> dict[str, int]:
    """Counts of structures and of the molecules that got none, if there are any."""
    return counts | ({"rejected": rejected} if rejected else {})


def _given(sample: pa.Table) -> list[str | None]:
    found = []
    for row in rows_of(sample):
        try:
            found.append(structure_of(*as_seen(row, SEEN["hydrogens"]), row["kind"], **SEEN))
        except RowRejected:
            continue
    return found


def _made(smiles: list[str]) -> list[str | None]:
    embedder = IsolatedEmbedder(seed=42, hydrogens=False, limit_seconds=SECONDS)
    made = [embedder.embed_or_reject(each) for each in smiles]
    embedder.close()
    return [
        structure_of(each.atoms, each.coords, each.kind, **SEEN)
        for each in made
        if isinstance(each, Conformer)
    ]
