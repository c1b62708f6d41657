"""Settings of jobs.report."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.runtime.settings import Settings, bounded

PAGE = "report.html"


@dataclass(frozen=True, kw_only=True)
class ReportSettings(Settings):
    """One HTML page, which opens from a file, of what any job left in its output folder."""

    folder: str
    """Output folder of a job, or a folder that holds several; a path or fsspec URI."""
    output: str | None = None
    """The page; default: report.html in --folder."""
    title: str | None = None
    """The page's title; default: the folder's name."""
    molecules: int = bounded(6, least=0)
    """Molecules that are drawn at either end of the scores."""
    map_molecules: int = bounded(1500, least=10)
    """Molecules of each kind on the map of chemical space at most, drawn at random."""
    scaffold_molecules: int = bounded(5_000, least=1)
    """Molecules of a library whose scaffolds are counted; of more, so many at random."""
    table_rows: int = bounded(200, least=1)
    """Rows of a table at most; the page says where it leaves some out."""
    seed: int = 42
    """Seed of what is drawn at random."""
