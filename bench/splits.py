"""How far simple counts, and likeness to the training molecules, solve a split.

`python -m bench.splits [--table FILE --target NAME]` writes splits.md: on the sample, and on the
molecules of one target of a table with the columns `smiles` and `target`.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import statistics
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import rdkit
import sklearn
from rdkit import Chem
from rdkit.Chem import rdMolDescriptors
from rdkit.Chem.rdchem import Mol
from rdkit.Chem.Scaffolds import MurckoScaffold
from sklearn.metrics import roc_auc_score

from bench.report import cpu_name, markdown
from pipeline.molecules.features.fingerprints import packed_ecfp4
from pipeline.molecules.features.neighbours import nearest
from pipeline.molecules.identity import canonicalize
from pipeline.molecules.settings import SplitSettings
from pipeline.molecules.splitting.splits import make_split

SAMPLE = Path(__file__).parents[1] / "data" / "hiv_sample.csv.gz"
SEEDS = (42, 43, 44, 45, 46)
COUNTS: dict[str, Callable[[Mol], int]] = {
    "rings": rdMolDescriptors.CalcNumRings,
    "heavy atoms": Mol.GetNumHeavyAtoms,
    "scaffold atoms": lambda mol: MurckoScaffold.GetScaffoldForMol(mol).GetNumAtoms(),
}
RIVALS = (*COUNTS, "likeness to training")


def molecules_of(path: Path, target: str | None) -> list[str]:
    """Distinct canonical SMILES of a table, or of one target in it, in the order of its rows."""
    with gzip.open(path, "rt") as file:
        rows = [row for row in csv.DictReader(file) if target in (None, row.get("target"))]
    return list(dict.fromkeys(canonicalize(row["smiles"]) for row in rows))


def aurocs(smiles: list[str], by: str, seed: int) -> tuple[list[float], list[float]]:
    """Test AUROC of each of RIVALS, in its better direction, and the shares of ID and ood_val."""
    table = pa.table({"smiles": smiles, "label": pa.nulls(len(smiles), pa.float64())})
    settings = SplitSettings(data_file="table", output="split.json", by=by, seed=seed)
    items = make_split(table, settings).content["split"]
    mols = {part: [Chem.MolFromSmiles(i["smiles"]) for i in some] for part, some in items.items()}
    tested = mols["iid_test"] + mols["ood_test"]
    is_ood = np.repeat([0, 1], [len(mols["iid_test"]), len(mols["ood_test"])])
    scores = [[count(mol) for mol in tested] for count in COUNTS.values()]
    prints = {part: packed_ecfp4([i["smiles"] for i in some]) for part, some in items.items()}
    both = np.concatenate([prints["iid_test"], prints["ood_test"]])
    scores.append(nearest(both, prints["train"]).similarity[:, 0])
    found = [roc_auc_score(is_ood, score) for score in scores]
    ood_val, ood_test = len(mols["ood_val"]), len(mols["ood_test"])
    shares = [1 - (ood_val + ood_test) / len(smiles), ood_val / len(smiles)]
    return [max(auroc, 1 - auroc) for auroc in found], shares


def spread(values: list[float], digits: int = 3) -> str:
    """The mean, with the least and the largest where they differ."""
    mean, least, most = (f"{f(values):.{digits}f}" for f in (statistics.mean, min, max))
    return mean if least == most else f"{mean} ({least}–{most})"


def main() -> None:
    """Split each table both ways with each seed, and write splits.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", type=Path, help="CSV with smiles and target, gzipped")
    parser.add_argument("--target", help="whose molecules to take")
    given = parser.parse_args()
    tables = {"HIV sample": molecules_of(SAMPLE, None)}
    flags = ""
    if given.table:
        tables[given.target] = molecules_of(given.table, given.target)
        flags = f" --table {given.table.name} --target {given.target}"
    rows = []
    for name, smiles in tables.items():
        for by in ("scaffold", "cluster"):
            made = [aurocs(smiles, by, seed) for seed in SEEDS]
            columns = [*zip(*(shares for _, shares in made)), *zip(*(found for found, _ in made))]
            shown = [spread(list(c), 2 if i < 2 else 3) for i, c in enumerate(columns)]
            rows.append([name, f"{len(smiles):,}", by, *shown])
    lines = [
        "# How far simple counts, and likeness to the training molecules, solve a split",
        "",
        f"`python -m bench.splits{flags}` on {cpu_name()}, RDKit {rdkit.__version__}, "
        f"scikit-learn {sklearn.__version__}: test AUROC (iid_test against ood_test) of one "
        f"number alone, in the direction that is better in that split, so that 0.5 is the least. "
        f"Likeness is ECFP4's largest Tanimoto similarity to a molecule of train. Defaults "
        f"of jobs.split; mean over seeds {', '.join(map(str, SEEDS))}, the least and the largest.",
        "",
        *markdown(
            ("molecules of", "molecules", "--by", "share ID", "share ood_val", *RIVALS), rows
        ),
        "",
    ]
    (Path(__file__).parent / "splits.md").write_text("\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
