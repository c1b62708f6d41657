"""Charts: what they draw is where the numbers are."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from pipeline.report.blocks import Section, Table, number
from pipeline.report.figures.chemical_map import chemical_map
from pipeline.report.figures.curves import p_value_chart, roc_chart
from pipeline.report.figures.heat_map import heat_map
from pipeline.report.figures.plot import HEIGHT, LEFT, WIDTH, Plot, histogram, short, thinned, ticks
from pipeline.report.figures.rank_diagram import cliques
from pipeline.report.page import page_bytes
from pipeline.report.settings import ReportSettings


def paths(chart) -> list[list[tuple[float, float]]]:
    """The points of each of a chart's marks, in the picture's units."""
    root = ElementTree.fromstring(str(chart.svg))
    marks = [node for node in root if " c-" in node.get("class", "")]
    return [
        [tuple(map(float, pair)) for pair in re.findall(r"[ML]([-\d.e]+) ([-\d.e]+)", m.get("d"))]
        for m in marks
    ]


def test_a_point_lies_at_its_share_of_the_axes():
    plot = Plot("t", "x", "y", (0, 10), (-1, 1))
    plot.line([0, 5, 10], [-1, 0, 1], "id", "a line")
    ((first, middle, last),) = paths(plot.chart())
    assert first == (LEFT, HEIGHT - 44) and last == (WIDTH - 12, 10)
    assert middle == pytest.approx(((first[0] + last[0]) / 2, (first[1] + last[1]) / 2), abs=0.1)


def test_a_histogram_counts_as_numpy_does_and_says_what_is_beyond_or_missing():
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(0, 1, 5000), [1e6, -1e6, np.nan]])
    plot, note = histogram("t", "x", [("a", "id", values)], shares=False)
    (mark,) = plot.marks
    heights, edges = mark.y[1:-1:2], mark.x[::2]
    kept = values[np.isfinite(values)]
    assert heights.sum() == len(kept)
    # the first and last bin take what is beyond
    assert heights[1:-1].tolist() == np.histogram(kept, edges)[0][1:-1].tolist()
    beyond = int(((kept < edges[0]) | (kept > edges[-1])).sum())
    assert note == f"{beyond:,} values beyond the axis stand in its last bins; 1 have no value"
    assert 2 <= beyond < 60 and edges[-1] < 10


def test_values_that_are_all_the_same_make_a_histogram_and_none_make_no_mark():
    plot, note = histogram("t", "x", [("a", "id", np.full(4, 3.0))])
    assert plot.marks[0].y.max() == 1 and note == ""
    assert not re.search(r"\bnan\b", str(plot.chart().svg), flags=re.I)
    empty, note = histogram("t", "x", [("a", "id", np.full(2, np.nan))])
    assert (empty.marks, note) == ([], "no values")


@pytest.mark.parametrize(
    ("value", "step", "text"),
    [(0.2, 0.2, "0.2"), (0.30000000000000004, 0.1, "0.3"), (-2.5, 2.5, "−2.5"), (0, 1, "0"),
     (1500, 500, "1,500"), (0.025, 0.025, "0.025"), (2e6, 1e6, "2e+06"), (3e-5, 1e-5, "3e-05")],
)  # fmt: skip
def test_ticks_have_the_digits_that_their_step_needs(value, step, text):
    assert short(value, step) == text


def test_ticks_lie_within_the_range_and_at_whole_numbers_where_asked():
    places = [place for place, _ in ticks((0.7, 6.2), 6, whole=True)]
    assert places == [1, 2, 3, 4, 5, 6]
    assert all(0.13 <= place <= 0.91 for place, _ in ticks((0.13, 0.91), 5))


def test_a_long_line_keeps_its_ends_and_stays_short():
    x, y = thinned(np.arange(100_000), np.arange(100_000), 400)
    assert len(x) == 400 and (x[0], x[-1]) == (0, 99_999) and (x == y).all()


def test_the_steps_of_p_values_rise_at_each_value():
    (diagonal, steps) = paths(p_value_chart("t", [("a", "id", np.array([0.5, 0.25]))], ""))
    left, bottom = diagonal[0]
    right, top = diagonal[1]
    x = [(p[0] - left) / (right - left) for p in steps]
    y = [(p[1] - bottom) / (top - bottom) for p in steps]
    assert x == pytest.approx([0, 0.25, 0.25, 0.5, 0.5, 1], abs=0.005)
    assert y == pytest.approx([0, 0, 0.5, 0.5, 1, 1], abs=0.005)


def test_a_rule_beyond_the_axis_says_so():
    plot, _ = histogram("t", "x", [("a", "id", np.arange(5.0))])
    plot.rule(2, "inside")
    plot.rule(9, "threshold")
    chart = plot.chart()
    labels = [each.label for each in chart.legend]
    assert labels == ["a (5)", "inside", "threshold (beyond the axis)"]


def test_a_table_sorts_by_finite_numbers_alone():
    section = Section("t", "")
    section.add(Table("c", ("a",), [(number(each),) for each in (1.5, np.inf, np.nan)]))
    page = page_bytes([section], ReportSettings(folder="x")).decode()
    assert re.findall(r'data-v="([^"]*)"', page) == ["1.5"]


def test_of_molecules_that_are_all_alike_there_is_no_map():
    alike = {"ID, training": ["CCO"] * 3, "library, inside": ["OCC"]}
    assert chemical_map(alike, {kind: len(each) for kind, each in alike.items()}, 1) is None


def test_of_many_p_values_all_are_counted_and_steps_stay_upright():
    values = np.round(np.random.default_rng(0).random(50_000), 3)
    chart = p_value_chart("t", [("library", "inside", values)], "")
    (diagonal, steps) = paths(chart)
    assert chart.legend[1].label == "library (50,000)"
    assert len(steps) <= 800
    for (x0, y0), (x1, y1) in zip(steps, steps[1:]):
        assert x0 == x1 or y0 == y1
    (left, bottom), (right, top) = diagonal
    for x, y in steps[2:-1:2]:  # where steps end
        share = (values <= (x - left) / (right - left) + 5e-4).mean()
        assert (y - bottom) / (top - bottom) == pytest.approx(share, abs=0.005)


def test_names_are_escaped_in_drawings():
    plot = Plot("<b>&", '"x"', "y")
    plot.line([0, 1], [0, 1], "id", "<i>")
    assert "<b>" not in plot.chart().svg and "&lt;b&gt;&amp;" in plot.chart().svg
    drawn = heat_map("t", ["<script>"], ["a"], np.array([[0.7]]), value_name="v", reach=(0.5, 1))
    assert "<script>" not in drawn.svg


def test_a_heat_map_colours_by_value_and_says_what_is_missing():
    values = np.array([[0.5, 0.75], [1.2, np.nan]])
    drawn = heat_map("t", ["a", "b"], ["c", "d"], values, value_name="v", reach=(0.5, 1))
    assert re.findall(r'fill-opacity="([^"]*)"', str(drawn.svg)) == ["0.0", "0.5", "1.0", "0.0"]
    assert re.findall(r"<title>([abcd].*?)</title>", str(drawn.svg)) == [
        "a, c: 0.500", "a, d: 0.750", "b, c: 1.200", "b, d: –",
    ]  # fmt: skip


def test_a_perfect_detector_goes_through_the_corner():
    is_ood = np.array([False, False, True, True])
    _, curve = paths(roc_chart([("a", "id", is_ood, np.array([0.0, 1, 2, 3]))]))
    start, corner, end = curve[0], curve[-2], curve[-1]
    assert corner == (start[0], end[1])


def test_cliques_are_the_largest_groups_that_are_not_told_apart():
    assert cliques([1.0, 1.5, 2.2, 2.4, 4.0], 1.0) == [(0, 1), (1, 3)]
    assert cliques([1.0, 2.0, 4.0], 1.0) == []  # just as far apart as the difference: told apart
    assert cliques([1.0, 1.1, 1.2], 1.0) == [(0, 2)]
    # Demšar 2006, figure 1 (a): 3.143 − 1.964 is less than 1.25
    assert cliques([1.964, 2.000, 2.893, 3.143], 1.25) == [(0, 3)]
