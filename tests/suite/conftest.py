"""Fixtures: two splits, with a store and output folders beside them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.made_sets import hiv, moses
from tests.suite.grids import write_split


@pytest.fixture(scope="session")
def home(ray_session, tmp_path_factory) -> Path:
    """Two splits; three test molecules of the second are training molecules of the first."""
    folder = tmp_path_factory.mktemp("suite")
    inside, outside = moses(), [s for s in hiv() if len(s) < 60]
    write_split(folder / "a.json", inside[:60], outside[:40])
    other = [*inside[100:150], *inside[:3], *inside[150:157]]
    write_split(folder / "b.json", other, outside[40:80])
    return folder
