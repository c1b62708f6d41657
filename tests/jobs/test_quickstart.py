"""The shipped activity set, and how the quickstart goes through it."""

from __future__ import annotations

import pandas as pd
import pytest

from jobs import quickstart
from jobs.quickstart import DATA, LIBRARY, TRAINING, QuickstartSettings
from pipeline.molecules.identity import canonicalize
from pipeline.runtime.errors import InputError


def test_the_library_has_no_training_molecule_and_values_of_some():
    training, library = pd.read_csv(TRAINING), pd.read_csv(LIBRARY)
    known, asked = (set(map(canonicalize, table["smiles"])) for table in (training, library))
    assert (len(known), len(asked)) == (len(training), len(library)) == (450, 250)
    assert not known & asked
    assert training["y"].notna().all()
    measured = library["y"].notna()
    assert set(library["origin"][measured]) == {"same_series", "new_series"}
    assert measured.sum() == 180
    assert training["id"].is_unique and library["id"].is_unique
    assert "CC BY-SA 3.0" in (DATA / "LICENSE").read_text()


JOBS = ["split", "encode", "compare", "screen", "trust", "report"]


@pytest.fixture
def calls(monkeypatch) -> list[tuple[str, object]]:
    """The jobs that were called, and their settings; none of them runs."""
    made = []
    for job in JOBS:
        monkeypatch.setattr(quickstart, job, lambda settings, job=job: made.append((job, settings)))
    return made


def test_the_whole_flow_on_one_store(calls, tmp_path, capsys):
    store = str(tmp_path / "store")
    quickstart.quickstart(
        QuickstartSettings(
            output_dir=str(tmp_path), cache_root=store, seeds=[1, 2], force_recompute_cache=True
        )
    )
    assert [job for job, _ in calls] == JOBS
    made = dict(calls)
    assert made["encode"].data_file == made["compare"].data_file == made["split"].output
    assert [made[job].cache_root for job in ("encode", "compare", "screen")] == [store] * 3
    # what the first makes anew is not made anew by those after it
    assert [made[job].force_recompute_cache for job in ("encode", "compare", "screen")] == [
        True, False, False,
    ]  # fmt: skip
    assert made["compare"].seeds == [1, 2]
    assert made["screen"].views.split(",")[0] == "unimol"
    assert made["trust"].data_file == f"{made['screen'].output_dir}/scores"
    assert made["report"].folder == str(tmp_path)
    assert capsys.readouterr().out.splitlines()[-1] == f"  {tmp_path}/report.html"


def test_a_missing_sample_is_told(calls, monkeypatch, tmp_path):
    monkeypatch.setattr(quickstart, "TRAINING", tmp_path / "none.csv")
    with pytest.raises(InputError, match="--id_file"):
        quickstart.quickstart(QuickstartSettings(id_file=str(tmp_path / "none.csv")))
    assert calls == []
