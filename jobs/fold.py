"""Sequences to structures in the store: ESMFold's, or those of your files."""

import sys
from typing import Any

from jobs.cli import main, say
from pipeline.folding.settings import FoldSettings


def fold(settings: FoldSettings) -> None:
    """Make or read structures of a data file's sequences, and say what became of its rows."""
    from pipeline.folding.run import run_folding
    from pipeline.molecules.sources import tidied_line

    summary = run_folding(settings)
    plddt = summary["mean_plddt"]
    say(
        f"made by    {summary['made_by']}",
        f"rows       {summary['rows_in']:,} in = {summary['rows_out']:,} with a structure "
        f"+ {summary['rejected']:,} rejected",
        *([f"tidied     {tidied_line(summary['tidied'])}"] if summary["tidied"] else []),
        *(f"rejected   {count:,}: {why}" for why, count in summary["rejected_by_reason"].items()),
        f"structures {summary['made']:,} made now, {summary['found_in_store']:,} found in store",
        *([f"pLDDT      {plddt:.2f} on average of {summary['structures_with_plddt']:,} structures"]
          if plddt is not None else []),
        *_of_files(summary.get("files")),
        *(f"settled    {count:,}: {what}" for what, count in summary["settled"].items()),
        f"store      {summary['structures']}",
        f"outputs    {settings.output_dir}",
    )  # fmt: skip


def _of_files(files: dict[str, Any] | None) -> list[str]:
    if files is None:
        return []
    return [
        f"files      {files['read']:,} read",
        *(f"unread     {count:,}: {why}" for why, count in files["unreadable"].items()),
        *(f"chains     {count:,} left out: {why}" for why, count in files["other_chains"].items()),
    ]


if __name__ == "__main__":
    sys.exit(main(FoldSettings, fold, "fold"))
