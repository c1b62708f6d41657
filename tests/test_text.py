"""Rows as CSV and as aligned columns."""

import csv
import io

from pipeline.text import aligned, csv_bytes


def test_csv_is_read_back():
    content = csv_bytes(["id", "smiles", "energy"], [("a", "C,C", 0.5), ("b", 'N"\n', -1.0)])
    rows = list(csv.DictReader(io.StringIO(content.decode(), newline="")))
    assert [row["smiles"] for row in rows] == ["C,C", 'N"\n']
    assert [float(row["energy"]) for row in rows] == [0.5, -1.0]


def test_columns_are_as_wide_as_their_longest_cell():
    assert aligned(("a", "long"), [("xyz", "1")]) == ["a    long", "---  ----", "xyz  1"]
