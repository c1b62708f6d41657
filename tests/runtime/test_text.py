"""Rows as CSV and as aligned columns."""

import csv
import io

import numpy as np

from pipeline.runtime.text import aligned, csv_bytes, hashes_of, records_csv, some


def test_csv_is_read_back():
    content = csv_bytes(["id", "smiles", "energy"], [("a", "C,C", 0.5), ("b", 'N"\n', -1.0)])
    rows = list(csv.DictReader(io.StringIO(content.decode(), newline="")))
    assert [row["smiles"] for row in rows] == ["C,C", 'N"\n']
    assert [float(row["energy"]) for row in rows] == [0.5, -1.0]


def test_records_have_the_last_ones_columns_and_a_label():
    content = records_csv([{"b": 1}, {"a": 0.1, "b": None}], {"encoder": "x"})
    assert content.decode() == "a,b,encoder\n,1,x\n0.1,,x\n"


def test_columns_are_as_wide_as_their_longest_cell():
    assert aligned(("a", "long"), [("xyz", "1")]) == ["a    long", "---  ----", "xyz  1"]


def test_of_many_names_the_first_few_are_told():
    assert some(["a", "b"]) == "a, b"
    assert some([str(i) for i in range(2000)]) == "0, 1, 2, 3, 4 and 1,995 more"


def test_texts_are_told_apart_by_64_bits():
    hashes = hashes_of(str(i % 1000) for i in range(2000))
    assert hashes.dtype == np.uint64 and len(np.unique(hashes)) == 1000
    assert (hashes[:1000] == hashes[1000:]).all() and len(hashes_of([])) == 0
