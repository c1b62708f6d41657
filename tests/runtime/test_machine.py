"""Cores are those that the process may use, of a container those of its share."""

from __future__ import annotations

import os

import pytest

from pipeline.runtime.nodes import machine


@pytest.mark.parametrize(
    ("quota", "cores"),
    [("150000 100000", 2), ("50000 100000", 1), ("1600000 100000", 8), ("max 100000", 8), ("", 8)],
)
def test_a_containers_share_counts(tmp_path, monkeypatch, quota, cores):
    (tmp_path / "cpu.max").write_text(f"{quota}\n")
    monkeypatch.setattr(machine, "CPU_QUOTA", tmp_path / "cpu.max")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert machine.usable_cores() == cores
    monkeypatch.setattr(machine, "CPU_QUOTA", tmp_path / "absent")
    assert machine.usable_cores() == 8
