"""jobs.score: energies and p-values against the formula, rows in and out, reruns, kills."""

from __future__ import annotations

import json
import signal
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from jobs import score as score_job
from jobs.cli import main
from pipeline.detectors.heads.energy_head import EnergyHead, energies_of
from pipeline.encoders import load_encoder
from pipeline.evaluation.calibration import Calibration
from pipeline.molecules.identity import canonicalize
from pipeline.runtime.errors import InputError
from pipeline.scoring.run import run_scoring
from pipeline.scoring.settings import ScoreSettings
from tests.commands import assert_one_line, start_job, wait_until
from tests.held import hold, release
from tests.scoring.made_library import BAD_LINES, SALT, settings, table
from tests.scoring_here import scoring_here

pytestmark = pytest.mark.usefixtures("encoder_in_process")


# --- p-values ---------------------------------------------------------------------------------


@given(
    st.lists(st.integers(-5, 5), min_size=1, max_size=30),
    st.lists(st.integers(-6, 6), min_size=1, max_size=20),
    st.integers(1, 99),
)
def test_p_values_are_the_formulas_and_the_threshold_is_theirs(known, new, percent):
    """Ties among the energies, and alphas that fall on a p-value, included."""
    alpha = percent / 100
    calibration = Calibration(np.sort(np.array(known, dtype=np.float64)))
    energies = np.array(new, dtype=np.float64)
    p_values = calibration.p_values(energies)
    expected = [(1 + sum(k >= e for k in known)) / (len(known) + 1) for e in energies]
    assert p_values.tolist() == expected
    assert ((p_values <= alpha) == (energies > calibration.threshold(alpha))).all()


def test_exchangeable_molecules_are_called_ood_at_most_as_often_as_alpha():
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(400):
        energies = rng.normal(size=199)
        calibration = Calibration(np.sort(energies[:99]))
        shares.append((calibration.p_values(energies[99:]) <= 0.1).mean())
    assert np.mean(shares) == pytest.approx(0.1, abs=0.01)


# --- scoring ----------------------------------------------------------------------------------


def assert_same_scores(home: Path, name: str) -> None:
    """The rows of the undisturbed run, each once, in order; energies but for float32's sums."""
    scores, expected = table(home / name, "scores"), table(home / "whole", "scores")
    assert [row["id"] for row in scores] == [row["id"] for row in expected]
    energies = [[row["energy"] for row in rows] for rows in (scores, expected)]
    np.testing.assert_allclose(*energies, rtol=0, atol=1e-5)


def test_every_row_is_scored_by_the_formula_or_rejected(home, whole, small_weights):
    lines = (home / "library.smi").read_text().splitlines()
    scores, rejected = table(home / "whole", "scores"), table(home / "whole", "rejected")
    assert {row["id"] for row in rejected} == {f"library:{i}" for i in BAD_LINES}
    ids = [f"library:{i}" for i in range(60) if i not in BAD_LINES]
    assert [row["id"] for row in scores] == ids
    assert (whole["rows_in"], whole["scored"], whole["rejected"]) == (60, 57, 3)

    torch.manual_seed(1)
    head = EnergyHead(64, hidden_dim=16)
    encoder = load_encoder("unimol", weights=str(small_weights), precision="fp32")
    validation = pq.read_table(home / "checkpoint/training_molecules.parquet")["smiles"]
    known = energies_of(head, encoder.encode_smiles(validation.to_pylist()))
    good = [canonicalize(line) for i, line in enumerate(lines) if i not in BAD_LINES]
    energies = energies_of(head, encoder.encode_smiles(good))
    np.testing.assert_allclose([row["energy"] for row in scores], energies, atol=1e-5)
    assert np.abs(np.subtract.outer(energies, known)).min() > 1e-6  # no ties that rounding decides
    expected = [(1 + (known >= e).sum()) / 20 for e in energies]
    assert [row["p_value"] for row in scores] == pytest.approx(expected, abs=1e-12)
    assert [row["is_ood"] for row in scores] == [row["p_value"] <= 0.1 for row in scores]
    assert whole["ood"] == sum(row["is_ood"] for row in scores)
    assert [row["smiles"] for row in scores] == good


