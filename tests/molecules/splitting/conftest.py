"""The molecules that are split."""

from __future__ import annotations

import pyarrow as pa
import pytest

from pipeline.molecules.identity import canonicalize


@pytest.fixture(scope="module")
def molecules(hiv_smiles, moses_smiles) -> pa.Table:
    """400 molecules; their domain is a made-up year, as many of each as chance has it."""
    smiles = [canonicalize(s) for s in hiv_smiles + moses_smiles]
    return pa.table(
        {
            "smiles": smiles,
            "label": [float(i % 2) for i in range(len(smiles))],
            "domain": [str(1990 + len(s) % 17) for s in smiles],
        }
    )
