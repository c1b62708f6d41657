"""Domains of molecules: missing ones, numbers, dates and words in order, scaffolds."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pyarrow as pa
import pytest
from rdkit import Chem

from pipeline.molecules.settings import SplitSettings
from pipeline.molecules.splitting.domains import domains_of, scaffold_domain
from pipeline.runtime.errors import InputError
from tests.commands import REPOSITORY


def ordered(values: list[str | None], **changes) -> tuple[list[str], str]:
    """A column's domains in the order in which they become ID, and what it is said to be."""
    usual = {"by": "column", "column": "d", "column_order": "value"}
    settings = SplitSettings(data_file="d.csv", output="s.json", **{**usual, **changes})
    table = pa.table({"domain": pa.array(values, pa.string())})
    found = domains_of(table, settings)
    assert found.names == values
    return found.order, found.told


def refusal(values: list[str | None], **changes) -> str:
    with pytest.raises(InputError) as error:
        ordered(values, **changes)
    assert str(error.value).startswith("d.csv: column 'd'")
    return str(error.value)


@pytest.mark.parametrize("order", ["count", "value"])
def test_missing_domains_are_counted_and_shown(order):
    message = refusal(["T0", "NA", None, "nan", "NA", "1999"], column_order=order)
    assert "missing in 4 of 6 rows ('NA', an empty cell, 'nan')" in message
    assert "--missing_domain drop" in message


ORDERS = {
    "numbers": (["10", "9", "1e2", "-3", "9.50", "9.5"], ["-3", "9", "9.5", "9.50", "10", "1e2"]),
    "years": (["2010", "1999", "1999"], ["1999", "2010"]),
    "eight digits": (["20010203", "19990101"], ["19990101", "20010203"]),
    "ISO dates": (["2010-01-02", "1999-12-31"], ["1999-12-31", "2010-01-02"]),
    "ISO months": (["2010-01", "1999-12", "2010-01-02"], ["1999-12", "2010-01", "2010-01-02"]),
    "ISO times": (
        ["2010-01-02T10:00:00+02:00", "2010-01-02T09:00Z", "2010-01-02 08:30"],
        ["2010-01-02T10:00:00+02:00", "2010-01-02 08:30", "2010-01-02T09:00Z"],
    ),
    "words": (["kinase A", "GPCR", "may be", "inf"], ["GPCR", "inf", "kinase A", "may be"]),
}  # fmt: skip
TOLD = {"numbers": "numbers, smallest", "years": "numbers", "eight digits": "numbers",
        "ISO dates": "ISO dates, oldest", "ISO months": "ISO", "ISO times": "ISO",
        "words": "words in text order"}  # fmt: skip


@pytest.mark.parametrize("kind", ORDERS)
def test_values_come_in_their_own_order_which_is_told(kind):
    values, expected = ORDERS[kind]
    order, told = ordered(values)
    assert order == expected
    assert told.startswith(f"column 'd', {TOLD[kind]}")


def test_dates_of_a_format_come_oldest_first():
    order, told = ordered(["05/02/2001", "01/03/1999", "28/10/2000"], date_format="%d/%m/%Y")
    assert order == ["01/03/1999", "28/10/2000", "05/02/2001"]
    assert "dates as %d/%m/%Y" in told
    message = refusal(["05/02/2001", "28/10/2000", "soon"], date_format="%m/%d/%Y")
    assert "2 of 3 values do not fit --date_format '%m/%d/%Y' ('28/10/2000', 'soon')" in message