def test_the_ends_are_the_largest_and_smallest_energies(home, whole):
    rows = [line.split(",") for line in (home / "whole/top.csv").read_text().splitlines()[1:]]
    energies = sorted(row["energy"] for row in table(home / "whole", "scores"))
    found = [float(row[4]) for row in rows]
    assert found == pytest.approx(energies[:-4:-1] + energies[:3])
    for name in ("most_ood.png", "least_ood.png"):
        assert (home / "whole" / name).read_bytes().startswith(b"\x89PNG")


def test_a_rerun_scores_only_what_is_missing(in_this_process, home, whole):
    folder = home / "whole"
    old = folder / "scores/part-00000-0000004.parquet"
    new = old.read_bytes()
    part = pq.read_table(old)
    unknown = pa.nulls(part.num_rows, pa.string())  # as an earlier version's features have it
    place = part.column_names.index("structure")
    pq.write_table(part.set_column(place, "structure", unknown), old)
    before = {path.name: path.stat().st_mtime_ns for path in (folder / "scores").glob("part-*")}
    assert len(before) == 8
    content = (folder / "scores/part-00000-0000003.parquet").read_bytes()
    (folder / "scores/part-00000-0000003.parquet").unlink()
    again = run_scoring(settings(home, "whole"))
    assert again["rows_of_this_run"] == 8 and again["encoded"] == 0
    assert (again["scored"], again["ood"]) == (whole["scored"], whole["ood"])
    assert (folder / "scores/part-00000-0000003.parquet").read_bytes() == content
    after = {path.name: path.stat().st_mtime_ns for path in (folder / "scores").glob("part-*")}
    changed = {name for name in before if after[name] != before[name]}
    assert changed == {"part-00000-0000003.parquet"}
    assert again["structures"] == {"3d": 48, "clashing": 1, "cropped": 0, "2d": 0, "unknown": 8}
    old.write_bytes(new)


def test_chunks_change_nothing_and_the_store_is_only_read_if_asked(home, whole):
    store = sorted(path.name for path in (home / "store").rglob("*.parquet"))
    with scoring_here():
        once = run_scoring(settings(home, "big", chunk_size=1000))
    assert once["encoded"] == 0
    assert_same_scores(home, "big")
    apart = run_scoring(
        settings(home, "apart", cache_root=str(home / "other"), keep_encodings=False)
    )
    assert apart["encoded"] > 0
    assert_same_scores(home, "apart")
    assert sorted(path.name for path in (home / "store").rglob("*.parquet")) == store
    kept = [path for path in (home / "other").rglob("*.parquet")]
    assert sum(pq.read_metadata(path).num_rows for path in kept) == 2 * 19  # the calibration's


