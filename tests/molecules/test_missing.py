"""What cells say that hold nothing."""

from __future__ import annotations

import subprocess
import sys

import pyarrow.csv

from pipeline.molecules.reading.missing import MISSING, is_missing
from tests.commands import REPOSITORY

WORDS = ["NA", "N/A", "NaN", "nan", "null", "NULL", "None", "<NA>", "#N/A", "#NA", "", " ", " na "]


def test_words_that_stand_for_nothing_are_missing():
    known = pyarrow.csv.ConvertOptions().null_values
    assert all(map(is_missing, [None, *WORDS, *known, "NaT", "none\t"]))
    assert not any(map(is_missing, ["0", "T0", "nano", "Nab", "unknown", "-"]))
    assert MISSING == {word.strip().casefold() for word in MISSING}


def test_using_a_split_does_not_take_what_makes_one():
    code = (
        "import sys, pipeline.molecules.roles; print([m for m in sys.modules if 'splitting' in m])"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, check=True, text=True
    )
    assert found.stdout.strip() == "[]"
