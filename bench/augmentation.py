"""Does generated data help to find a rare class? On two tables: writes augmentation.md.

`python -m bench.augmentation --hiv ../shared/data/hiv.csv.gz --ppi ../shared/data/ppi_sites.parquet
--out FOLDER`. Finished runs are kept in the folder, so that the command goes on where it stopped.

`hiv.csv.gz` has `smiles` and `HIV_active`. `ppi_sites.parquet` has a row a chain: `split`
(Train_335, Test_60, Test_315), `protein`, `labels` (a 0 or 1 a residue) and `features` (54 numbers
a residue, flat: PSSM 20, HMM 20, DSSP 14).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bench.augmentation_report import report
from pipeline.augmentation.run import SUMMARY, run_augmentation
from pipeline.augmentation.settings import AugmentSettings
from pipeline.molecules.settings import SplitSettings
from pipeline.molecules.splitting.run import run_splitting
from pipeline.runtime.telemetry import configure_logging

COLUMNS, AROUND = 54, 3  # a residue; neighbours on either side
VALIDATION = 0.2  # of Train_335's proteins
MOLECULES, SEED = 12_000, 42
CHEAP = ["class_weights", "oversampling", "smote", "gaussian"]
# What two cores can do: a sixth of the usual generator's multiplications, 30 steps of
# DPM-Solver++ a candidate instead of 200, no more candidates than are likely used.
SMALLER = {"width": 256, "steps": 2000, "sampler": "dpm++", "sample_multiplier": 2.5}


def windows(residues: np.ndarray) -> np.ndarray:
    """Each residue with its neighbours: (n, 54) → (n, 378), zeros beyond the chain's ends."""
    padded = np.pad(residues, ((AROUND, AROUND), (0, 0)))
    shifts = [padded[start : start + len(residues)] for start in range(2 * AROUND + 1)]
    return np.concatenate(shifts, axis=1)


def window_features(chains: pa.Table) -> list[np.ndarray]:
    """The windows (n, 378) of each chain's PSSM, HMM and DSSP."""
    sizes = [len(labels) for labels in chains["labels"].to_pylist()]
    every = (np.asarray(each.values) for each in chains["features"])
    return [
        windows(values.reshape(n, COLUMNS).astype(np.float32)) for n, values in zip(sizes, every)
    ]


def residue_rows(
    chains: pa.Table, seed: int, made: Sequence[np.ndarray] | None = None, learn: str = "Train_335"
) -> pa.Table:
    """A row a residue of a table with a row a chain.

    Parameters
    ----------
    made : features (n, d) of each chain's residues; default: `window_features`.
    learn : the split that classifiers learn from.

    Returns
    -------
    pyarrow.Table
        `features` (d float32), `site` ("1" or "0"), `protein`, and `split`: train and iid_val,
        which are whole proteins of `learn`, and the tests under their names.
    """
    made = window_features(chains) if made is None else made
    names = chains["split"].to_pylist()
    learned = [row for row, name in enumerate(names) if name == learn]
    drawn = np.random.default_rng(seed).permutation(learned)[: round(VALIDATION * len(learned))]
    for row in learned:
        names[row] = "iid_val" if row in set(drawn.tolist()) else "train"
    labels = chains["labels"].to_pylist()
    sizes = [len(each) for each in labels]
    flat = pa.array(np.concatenate(made).ravel())
    return pa.table(
        {
            "features": pa.FixedSizeListArray.from_arrays(flat, made[0].shape[1]),
            "site": [site for each in labels for site in each],
            "protein": np.repeat(chains["protein"].to_pylist(), sizes),
            "split": np.repeat(names, sizes),
        }
    )


def of_hiv(given: argparse.Namespace) -> dict[str, Any]:
    """Settings for the screen: a sample, split by scaffold, MiniMol's features."""
    path = given.out / "hiv.json.gz"
    if not path.exists():
        run_splitting(SplitSettings(
            data_file=str(given.hiv), label_column="HIV_active", output=str(path), seed=SEED,
            max_molecules=given.molecules,
        ))  # fmt: skip
    return {
        "data_file": str(path), "foundation_model": "minimol", "cache_root": str(given.store),
        "test_split": ["ood_test", "iid_test"], "rare_share": 0.5,
    }  # fmt: skip


def of_ppi(given: argparse.Namespace) -> dict[str, Any]:
    """Settings for the sites: residues in windows, groups are proteins."""
    path = given.out / "residues.parquet"
    if not path.exists():
        pq.write_table(residue_rows(pq.read_table(given.ppi), SEED), path)
    return {
        "data_file": str(path), "features_column": "features", "class_column": "site",
        "split_column": "split", "group_column": "protein", "test_split": ["Test_60", "Test_315"],
        "rare_share": 0.25, "classifier_epochs": 15, "classifier_patience": 3,
    }  # fmt: skip


def summary_of(folder: Path, **settings: Any) -> dict[str, Any]:
    """What a run finds, or found before."""
    path = folder / SUMMARY
    if not path.exists():
        run_augmentation(AugmentSettings(output_dir=str(folder), device="cpu", **settings))
    return json.loads(path.read_text())


def main() -> None:
    """Run what is not there yet, and write augmentation.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hiv", type=Path, required=True)
    parser.add_argument("--ppi", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder for tables and results")
    parser.add_argument("--store", type=Path, default=Path(".molsieve"), help="store of features")
    parser.add_argument("--molecules", type=int, default=MOLECULES, help="sample of the screen")
    given = parser.parse_args()
    configure_logging()
    given.out.mkdir(parents=True, exist_ok=True)
    found = {}
    for name, settings_of in (("hiv", of_hiv), ("ppi", of_ppi)):
        settings = settings_of(given)
        found[name] = {
            "mlp": summary_of(given.out / f"{name}_mlp", **settings, **SMALLER),
            "logistic": summary_of(
                given.out / f"{name}_logistic", **settings, classifier="logistic", methods=CHEAP,
                seeds=1,
            ),
        }  # fmt: skip
    text = report(found, given.molecules)
    (Path(__file__).parent / "augmentation.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
