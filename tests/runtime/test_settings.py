"""Paths of settings that start at the home folder."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from jobs.cli import parse
from pipeline.encoding.settings import EncodeSettings
from pipeline.runtime.settings import OutputSettings


@dataclass(frozen=True, kw_only=True)
class Paths(OutputSettings):
    """Settings of these tests."""

    file: str | None = None
    """A file."""
    files: list[str] = field(default_factory=list)
    """Files."""


@pytest.fixture(autouse=True)
def home(monkeypatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("~", "/home/me"),
        ("~/ms", "/home/me/ms"),
        ("~root/ms", f"{Path('~root').expanduser()}/ms"),
        ("~nobody_of_that_name/ms", "~nobody_of_that_name/ms"),
        ("C~C", "C~C"),
        ("~C", "~C"),  # no path
        ("a/~/b", "a/~/b"),
        ("s3://bucket/~/a", "s3://bucket/~/a"),
        (None, None),
    ],
)
def test_a_path_at_home_is_found_there(given, expected):
    settings = Paths(file=given, files=[given, "x"] if given else [])
    assert settings.file == expected
    assert settings.files == ([expected, "x"] if given else [])
    assert replace(settings, output_dir="~/out").output_dir == "/home/me/out"


def test_flags_and_files_of_settings_may_start_at_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "settings.yaml").write_text("data_file: ~/a.smi\noutput_dir: ~/out\n")
    for argv in (["--config=~/settings.yaml"], ["--config", "~/settings.yaml"]):
        settings = parse(EncodeSettings, "encode", [*argv, "--cache_root=~/ms"])
        found = settings.data_file, settings.output_dir, settings.cache_root
        assert found == tuple(f"{tmp_path}/{name}" for name in ("a.smi", "out", "ms"))
