"""Which rows a generator learns from, and what it says of those that it cannot use."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.generation.run import cut
from pipeline.generation.settings import GenerateSettings
from pipeline.generation.source import read_source
from pipeline.runtime.errors import InputError

RNG = np.random.default_rng(0)


def write(path, features, classes, **others):
    pq.write_table(pa.table({"x": features, "kind": classes, **others}), path)
    return GenerateSettings(data_file=str(path), features_column="x", class_column="kind")


def some_rows(count=50, width=3):
    return RNG.normal(size=(count, width)).astype(np.float32).tolist()


def test_a_column_of_lists_is_read_and_every_row_accounted_for(tmp_path):
    features = some_rows()
    features[3], features[4] = features[3][:2], None
    classes = ["a", "b"] * 24 + ["a", None]
    splits = ["train"] * 45 + ["iid_val"] * 5
    settings = write(tmp_path / "t.parquet", features, classes, part=splits)
    source = read_source(replace(settings, split_column="part"))
    assert source.names == ("a", "b") and source.features.shape == (43, 3)
    assert source.other_splits == 5
    assert source.rejected["id"].to_pylist() == ["row 3", "row 4"]
    assert source.rejected["reason"][0].as_py() == "it has no 3 features, as most rows have"
    every = read_source(settings)  # no split column: all rows
    assert every.rejected.num_rows == 3 and every.rejected["reason"][2].as_py() == "it has no class"
    assert len(every.ids) + every.rejected.num_rows + every.other_splits == every.rows_in == 50
    row = every.ids.index("row 7")
    np.testing.assert_array_equal(every.features[row], np.float32(features[7]))
    assert every.names[every.classes[row]] == classes[7]


def faulty(kind):
    features, classes = some_rows(), ["a", "b"] * 25
    if kind == "small":
        classes = ["a"] * 40 + ["b"] * 10
    elif kind == "nan":
        features[7][1] = float("nan")
    elif kind == "constant":
        features = [[1.0, *row[1:]] for row in features]
    elif kind == "numbers":
        features = [row[0] for row in features]
    elif kind == "words":
        features = [["a", "b"] for _ in features]
    elif kind == "none":
        features = pa.array([None] * 50, pa.list_(pa.float32()))
    elif kind == "lists":
        classes = [[name] for name in classes]
    return features, classes


@pytest.mark.parametrize(
    "kind, message",
    [
        ("small", r"each class needs at least 20 rows; too small: 'b' \(10\)"),
        ("nan", "1 rows have features that are NaN or infinite, the first: row 7"),
        ("constant", "1 of 3 features are the same in every row, the first: number 0"),
        ("numbers", "it holds double, not lists of numbers"),
        ("words", "not lists of numbers"),
        ("none", "--features_column x: .* has no rows with features"),
        ("lists", "--class_column kind: it holds list<.*>, not names"),
    ],
)
def test_what_cannot_be_learned_from_is_one_line(tmp_path, kind, message):
    with pytest.raises(InputError, match=message):
        read_source(write(tmp_path / "t.parquet", *faulty(kind)))


def test_a_wrong_column_file_or_class_is_one_line(tmp_path):
    settings = write(tmp_path / "t.parquet", *faulty("fine"))
    for changes, message in (
        ({"features_column": "y"}, "--features_column y: .* has no such column; it has x, kind"),
        ({"class_column": "y"}, "--class_column y: .* has no such column"),
        ({"class_column": None}, "--features_column needs --class_column"),
        ({"classes": ["c"]}, "--classes c: no such class; there are a, b"),
        ({"data_file": str(tmp_path / "none.parquet")}, "--data_file .*: not a Parquet file"),
    ):
        with pytest.raises(InputError, match=message):
            read_source(replace(settings, **changes))


def test_a_class_that_is_no_number_is_missing(tmp_path):
    classes = [0.0, 1.0] * 24 + [float("nan"), 1.0]
    source = read_source(write(tmp_path / "t.parquet", some_rows(), classes))
    assert source.names == ("0", "1") and source.rejected["id"].to_pylist() == ["row 48"]


def test_equal_rows_are_of_one_part(tmp_path):
    rows = some_rows(60)
    settings = write(tmp_path / "t.parquet", rows + rows[:30], ["a", "b"] * 45)
    parts = cut(read_source(settings), settings)
    seen = [set(map(bytes, each.features)) for each in parts]
    assert not (seen[0] & seen[1] or seen[0] & seen[2] or seen[1] & seen[2])
    assert sum(len(each.classes) for each in parts) == 90
    assert all(set(each.classes) == {0, 1} for each in parts)
    few = write(tmp_path / "u.parquet", rows[:4] * 20, ["a", "b"] * 40)
    with pytest.raises(InputError, match="class 'a' has 2 different rows, too few"):
        cut(read_source(few), few)


def test_settings_that_contradict_each_other_are_one_line():
    for changes, message in (
        ({"sampling_steps": 300}, "--sampling_steps 300 is more than --diffusion_steps 200"),
        ({"guidance": 2.0, "class_dropout": 0.0}, "--guidance needs --class_dropout above 0"),
    ):
        with pytest.raises(InputError, match=message):
            GenerateSettings(data_file="x.csv", **changes)
