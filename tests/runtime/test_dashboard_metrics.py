"""The Grafana dashboard shows metrics that exist, and all of them but one."""

import json
import re

from pipeline.runtime.dashboard_metrics import COUNTERS, GAUGES
from tests.commands import REPOSITORY

DASHBOARD = json.loads((REPOSITORY / "dashboards/molsieve.json").read_text())
EXPORTED = {f"{name}_total" for name in COUNTERS} | set(GAUGES)


def test_every_panel_asks_for_metrics_that_are_exported():
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            names = re.findall(r"ray_molsieve_(\w+)", target["expr"])
            assert names and set(names) <= EXPORTED, panel["title"]


def test_no_metric_is_left_out():
    shown = {
        name
        for panel in DASHBOARD["panels"]
        for target in panel["targets"]
        for name in re.findall(r"ray_molsieve_(\w+)", target["expr"])
    }
    assert EXPORTED - shown == {"molecules_in_total"}


def test_panels_do_not_overlap():
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in DASHBOARD["panels"]]
    assert len(set(places)) == len(places)
