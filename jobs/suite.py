"""A grid of data sets, encoders, detectors, seeds and settings, with statistics and tables."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from jobs.cli import main, say
from pipeline.suite.settings import SuiteSettings

if TYPE_CHECKING:
    from pipeline.suite.results.tables import Table

EXIT_FAILED_CELLS = 1
SHOWN, MOST_ROWS = 10, 40


def suite(settings: SuiteSettings) -> None:
    """Run the grid and print its tables; exits with 1 where cells have failed."""
    from pipeline.suite.results.tables import tables_of
    from pipeline.suite.run import run_suite

    summary = run_suite(settings)
    tables = tables_of(summary)
    shown = [tables[name] for name in ("auroc", "ranks", "cross_auroc") if name in tables]
    say(
        *map(_shown, shown),
        *_warnings(summary),
        *_cells(summary),
        f"outputs     {settings.output_dir}",
    )
    if summary["cells"]["failed"]:
        sys.exit(EXIT_FAILED_CELLS)


def _shown(table: Table) -> str:
    if len(table.rows) > MOST_ROWS:
        return f"{table.title}: {len(table.rows)} rows, in tables/\n"
    return table.text()


def _cells(summary: dict[str, Any]) -> list[str]:
    counts = summary["cells"]
    lines = [
        f"cells       {counts['done']:,} done, {counts['failed']:,} failed; "
        f"{counts['fitted_once_for_all_seeds']:,} of them stand for all {summary['num_seeds']} "
        "seeds, which do not change them"
    ]
    failed = summary["failed"]
    for each in failed[:SHOWN]:
        lines.append(
            f"failed      {each['detector']} on {each['encoder']}, {each['data']}: "
            f"{each['cells']} cells: {each['reason']}"
        )
    if len(failed) > SHOWN:
        lines.append(f"failed      and {len(failed) - SHOWN} more, in summary.json")
    trials = summary["failed_trials"]
    if trials:
        first = trials[0]
        lines.append(
            f"trials      {len(trials):,} of searches failed, the first of {first['detector']} on "
            f"{first['encoder']}, {first['data']}: {first['reason']}"
        )
    for each in summary["failed_audits"][:SHOWN]:
        where = f"{each['data']} tested on {each['test_data']}"
        lines.append(f"no audit    of {where}: {each['reason']}")
    return lines


def _warnings(summary: dict[str, Any]) -> list[str]:
    lines = []
    for each in summary["warnings"]:
        where = each["data"] if each["data"] == each["test_data"] else (
            f"{each['data']} tested on {each['test_data']}"
        )  # fmt: skip
        lines.append(f"warning     {where}: {each['warning']} ({len(each['methods'])} methods)")
    if len(lines) > SHOWN:
        lines = [*lines[:SHOWN], f"warning     and {len(lines) - SHOWN} more, in summary.json"]
    return lines


if __name__ == "__main__":
    sys.exit(main(SuiteSettings, suite, "suite"))
