"""What jobs.check makes of a file."""

from __future__ import annotations

from pathlib import Path

from pipeline.checking.report import Understood
from pipeline.checking.run import run_check
from pipeline.checking.settings import CheckSettings
from pipeline.checking.tally import Tally, tally_of
from pipeline.molecules.folders import data_files
from pipeline.molecules.formats import stream_rows
from pipeline.molecules.parsers import SmilesParser


def told(path: Path, **changes) -> tuple[Understood, dict[str, list[str]]]:
    """What is understood of a file, and the lines of each name."""
    found = run_check(CheckSettings(data_file=str(path), **changes))
    lines: dict[str, list[str]] = {}
    for name, text in found.lines():
        lines.setdefault(name, []).append(text)
    return found, lines


def tally_of_file(path: Path, rows: int, **changes) -> Tally:
    """The tally of a file, made of so many rows at a time."""
    [file], total = data_files(str(path)), Tally()
    for piece in stream_rows(file, CheckSettings(data_file=str(path), **changes), rows):
        total.add(tally_of(piece, file.stem, SmilesParser(), 3), 3)
    return total
