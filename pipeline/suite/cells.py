"""A cell and its files: `cells/<key>.json`, and the energies of its test molecules beside it.

The key is made of all that decides a cell: a setting, a molecule or weights that change make
another key, so that no cell is found that does not belong here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from io import BytesIO
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.runtime.errors import InputError
from pipeline.runtime.files import (
    json_bytes,
    parquet_bytes,
    read_json,
    remove,
    write_atomically,
)
from pipeline.runtime.train.ray_train import run_name
from pipeline.suite.grid import Training
from pipeline.training.trainer import NOT_IDENTITY

FORMAT = 2  # of the files; a change of what is in them makes all cells anew
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
    molecules, tests : digests of the molecules that are trained and tested on: of those alone that
        have features, since a retry of rejected ones may add some.
    """
    views = training.settings.view_names
    return run_name(training.settings, NOT_DECISIVE, FORMAT, views, identity, molecules, tests)


def unmade_key(training: Training, test_data: str) -> str:
    """A key of a cell that has failed before its molecules or features were known; of no file."""
    where = training.data, training.encoder, test_data
    return run_name(training.settings, NOT_DECISIVE, FORMAT, training.settings.view_names, where)


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


def remove_cells(output_dir: str, keys: Iterable[str]) -> None:
    """Remove cells that are to be made anew, so that none counts as finished before it is."""
    for key in sorted(finished_cells(output_dir).intersection(keys)):
        remove(f"{output_dir}/{FOLDER}/{key}.json")


def finished_cells(output_dir: str) -> set[str]:
    """The keys of the cells that are there."""
    fs, path = fsspec.url_to_fs(f"{output_dir}/{FOLDER}")
    if not fs.isdir(path):
        return set()
    names = (file.rpartition("/")[2] for file in fs.ls(path, detail=False))
    return {name.removesuffix(".json") for name in names if name.endswith(".json")}


def read_cell(output_dir: str, key: str) -> dict[str, Any]:
    """What `write_cell` was given of a cell."""
    found = read_json(f"{output_dir}/{FOLDER}/{key}.json")
    if found is None:
        raise InputError(
            f"{output_dir}/{FOLDER}/{key}.json was deleted while the suite ran; run again"
        )
    return found


def read_energies(output_dir: str, key: str) -> Energies:
    """The energies of a cell."""
    fs, path = fsspec.url_to_fs(f"{output_dir}/{FOLDER}/{key}.parquet")
    table = pq.read_table(BytesIO(fs.cat_file(path)))
    arrays = (table[name].to_numpy(zero_copy_only=False) for name in ("is_ood", "energy"))
    return Energies(table["id"].to_pylist(), *arrays)
