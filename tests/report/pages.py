"""A page of a made-up folder, as its text."""

from __future__ import annotations

import re
from pathlib import Path

from pipeline.report.run import run_report
from pipeline.report.settings import ReportSettings


def page_of(folder: Path, **settings) -> str:
    usual = {"molecules": 1, "map_molecules": 12}
    made = run_report(ReportSettings(folder=str(folder), **{**usual, **settings}))
    return Path(made["output"]).read_text()


def text_of(page: str) -> str:
    """What a page says, without its drawings and script."""
    page = re.sub(r"<(style|script|svg).*?</\1>", "", page, flags=re.S)
    return " ".join(re.sub(r"<[^>]*>", " ", page).split())
