"""The table that bench.augmentation makes of chains: residues with their neighbours."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from bench.augmentation import residue_rows, windows
from pipeline.store.keyed_table import feature_matrix


def test_residues_stand_between_their_neighbours_and_proteins_stay_whole():
    rng = np.random.default_rng(0)
    sizes = [5, 9, 4, 8, 6, 7]
    chains = [rng.random((size, 54)).astype(np.float16) for size in sizes]
    table = residue_rows(
        pa.table(
            {
                "split": ["Train_335"] * 5 + ["Test_60"],
                "protein": [f"p{number}" for number in range(6)],
                "labels": ["0110100101"[:size] for size in sizes],
                "features": pa.array([chain.ravel() for chain in chains], pa.list_(pa.float16())),
            }
        ),
        seed=0,
    )
    assert table.num_rows == sum(sizes) and "".join(table["site"].to_pylist()[:5]) == "01101"
    splits = {}
    for protein, split in zip(table["protein"].to_pylist(), table["split"].to_pylist()):
        splits.setdefault(protein, set()).add(split)
    assert all(len(found) == 1 for found in splits.values())
    assert (
        sorted(found.pop() for found in splits.values()) == ["Test_60", "iid_val"] + ["train"] * 4
    )
    rows = feature_matrix(table)[5:14]  # of the second chain
    np.testing.assert_array_equal(rows, windows(chains[1].astype(np.float32)))
    for place in range(9):
        for neighbour in range(-3, 4):
            at = place + neighbour
            expected = chains[1][at] if 0 <= at < 9 else np.zeros(54)
            start = 54 * (neighbour + 3)
            np.testing.assert_array_equal(rows[place, start : start + 54], expected)
