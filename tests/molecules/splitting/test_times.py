"""Splits by time, against a plain sort."""

from __future__ import annotations

import json
import random
from datetime import date, timedelta

import pyarrow as pa
import pytest

from jobs import cli
from jobs.split import split as split_job
from pipeline.molecules.settings import SplitSettings
from pipeline.molecules.splitting.domains import domains_of
from pipeline.runtime.errors import InputError
from tests.molecules.data_files import save
from tests.molecules.splitting.cuts import cut

ID_SPLITS = ("train", "iid_val", "iid_test")


@pytest.mark.parametrize("written", ["%Y-%m-%d", "%d/%m/%Y", "%Y%m%d", "%Y"])
@pytest.mark.parametrize("seed", range(3))
def test_the_earliest_are_id_by_whole_dates(written, seed):
    chance = random.Random(seed)
    days = [date(1999, 1, 1) + timedelta(int(chance.gauss(3000, 1500))) for _ in range(300)]
    days = [chance.choice(days[:200]) for _ in days]  # so that there are ties
    if written == "%Y":
        days = [day.replace(month=1, day=1) for day in days]
    smiles = ["C" * (i + 1) for i in range(300)]
    table = pa.table({"smiles": smiles, "label": [0.0] * 300,
                      "domain": [day.strftime(written) for day in days]})  # fmt: skip
    date_format = written if "/" in written else None
    made = cut(table, by="time", column="d", date_format=date_format, seed=seed)
    day_of = dict(zip(smiles, days))
    found = {split: {day_of[item["smiles"]] for item in items} for split, items in made.items()}
    rising = sorted(days)  # the date of the molecule at each border is wholly on its earlier side
    last_id = rising[179]
    last_val = max(rising[239], min(day for day in rising if day > last_id))
    assert set.union(*(found[split] for split in ID_SPLITS)) == {d for d in days if d <= last_id}
    assert found["ood_val"] == {d for d in days if last_id < d <= last_val}
    assert found["ood_test"] == {d for d in days if last_val < d}
    assert sum(map(len, made.values())) == 300


def times(values: list[str], **changes) -> tuple[list[str], list[str], str]:
    settings = SplitSettings(data_file="d.csv", output="s.json", by="time", column="d", **changes)
    return tuple(domains_of(pa.table({"domain": pa.array(values, pa.string())}), settings))


KINDS = {
    "years": (["2010", "1999", "2010.0"], ["2010", "1999", "2010"], "years"),
    "dates": (["2010-01-02", "20100102", "1999-12"], ["2010-01-02", "2010-01-02", "1999-12-01"],
              "ISO dates"),
    "times of a day": (["2010-01-02T10:00Z", "2010-01-02 23:59", "2010-01-03T01:00+02:00"],
                       ["2010-01-02"] * 3, "ISO dates"),
    "the last day": (["9999-12-31T23:00-05:00"], ["9999-12-31"], "ISO dates"),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_one_time_written_in_two_ways_is_one_domain(kind):
    values, expected, what = KINDS[kind]
    names, order, told = times(values)
    assert names == expected and order == sorted(set(expected))
    assert told == f"column 'd', {what}, earliest first"


def test_dates_of_a_format():
    names, order, told = times(["05/02/2001", "01/03/1999"], date_format="%d/%m/%Y")
    assert names == ["2001-02-05", "1999-03-01"] and order == names[::-1]
    assert "dates as %d/%m/%Y, earliest first" in told


REFUSED = {
    "words": (["early", "late"], "its values are words, which have no time ('early', 'late')"),
    "one word": (["2001", "late"], "1 of 2 values are neither a year nor an ISO date ('late')"),
    "ambiguous": (["05/02/2001"], "--date_format '%d/%m/%Y' and --date_format '%m/%d/%Y' fit all"),
    "one format": (["28/02/2001"], "; pass --date_format '%d/%m/%Y'"),
    "both": (["2001", "2001-02-05"], "years and ISO dates have no common order; write all as"),
    "short years": (["99", "01"], "neither a year nor an ISO date ('01', '99')"),
    "numbers": (["6.5", "2001"], "1 of 2 values are neither a year nor an ISO date ('6.5')"),
    "no such day": (["20010230"], "neither a year nor an ISO date ('20010230')"),
    "missing": (["2001", "NA"], "missing in 1 of 2 rows ('NA'); fill them, or pass --missing_dom"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_what_has_no_time_is_refused(kind):
    values, told = REFUSED[kind]
    with pytest.raises(InputError) as error:
        times(values)
    assert str(error.value).startswith("d.csv: column 'd'") and told in str(error.value)


def test_the_command_tells_the_dates(ray_session, tmp_path, capsys):
    rows = [f"{'C' * (i + 1)},{i % 28 + 1:02d}/03/{2000 + i}" for i in range(20)]
    path = save(tmp_path / "d.csv", "\n".join(["smiles,seen", *rows, "N,", "C,1/1/1999", "xx,"]))
    target = tmp_path / "s.json"
    argv = ["--data_file", str(path), "--by", "time", "--column", "seen", "--output", str(target)]
    assert cli.main(SplitSettings, split_job, "split", argv) == 2
    assert "'seen' is missing in" in capsys.readouterr().err
    argv += ["--missing_domain", "drop", "--date_format", "%d/%m/%Y"]
    assert cli.main(SplitSettings, split_job, "split", argv) == 0
    out = capsys.readouterr().out
    assert "23 in: 1 repeat a molecule, 1 rejected" in out
    assert "dropped 1 rows without a domain" in out
    assert "order   column 'seen', dates as %d/%m/%Y, earliest first" in out
    assert (
        "dates   ID 2000-03-01 to 2011-03-12, ood_val 2012-03-13 to 2015-03-16, "
        "ood_test 2016-03-17 to 2019-03-20" in out
    )
    items = json.loads(target.read_text())["split"]
    assert [item["assay_id"] for item in items["ood_test"]][-1] == "2019-03-20"
    assert sum(map(len, items.values())) == 20


def test_words_stop_before_ray_starts(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("pipeline.molecules.splitting.run.start_ray", lambda: pytest.fail("Ray"))
    path = save(tmp_path / "d.csv", "smiles,d\nC,early\nCC,late\n")
    argv = ["--data_file", str(path), "--by", "time", "--column", "d", "--output", "s.json"]
    assert cli.main(SplitSettings, split_job, "split", argv) == 2
    assert "words, which have no time" in capsys.readouterr().err


def test_the_help_has_both_ways(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(SplitSettings, split_job, "split", ["--help"])
    assert ended.value.code == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "{scaffold,size,cluster,column,time}" in out and "--clusters" in out
