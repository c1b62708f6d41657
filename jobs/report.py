"""Any output folder to one HTML page with figures, tables and molecules."""

import sys

from jobs.cli import main, say
from pipeline.report.settings import ReportSettings


def report(settings: ReportSettings) -> None:
    """Write the page, and say what it holds."""
    from pipeline.report.run import run_report

    made = run_report(settings)
    lines = [f"{title}{f' ({folder})' if folder else ''}" for title, folder in made["sections"]]
    say(
        f"holds    {lines[0]}",
        *(f"         {line}" for line in lines[1:]),
        f"size     {made['bytes'] / 1e6:.2f} MB, {made['figures']:,} drawings, made in "
        f"{made['seconds']:.1f} s",
        *(f"failed   {folder}: {reason}" for folder, reason in made["failed"].items()),
        f"report   {made['output']}",
    )


if __name__ == "__main__":
    sys.exit(main(ReportSettings, report, "report"))
