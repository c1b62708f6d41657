"""A cell and its files: `cells/<key>.json`, and the energies of its test molecules beside it.

The key is made of all that decides a cell: a setting, a molecule or weights that change make
another key, so that no cell is found that does not belong here.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from io import BytesIO
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.runtime.files import json_bytes, parquet_bytes, write_atomically
from pipeline.runtime.ray_train import run_name
from pipeline.suite.grid import Training
from pipeline.training.trainer import NOT_IDENTITY

FORMAT = 1  # of the files; a change of what is in them makes all cells anew
FOLDER = "cells"
# Besides NOT_IDENTITY: the file, whose molecules count, and what of the encoder its identity tells.
NOT_DECISIVE = (*NOT_IDENTITY, "data_file", "foundation_model", "views")


@dataclass(frozen=True)
class Cell:
    """A training tested on one data set, before anything is known of it.

    Attributes
    ----------
    key : what its files are called.
    test_data : name of the data set whose test molecules it is tested on.
    """

    key: str
    training: Training
    test_data: str

    @property
    def labels(self) -> dict[str, Any]:
        """What says which cell it is, as columns of the table."""
        training = self.training
        return {
            "data": training.data,
            "test_data": self.test_data,
            "encoder": training.encoder,
            "detector": training.detector,
            "seed": training.seed,
            "any_seed": training.any_seed,
            "variant": training.variant_name,
            **training.variant,
        }


def cell_key(training: Training, identity: dict[str, Any], molecules: str, tests: str) -> str:
    """What only cells with the same outcome share.

    Parameters
    ----------
    identity : of the encoder.
    molecules, tests : digests of the molecules that are trained and tested on.
    """
    views = training.settings.view_names
    return run_name(training.settings, NOT_DECISIVE, FORMAT, views, identity, molecules, tests)


@dataclass(frozen=True)
class Energies:
    """Energies of a cell's test molecules.

    Attributes
    ----------
    ids : n molecules.
    is_ood : (n,) bool.
    energies : (n,) float64.
    """

    ids: list[str]
    is_ood: np.ndarray
    energies: np.ndarray


def write_cell(output_dir: str, key: str, found: dict[str, Any], energies: Energies) -> None:
    """Write both files; the JSON comes last and completes the cell."""
    columns = asdict(energies)
    table = pa.table({"id": columns["ids"], "is_ood": columns["is_ood"],
                      "energy": columns["energies"]})  # fmt: skip
    write_atomically(f"{output_dir}/{FOLDER}/{key}.parquet", parquet_bytes(table))
    write_atomically(f"{output_dir}/{FOLDER}/{key}.json", json_bytes(found))


def finished_cells(output_dir: str) -> set[str]:
    """The keys of the cells that are there."""
    fs, path = fsspec.url_to_fs(f"{output_dir}/{FOLDER}")
    if not fs.isdir(path):
        return set()
    names = (file.rpartition("/")[2] for file in fs.ls(path, detail=False))
    return {name.removesuffix(".json") for name in names if name.endswith(".json")}


def read_cell(output_dir: str, key: str) -> dict[str, Any]:
    """What `write_cell` was given of a cell."""
    fs, path = fsspec.url_to_fs(f"{output_dir}/{FOLDER}/{key}.json")
    return json.loads(fs.cat_file(path))


def read_energies(output_dir: str, key: str) -> Energies:
    """The energies of a cell."""
    fs, path = fsspec.url_to_fs(f"{output_dir}/{FOLDER}/{key}.parquet")
    table = pq.read_table(BytesIO(fs.cat_file(path)))
    arrays = (table[name].to_numpy(zero_copy_only=False) for name in ("is_ood", "energy"))
    return Energies(table["id"].to_pylist(), *arrays)