# Values with digits that are neither numbers nor ISO dates, the one that is shown first, and the
# formats that are proposed.
NO_ORDER = {
    "one format": (["28/10/2000", "05/02/2001"], "05/02/2001", ["%d/%m/%Y"]),
    "ambiguous": (["05/02/2001", "08/10/2000"], "05/02/2001", ["%d/%m/%Y", "%m/%d/%Y"]),
    "short years": (["05/02/03"], "05/02/03", ["%d/%m/%y", "%m/%d/%y", "%y/%m/%d"]),
    "short months": (["3-Feb-2001", "12-Dec-1999"], "12-Dec-1999", ["%d-%b-%Y"]),
    "May": (["1 May 2001", "2 May 2001"], "1 May 2001", ["%d %b %Y"]),
    "months": (["May 2001", "Jun 2000"], "Jun 2000", ["%b %Y"]),
    "no zeros": (["2001-2-5", "2001-10-28"], "2001-2-5", ["%Y-%m-%d"]),
    "year first": (["2001-Feb-05"], "2001-Feb-05", ["%Y-%b-%d"]),
    "point": (["Jan. 5, 2001"], "Jan. 5, 2001", ["%b. %d, %Y"]),
    "month first": (["Feb-05-2001"], "Feb-05-2001", ["%b-%d-%Y"]),
    "Unix": (["Mon Feb 5 10:00:00 2001"], "Mon Feb 5 10:00:00 2001", ["%a %b %d %H:%M:%S %Y"]),
    "times": (["28/10/2000 09:00"], "28/10/2000 09:00", ["%d/%m/%Y %H:%M"]),
    "milliseconds": (["28/10/2000 10:00:00.123"], "28/10/2000 10:00:00.123",
                     ["%d/%m/%Y %H:%M:%S.%f"]),
    "noon": (["10/28/2000 1:30 PM"], "10/28/2000 1:30 PM", ["%m/%d/%Y %I:%M %p"]),
    "5th": (["5th Feb 2001"], "5th Feb 2001", []),
    "quarters": (["Q1 2001"], "Q1 2001", []),
    "decimal commas": (["1,5", "2"], "1,5", []),
    "per cent": (["9%", "10%"], "10%", []),
    "names with numbers": (["P2", "P10", "GPCR"], "P10", []),
    "numbers and words": (["9", "10", "x", "y"], "x", []),
    "digits first": (["a", "b", "c", "d", "e5"], "e5", []),
    "no numbers": (["1_000", "1e400", "inf", "7"], "1_000", []),
    "and ISO": (["05/02/2001", "2001-02-05"], "05/02/2001", []),
    "and words": (["05/02/2001", "soon"], "05/02/2001", []),
    "no such day": (["2001-02-30", "2001-02-01"], "2001-02-30", []),
}  # fmt: skip


@pytest.mark.parametrize("kind", NO_ORDER)
def test_values_with_digits_are_no_words(kind):
    values, shown, formats = NO_ORDER[kind]
    message = refusal(values)
    assert f"values are neither a number nor an ISO date ({shown!r}" in message
    assert re.findall("--date_format '(.+?)'", message) == formats
    assert message.endswith(", or --column_order count") and "--date_format" in message
    assert ("ambiguous" in message) == (len(formats) > 1)
    assert ordered(values, column_order="count")[0] == sorted(values)
    for form in formats:
        assert f"dates as {form}" in ordered(values, date_format=form)[1]


def test_numbers_and_iso_dates_have_no_common_order():
    message = refusal(["2001-02-05", "2004"])
    assert "numbers and ISO dates have no common order" in message


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("C[C@H]1CC[C@@H](c2ccccc2)C1", "C[C@@H]1CC[C@@H](c2ccccc2)C1"),
        ("O=C1[C@H](c2ccccc2)CN1", "O=C1[C@@H](c2ccccc2)CN1"),
        ("c1ccccc1/C=C/c1ccncc1", r"c1ccccc1/C=C\c1ccncc1"),
        ("[2H]c1ccccc1C1CCCC1", "c1ccccc1C1CCCC1"),
        ("c1cc[13cH]cc1C1CCCC1", "c1ccccc1C1CCCC1"),
    ],
)
def test_isomers_share_a_scaffold(one, other):
    assert Chem.CanonSmiles(one) != Chem.CanonSmiles(other)
    scaffold, atoms = scaffold_domain(one)
    assert (scaffold, atoms) == scaffold_domain(other)
    assert not set("@/\\") & set(scaffold)


THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
SPLIT = """
import gzip, json, pyarrow as pa
from pipeline.molecules.settings import SplitSettings
from pipeline.molecules.splitting.splits import make_split
smiles = [line.strip() for line in gzip.open("data/hiv_sample.csv.gz", "rt")][1:601]
smiles = [line.split(",")[0] for line in smiles]
table = pa.table({"smiles": smiles, "label": [float(i % 2) for i in range(600)],
                  "domain": [str(1990 + len(s) % 9) for s in smiles]})
for by in ({"by": "scaffold"}, {"by": "size"}, {"by": "column", "column": "d"},
           {"by": "column", "column": "d", "column_order": "value"},
           {"by": "time", "column": "d"}, {"by": "cluster"}):
    made = make_split(table, SplitSettings(data_file="d.csv", output="s.json", **by))
    print(json.dumps(made.content))
few = pa.table({"smiles": [line.strip() for line in open("tests/data/hiv.smi")][:45],
                "label": [0.0] * 45})  # among these, one rounding decides
made = make_split(few, SplitSettings(data_file="d", output="s.json", by="cluster", clusters=12))
print(json.dumps(made.content))
"""


def test_a_split_is_the_same_under_any_hash_seed_and_number_of_threads():
    made = [
        subprocess.run(
            [sys.executable, "-c", SPLIT], cwd=REPOSITORY, capture_output=True, check=True,
            env={**os.environ, **dict.fromkeys(("PYTHONHASHSEED", *THREADS), number)},
        ).stdout
        for number in ("1", "2")
    ]  # fmt: skip
    assert made[0] == made[1] and made[0].count(b"ood_test") == 7
