"""A table of the store in a folder of its own."""

from __future__ import annotations

import pytest

from pipeline.store.keyed_table import KeyedTable
from tests.store.made_rows import SETTINGS


@pytest.fixture
def table(tmp_path) -> KeyedTable:
    return KeyedTable(str(tmp_path / "store"), "features", SETTINGS)
