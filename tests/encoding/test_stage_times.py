"""What bounds a run, from the times of its stages."""

import pyarrow as pa
import pytest

from pipeline.encoding.cost.stage_times import Stages, shares_of
from pipeline.encoding.in_store.tables import OUTCOMES


@pytest.mark.parametrize(
    ("gpu", "conformers", "busy", "waiting", "told"),
    [
        (True, 930, 29, 71, "conformers: 93% of the cores' time; encoders idle 71%: add CPU work"),
        (True, 200, 95, 5, "conformers: 20% of the cores' time; encoders idle 5%: add GPUs"),
        (True, 800, 70, 30, "encoders idle 30%: balanced"),
        (
            False,
            750,
            250,
            10,
            "conformers took 75% of the cores' work, encoding 25%: add CPU cores",
        ),
        (False, 250, 750, 10, "add a GPU, or CPU cores"),
        (False, 0, 900, 10, "encoding took the cores' work: add a GPU"),
        (False, 10, 10, 500, "a short run"),
    ],
)
def test_the_hint_names_what_is_short(gpu, conformers, busy, waiting, told):
    stages = Stages(100.0, 10, 1, gpu, conformers, busy, waiting, 1000.0, 40.0)
    assert told in stages.hint
    assert stages.summary()["bound_by"] == stages.hint
    assert stages.padding_share == pytest.approx(0.04)


@pytest.mark.parametrize(
    ("conformers", "told"),
    [
        (300, "graphs and conformers: 93% of the cores' time; encoders idle 71%: add CPU workers"),
        (0, "graphs: 63% of the cores' time; encoders idle 71%: add CPU workers"),
    ],
)
def test_graphs_that_tasks_make_count_among_the_cores_work(conformers, told):
    assert Stages(100.0, 10, 1, True, conformers, 29, 71, graph_seconds=630).hint == told


def test_shares_are_summed_over_rows_and_none_counts_nothing():
    rows = [{"tokens": 2.0, "conformer_seconds": 0.5}, {"tokens": 3.0, "busy_seconds": 1.0}]
    found = shares_of(pa.Table.from_pylist(rows, schema=OUTCOMES))
    assert found == {
        "conformer_seconds": 0.5, "graph_seconds": 0.0, "tokens": 5.0, "padding": 0.0,
        "busy_seconds": 1.0, "waiting_seconds": 0.0,
    }  # fmt: skip
    assert shares_of(OUTCOMES.empty_table())["tokens"] == 0.0