def test_a_killed_run_is_continued_and_what_is_damaged_is_made_anew(home, whole, tmp_path, caplog):
    run = settings(home, "killed", cache_root=str(tmp_path / "store"), chunk_size=4)
    flags = {
        name: value for name, value in asdict(run).items()
        if value is not None and name not in ("force_recompute_cache", "retry_rejected")
    }  # fmt: skip
    hold(home / "killed", after=12)
    process = start_job("score", home / "killed", flags, held=True)

    def parts() -> list[Path]:
        return sorted((home / "killed").glob("scores/part-*"))

    wait_until(lambda: len(parts()) == 12, process, home / "killed")
    rejecting = min(path.name for path in (home / "killed").glob("rejected/part-*"))
    process.send_signal(signal.SIGKILL)
    process.wait()
    release(home / "killed")
    short, gone, *others = (part for part in parts() if part.name != rejecting)
    kept = {path: path.stat().st_mtime_ns for path in others}
    assert len(kept) == 9
    gone.unlink()  # its features are in the store, with a wrong bit
    short.write_bytes(short.read_bytes()[:-20])
    shards = list((tmp_path / "store/features").glob("*/*.parquet"))
    for shard in shards:
        content = bytearray(shard.read_bytes())
        content[len(content) // 2] ^= 1
        shard.write_bytes(content)

    (home / "killed/rejected" / rejecting).write_bytes(b"")

    argv = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
    assert main(ScoreSettings, score_job.score, "score", argv) == 0
    log = caplog.text
    assert f"{short} is damaged" in log
    assert any(f"{shard} is damaged" in log for shard in shards)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert_same_scores(home, "killed")
    ids = [[row["id"] for row in table(home / name, "rejected")] for name in ("killed", "whole")]
    assert ids[0] == ids[1]


@pytest.mark.parametrize("change", [{"chunk_size": 9}, {"fragments": "largest"}])
def test_scores_of_other_settings_are_not_mixed(home, whole, change):
    with pytest.raises(InputError, match=f"scores of another {next(iter(change))}"):
        run_scoring(replace(settings(home, "whole"), **change))


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ({"checkpoint": "absent"}, "not a checkpoint"),
        ({"data_file": "absent.csv"}, "no such file"),
        ({"alpha": 0.01}, "smallest p-value is 0.05"),
        ({"alpha": 2}, "--alpha must be below 1"),
        ({"weights": "mini"}, "trained on another encoder"),
    ],
)
def test_wrong_settings_are_one_line(home, whole, tmp_path, capsys, flags, told):
    usual = {
        "data_file": home / "library.smi", "checkpoint": home / "checkpoint", "device": "cpu",
        "cache_root": home / "store", "output_dir": tmp_path / "out",
    }  # fmt: skip
    argv = [w for name, value in {**usual, **flags}.items() for w in (f"--{name}", str(value))]
    code = main(ScoreSettings, score_job.score, "score", argv)
    assert_one_line(code, capsys.readouterr().err, "score", told)


def test_a_file_that_breaks_in_the_middle_is_one_line(home, whole, tmp_path, capsys):
    """It is read while others are scored already, in a worker."""
    content = pa.table({"smiles": ["C" * (i + 1) for i in range(40)]})
    folder = tmp_path / "library"
    folder.mkdir()
    pq.write_table(content, folder / "a.parquet")
    (folder / "b.parquet").write_bytes((folder / "a.parquet").read_bytes()[:-50])
    argv = [
        "--data_file", str(folder), "--checkpoint", str(home / "checkpoint"), "--device", "cpu",
        "--cache_root", str(home / "store"), "--output_dir", str(tmp_path / "out"),
    ]  # fmt: skip
    code = main(ScoreSettings, score_job.score, "score", argv)
    assert_one_line(code, capsys.readouterr().err, "score", "b.parquet", "cannot be read")


def test_an_empty_library_is_an_input_error(in_this_process, home, whole, tmp_path):
    (tmp_path / "empty.smi").write_text("")
    with pytest.raises(InputError, match="no rows"):
        run_scoring(settings(home, "none", data_file=str(tmp_path / "empty.smi")))


def test_the_summary_says_what_was_done(home, whole):
    assert json.loads((home / "whole/run_summary.json").read_text())["calibration_molecules"] == 19
    assert whole["encoded"] == 57  # the molecule that is there twice lies in two chunks
    assert whole["structures"] == {"3d": 56, "clashing": 1, "cropped": 0, "2d": 0}
    structures = {row["smiles"]: row["structure"] for row in table(home / "whole", "scores")}
    assert {s for s, structure in structures.items() if structure != "3d"} == {canonicalize(SALT)}
    assert whole["repeated_ids"] == {"ids": 0, "rows": 0, "first": []}


def test_only_the_largest_fragments_are_scored_if_asked(in_this_process, home, whole, tmp_path):
    (tmp_path / "salts.smi").write_text("CCO.Cl\nOCC\n")
    run = settings(home, "salts", data_file=str(tmp_path / "salts.smi"), fragments="largest")
    assert (run_scoring(run)["fragments_removed"], whole["fragments_removed"]) == (1, 0)
    salt, plain = table(home / "salts", "scores")
    assert (salt["smiles"], salt["energy"]) == (plain["smiles"], plain["energy"])
