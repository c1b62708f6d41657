"""Which folders of a folder the page can tell of: each is known by a file that its job writes."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from pipeline.report.blocks import Section
from pipeline.report.reading import Folder
from pipeline.report.sections.comparison import comparison_section
from pipeline.report.sections.encoded import encoded_section
from pipeline.report.sections.evaluation import evaluation_section
from pipeline.report.sections.generation import generation_section
from pipeline.report.sections.library import library_section
from pipeline.report.sections.peptides import peptides_section
from pipeline.report.sections.pretraining import pretraining_section
from pipeline.report.sections.training import training_section
from pipeline.report.sections.trust import trust_section
from pipeline.report.settings import PAGE, ReportSettings
from pipeline.runtime.errors import told

DEPTH = 3  # folders below --folder that are looked at
# Folders of files alone, or of runs that the section above them tells of.
CLOSED = ("scores", "rejected", "checkpoint", "generator", "figures", "tables")


class Kind(NamedTuple):
    """A kind of folder.

    Attributes
    ----------
    mark : the file or folder by which it is known.
    section : what makes its part of the page.
    closed : whether what lies below it is told by that part.
    """

    name: str
    mark: str
    section: Callable
    closed: bool = False


def suite_section(folder: Folder, settings: ReportSettings) -> Section:
    """See `sections.suite`."""
    from pipeline.report.sections import suite  # imports torch, for pages of suites alone

    return suite.suite_section(folder, settings)


# In the order of the page: verdicts first, then what they rest on.
KINDS = (
    Kind("a scored library", "scores", library_section),
    Kind("scores judged", "trust.json", trust_section),
    Kind("a suite", "cells.parquet", suite_section, closed=True),
    Kind("a comparison", "comparison_summary.json", comparison_section, closed=True),
    Kind("an evaluation", "ood_evaluation_results.json", evaluation_section),
    Kind("a training", "training_stats.json", training_section),
    Kind("generated features", "generation_summary.json", generation_section),
    Kind("generated peptides", "peptides_summary.json", peptides_section),
    Kind("a pretraining", "pretraining_curves.csv", pretraining_section),
    Kind("encoded molecules", "molecules.parquet", encoded_section),
)


class Found(NamedTuple):
    """What a folder holds.

    Attributes
    ----------
    parts : kinds with their folders, in the order of the page.
    unknown : folders and files in the top folder that no part tells of.
    unread : why folders could not be looked into, by place.
    """

    parts: list[tuple[Kind, Folder]]
    unknown: list[str]
    unread: dict[str, str]


def look_into(folder: Folder) -> Found:
    """The parts of the page, of a folder and of those below it."""
    unread: dict[str, str] = {}
    parts = _parts(folder, DEPTH, unread)
    places = {place.split("/", 1)[0] for place in (*unread, *(each.place for _, each in parts))}
    # one kind of run leaves several files of its own beside the one that it is known by
    whole = "" in places
    unknown = [name for name in folder.names() if not whole and name not in places and name != PAGE]
    order = {kind.name: number for number, kind in enumerate(KINDS)}
    return Found(sorted(parts, key=lambda p: (order[p[0].name], p[1].place)), unknown, unread)


def _parts(folder: Folder, depth: int, unread: dict[str, str]) -> list[tuple[Kind, Folder]]:
    try:
        names, below = folder.names(), folder.folders()
    except OSError as error:
        unread[folder.place] = told(error)
        return []
    found = [(kind, folder) for kind in KINDS if kind.mark in names]
    if depth and not any(kind.closed for kind, _ in found):
        for name in below:
            if name not in CLOSED:
                found += _parts(folder.below(name), depth - 1, unread)
    return found
