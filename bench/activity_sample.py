"""Makes the activity set that ships in data/; see data/LICENSE.

python -m bench.activity_sample activity_12_targets.csv.gz

The table has `smiles`, `target` and `y` (pKi or pEC50) of MoleculeACE's 12 largest targets.
"""

from __future__ import annotations

import gzip
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from rdkit import rdBase

from pipeline.molecules.features.fingerprints import ecfp4
from pipeline.molecules.identity import canonicalize
from pipeline.molecules.splitting.clusters import grouped

OUT = Path("data")
TARGET, SEED, CLUSTERS = "CHEMBL2971_Ki", 42, 30
TRAINING, SAME_SERIES, NEW_SERIES, OTHER_TARGETS, OTHER_SCREEN = 450, 80, 100, 40, 30
NEW_SERIES_SHARE = 0.25  # of the target's molecules, in whole clusters that training lacks


def main(file: str) -> None:
    """Training set: part of some clusters of one target. Library: the other kinds."""
    rng = np.random.default_rng(SEED)
    table = pd.read_csv(file)
    with rdBase.BlockLogs():
        table["smiles"] = [canonicalize(smiles) for smiles in table["smiles"]]
    mine = table[table["target"] == TARGET].drop_duplicates("smiles").reset_index(drop=True)
    clusters = grouped(ecfp4(mine["smiles"].tolist()), CLUSTERS, SEED)
    new = np.isin(clusters, _whole(clusters, rng))
    inside, outside = (rng.permutation(np.flatnonzero(part)) for part in (~new, new))
    training = mine.iloc[np.sort(inside[:TRAINING])][["smiles", "y"]]
    kinds = {
        "same_series": mine.iloc[inside[TRAINING : TRAINING + SAME_SERIES]],
        "new_series": mine.iloc[outside[:NEW_SERIES]],
    }
    known = set(mine["smiles"])
    others = table[~table["smiles"].isin(known)].drop_duplicates("smiles").assign(y=np.nan)
    kinds["other_target"] = others.sample(OTHER_TARGETS, random_state=SEED)
    screen = pd.read_csv(OUT / "hiv_sample.csv.gz")
    screen = screen[~screen["smiles"].isin(known | set(others["smiles"]))].assign(y=np.nan)
    kinds["hiv_screen"] = screen.sample(OTHER_SCREEN, random_state=SEED)
    library = pd.concat([part.assign(origin=kind) for kind, part in kinds.items()])
    library = library.iloc[rng.permutation(len(library))][["smiles", "y", "origin"]]
    for name, made, letter in (("training", training, "T"), ("library", library, "L")):
        made.insert(0, "id", [f"{letter}{i:03d}" for i in range(1, len(made) + 1)])
        text = made.to_csv(index=False, float_format="%.4g")
        (OUT / f"activity_{name}.csv.gz").write_bytes(gzip.compress(text.encode(), mtime=0))
        print(f"{name}: {len(made):,} molecules, {made['y'].notna().sum():,} with a value")
    print(library["origin"].value_counts().to_string())


def _whole(clusters: np.ndarray, rng: np.random.Generator) -> list[int]:
    """Clusters in random order, until they have their share of the molecules."""
    chosen, taken = [], 0
    for cluster in rng.permutation(CLUSTERS):
        if taken >= NEW_SERIES_SHARE * len(clusters):
            break
        chosen.append(int(cluster))
        taken += int(np.sum(clusters == cluster))
    return chosen


if __name__ == "__main__":
    main(sys.argv[1])
