"""jobs.generate from a file of molecules to samples, figures and what it says."""

import json
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest

from jobs import generate as job
from jobs.cli import main
from pipeline.generation import measures
from pipeline.generation.diffusion.generator import Generator
from pipeline.generation.run import run_generation
from pipeline.generation.settings import GenerateSettings
from pipeline.store.keyed_table import feature_matrix
from tests.conftest import SAMPLE
from tests.report.pages import page_of, text_of

FLAGS = {
    "data_file": str(SAMPLE), "foundation_model": "descriptors", "all_splits": True,
    "steps": 40, "checkpoint_every": 20, "width": 32, "blocks": 1, "diffusion_steps": 40,
    "num_samples": 30, "quality_threshold": 0.2,
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def small_forests():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measures, "TREES", 10)
        yield


@pytest.fixture(scope="module")
def made(ray_session, encoder_in_process, tmp_path_factory):
    home = tmp_path_factory.mktemp("generate")
    settings = GenerateSettings(
        **FLAGS, cache_root=str(home / "store"), output_dir=str(home / "out")
    )
    return settings, run_generation(settings), home / "out"


def test_every_row_and_every_candidate_is_accounted_for(made):
    _, summary, _ = made
    assert summary["rows_in"] == 2400
    used = summary["rows_used"] + summary["rows_of_other_splits"] + summary["rejected"]
    assert used == summary["rows_in"]
    assert sum(sum(parts.values()) for parts in summary["rows_by_class"].values()) == 2400
    for counts in summary["classes"].values():
        parts = ("copies_refused", "below_threshold", "passing_not_needed", "returned")
        assert sum(counts[name] for name in parts) == counts["candidates"]
        assert counts["returned"] + counts["shortfall"] == counts["asked"] == 30


def test_samples_are_as_good_as_is_said(made):
    _, summary, out = made
    rows = pq.read_table(out / "generated.parquet")
    assert rows.column_names == ["id", "class", "quality", "features"]
    returned = {name: counts["returned"] for name, counts in summary["classes"].items()}
    classes = rows["class"].to_pylist()
    assert {name: classes.count(name) for name in returned} == returned
    assert min(rows["quality"].to_pylist()) >= 0.2
    features = feature_matrix(rows)
    assert features.shape == (sum(returned.values()), 13) and np.isfinite(features).all()
    assert Generator.read(str(out / "generator")).classes == tuple(returned)
    for figure in ("learning", "quality", "map"):
        assert (out / f"{figure}.png").stat().st_size > 10_000
    assert json.loads((out / "generation_summary.json").read_text()) == summary
    assert pq.read_table(out / "rejected.parquet").num_rows == summary["rejected"]


def test_samples_stand_beside_real_ones_a_gaussian_and_noise(made):
    measured = made[1]["measures"]["0"]
    assert list(measured) == [
        "second real sample", "candidates", "quality at least 0.05", "returned", "gaussian", "noise"
    ]  # fmt: skip
    real, noise = measured["second real sample"], measured["noise"]
    assert real["coverage"] > noise["coverage"] and real["precision"] > noise["precision"]


def test_a_rerun_gives_the_same_samples_and_what_they_lack_is_said(made, tmp_path, capsys):
    settings, _, out = made
    again = replace(settings, output_dir=str(tmp_path))
    job.generate(again)
    first, second = (pq.read_table(folder / "generated.parquet") for folder in (out, tmp_path))
    assert first.equals(second)
    told = capsys.readouterr().out
    assert "rows        2,400 in the file: 2,400 used, 0 of other splits, 0 rejected" in told
    for wanted in ("second real sample", "gaussian", "shortfall", f"{tmp_path}/generated.parquet"):
        assert wanted in told


def test_a_strict_gate_returns_less_and_says_so(made, tmp_path, capsys):
    strict = replace(
        made[0], output_dir=str(tmp_path), quality_threshold=0.99, max_attempts=1, classes=["1"]
    )
    job.generate(strict)
    rows = pq.read_table(tmp_path / "generated.parquet")
    assert rows.num_rows < 30 and set(rows["class"].to_pylist()) <= {"1"}
    missing = 30 - rows.num_rows
    assert f"WARNING: {missing} of 30 samples of class 1 are missing" in capsys.readouterr().out


def test_the_page_shows_what_was_learned_and_what_samples_are_worth(made):
    page = page_of(made[2])
    told = text_of(page)
    (made[2] / "report.html").unlink()
    returned = sum(counts["returned"] for counts in made[1]["classes"].values())
    assert returned and "Generated features" in told and "Samples returned: " in told
    assert page.count('role="img" aria-label="') >= 2
    for shown in ("best linear guess", "second real sample", "Told apart (AUROC)", "Missing"):
        assert shown in told


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--data_file", "nowhere.csv"], "nowhere.csv"),
        (["--data_file", "x.csv", "--quality_threshold", "1"], "--quality_threshold must be below"),
        (["--data_file", "x.csv", "--sampler", "euler"], "--sampler"),
        ([], "required: --data_file"),
    ],
)
def test_a_fault_of_the_user_is_one_line(flags, message, capsys, tmp_path):
    assert main(GenerateSettings, job.generate, "generate", flags) == 2
    told = capsys.readouterr().err.strip().splitlines()
    assert len(told) == 1 and message in told[0] and told[0].startswith("jobs.generate: error: ")
