"""Which molecules are drawn beside their nearest training molecules, and how."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from matplotlib.figure import Figure

from pipeline.molecules.drawing import drawings
from pipeline.scoring.levels import SCORES
from pipeline.scoring.output.beside import DRAWN, PICTURE, Trusted


def scores(errors: list[float | None], **columns) -> pa.Table:
    """Molecules m0, m1, … with expected errors, each with a nearest molecule of its own."""
    count = len(errors)
    values = {
        "id": [f"m{i}" for i in range(count)],
        "smiles": ["C" * (i + 1) for i in range(count)],
        "energy": np.arange(count, 0, -1.0),
        "p_value": [0.5] * count,
        "is_ood": [False] * count,
        "in_training": [False] * count,
        "nearest_id": [f"n{i}" for i in range(count)],
        "nearest_smiles": ["O" + "C" * i for i in range(count)],
        "nearest_similarity": [0.5] * count,
        "prediction": [None if error is None else 7.0 for error in errors],
        "expected_error": errors,
        **columns,
    }
    empty = {n: pa.nulls(count, SCORES.field(n).type) for n in SCORES.names}
    return pa.table({**empty, **values}).select(SCORES.names).cast(SCORES)


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """Titles and pairs of ids of what `draw` would draw of some parts."""

    def shown(*parts: pa.Table) -> dict[str, list[tuple[str, str]]]:
        found = {}

        def keep(title, columns, path):
            assert path == f"{tmp_path}/{PICTURE}"
            for column in columns:
                found[column.title] = [(left.id, right.id) for left, right in column.pairs]

        monkeypatch.setattr(drawings, "pairs_figure", keep)
        trusted = Trusted()
        for part in parts:
            trusted.add(part)
        assert trusted.draw(str(tmp_path)) == bool(found)
        return found

    return shown


def test_the_ends_of_expected_errors_over_all_parts(drawn):
    errors = [0.5, 0.1, 0.9, None, 0.3, 0.7, 0.2, 0.8, 0.4, 0.6, 1.0, 0.05]
    table = scores(errors)
    ranked = sorted((e, i) for i, e in enumerate(errors) if e is not None)
    found = drawn(table.slice(0, 5), table.slice(5))
    assert found["Trust these first"] == [(f"m{i}", f"n{i}") for _, i in ranked[:DRAWN]]
    assert found["Do not trust these"] == [(f"m{i}", f"n{i}") for _, i in ranked[: -DRAWN - 1 : -1]]


def test_without_errors_the_energy_decides(drawn):
    found = drawn(scores([None] * 8))
    assert found["Most like the training set"][0] == ("m7", "n7")
    assert found["Least like the training set"][0] == ("m0", "n0")


def test_training_molecules_are_left_out_and_no_neighbour_is_there_twice(drawn):
    known = [True, *[False] * 4]
    same = ["O", "CO", "CO", "CCO", "CCO"]
    found = drawn(scores([0.1, 0.2, 0.3, 0.4, 0.5], in_training=known, nearest_smiles=same))
    assert found["Trust these first"] == [("m1", "n1"), ("m3", "n3")]
    assert drawn(scores([0.1], in_training=[True])) == {}


def test_the_picture_has_a_pair_a_row(monkeypatch):
    made: list[Figure] = []
    monkeypatch.setattr(drawings, "save_figure", lambda figure, path: made.append(figure))
    cell = drawings.Cell("CCO", "head", "id")
    columns = [drawings.Pairs("few", [(cell, cell)]), drawings.Pairs("many", [(cell, cell)] * 3)]
    drawings.pairs_figure("what it shows", columns, "x.png")
    pictures = [sum(len(axes.images) for axes in part.axes) for part in made[0].subfigs]
    assert pictures == [2, 6]
