"""Fixtures: a page of every kind of folder, and a headless Chromium to show it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from pipeline.report.run import run_report
from pipeline.report.settings import ReportSettings
from tests.report.made_folders import write_everything

CHROMIUM, DRIVER = "/usr/bin/chromium", "/usr/bin/chromedriver"
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip


class Page(NamedTuple):
    """A written page: its file, what run_report told, its text."""

    file: Path
    made: dict
    text: str


@pytest.fixture(scope="session")
def page(tmp_path_factory) -> Page:
    """The page of a folder that holds every kind."""
    folder = write_everything(tmp_path_factory.mktemp("report") / "all")
    made = run_report(ReportSettings(folder=str(folder), molecules=2, map_molecules=15))
    file = Path(made["output"])
    return Page(file, made, file.read_text())


@pytest.fixture(scope="session")
def browser(tmp_path_factory) -> Iterator:
    """One Chromium for all tests; they are skipped, and say why, where there is none."""
    missing = [path for path in (CHROMIUM, DRIVER) if not shutil.which(path)]
    if missing:
        pytest.skip(f"no {missing[0]}: on Debian, apt-get install chromium chromium-driver")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()
