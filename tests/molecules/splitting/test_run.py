"""The command jobs.split: what it says of its input, and stops at."""

from __future__ import annotations

import pytest

from jobs import cli
from jobs.split import split as split_job
from pipeline.molecules.settings import SplitSettings
from pipeline.molecules.splitting import run
from pipeline.molecules.splitting.repeats import distinct
from tests.molecules.data_files import save


def called(capsys, path, *flags: str) -> tuple[int, str, str]:
    """Exit code and output of jobs.split."""
    argv = ["--data_file", str(path), "--output", str(path.parent / "split.json"), *flags]
    code = cli.main(SplitSettings, split_job, "split", argv)
    return code, *capsys.readouterr()


@pytest.fixture
def no_ray(monkeypatch):
    """A start of Ray fails the test."""

    def start_ray():
        raise AssertionError("Ray was started")

    monkeypatch.setattr(run, "start_ray", start_ray)


def test_what_was_guessed_is_told(ray_session, tmp_path, capsys):
    rows = [f"{'C' * (i + 1)};{2000 + i}" for i in range(20)]
    path = save(tmp_path / "d.csv", "\n".join(["Canonical SMILES;Year", *rows]) + "\n")
    code, out, _ = called(capsys, path, "--by", "column", "--column", "year")
    assert code == 0
    assert [line for line in out.splitlines() if line.startswith("guessed")] == [
        "guessed cells are separated by semicolons",
        "guessed column 'Canonical SMILES' is read as --smiles_column smiles",
        "guessed column 'Year' is read as --column year",
    ]
    path = save(tmp_path / "plain.csv", "\n".join(["smiles", *("C" * i for i in range(1, 21))]))
    assert "\nguessed" not in "\n" + called(capsys, path, "--by", "size")[1]


def test_coordinates_of_a_file_are_refused(tmp_path, capsys, no_ray):
    path = save(tmp_path / "d.csv", "smiles\nC\n")
    code, _, error = called(capsys, path, "--structures", "file")
    assert code == 2 and "--structures file: a split has no coordinates" in error


def test_a_date_format_without_an_order_by_value_is_an_input_error(tmp_path, capsys, no_ray):
    path = save(tmp_path / "d.csv", "smiles\nC\n")
    code, _, error = called(capsys, path, "--date_format", "%Y")
    assert code == 2 and "--date_format goes with" in error
    code, _, error = called(capsys, path, "--by", "time")
    assert code == 2 and "--by column, or --by time, and --column NAME go together" in error


def years(path, extra: list[str]):
    """A table of 20 alkanes, each with a year, and rows besides."""
    rows = [f"{'C' * (i + 1)},{2000 + i}" for i in range(20)]
    return save(path / "d.csv", "\n".join(["smiles,year", *rows, *extra]) + "\n")


BY_YEAR = ("--by", "column", "--column", "year", "--column_order", "value")


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ("N,", "'year' is missing in 1 of 21 rows (an empty cell)"),
        ("N,late", "1 of 21 values are neither a number nor an ISO date ('late')"),
    ],
)
def test_domains_are_checked_before_ray_starts(tmp_path, capsys, no_ray, row, told):
    code, _, error = called(capsys, years(tmp_path, [row]), *BY_YEAR)
    assert code == 2 and told in error


def test_domains_of_rows_that_are_no_molecules_do_not_count(ray_session, tmp_path, capsys):
    path = years(tmp_path, [",", ",total", "xx,?", "xx,", "N,2005,6"])
    code, out, _ = called(capsys, path, *BY_YEAR)
    assert code == 0 and "25 in: 0 repeat a molecule, 5 rejected" in out


def test_rows_that_are_lost_are_a_fault(ray_session, tmp_path, monkeypatch):
    rows = ["C" * (i + 1) for i in range(20)]
    path = save(tmp_path / "d.csv", "\n".join(["smiles", *rows, "C"]) + "\n")
    settings = SplitSettings(data_file=str(path), output=str(tmp_path / "s.json"), by="size")
    found = run.run_splitting(settings)
    assert found["rows_in"] == 21 == sum(found["sizes"].values()) + found["repeated"]
    monkeypatch.setattr(run, "distinct", lambda *given: distinct(*given)._replace(repeated=0))
    with pytest.raises(RuntimeError, match="of 21 rows some were lost"):
        run.run_splitting(settings)
