"""Runs are read from their folders as they were written."""

import csv
import io
import json

import fsspec
import numpy as np
import pytest

from pipeline.comparison.run_folders import read_run, run_folder
from pipeline.runtime.errors import InputError
from tests.comparison.made_runs import make_run


def csv_text(columns):
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values()))
    return text.getvalue()


def write_run(output_dir, run, dynamics):
    folder = run_folder(output_dir, run.arm, run.seed)
    predictions = {
        "id": run.ids,
        "smiles": run.smiles,
        "is_ood": run.is_ood.astype(int).tolist(),
        "energy": run.energies.tolist(),
        "domain": [None] * len(run.ids),
        "encoder": ["unimol"] * len(run.ids),
    }
    files = {
        "training_stats.json": json.dumps(run.stats),
        "ood_evaluation_results.json": json.dumps(run.results),
        "training_dynamics.csv": csv_text(dynamics),
        "detailed_predictions.csv": csv_text(predictions),
    }
    fs, path = fsspec.url_to_fs(folder)
    fs.makedirs(path, exist_ok=True)
    for name, content in files.items():
        fs.pipe_file(f"{path}/{name}", content.encode())


@pytest.mark.parametrize("place", ["path", "uri"])
def test_a_run_is_read_as_it_was_written(tmp_path, place):
    output_dir = str(tmp_path) if place == "path" else f"memory://comparison-{tmp_path.name}"
    run = make_run("finetuned", 7, train_time_seconds=2.5)
    run.ids[3], run.smiles[3] = 'a,"b"', "C\nC"
    dynamics = {
        "epoch": [1, 2],
        "loss": [0.7, 0.5],
        "val_auroc": [0.6, 0.625],
        "encoder": ["unimol"] * 2,
        "weights": ["untrained"] * 2,
    }
    write_run(output_dir, run, dynamics)
    read = read_run(output_dir, "finetuned", 7)

    assert (read.arm, read.seed, read.stats, read.results) == (
        "finetuned", 7, {"train_time_seconds": 2.5}, run.results,
    )  # fmt: skip
    assert (read.ids, read.smiles) == (run.ids, run.smiles)
    np.testing.assert_array_equal(read.is_ood, run.is_ood)
    np.testing.assert_array_equal(read.energies, run.energies)
    assert read.is_ood.dtype == bool
    assert read.dynamics == [
        {"epoch": 1, "loss": 0.7, "val_auroc": 0.6},
        {"epoch": 2, "loss": 0.5, "val_auroc": 0.625},
    ]


def test_a_run_that_has_not_finished_names_the_missing_file(tmp_path):
    with pytest.raises(InputError, match=r"frozen/seed_1/training_stats\.json: not found"):
        read_run(str(tmp_path), "frozen", 1)
