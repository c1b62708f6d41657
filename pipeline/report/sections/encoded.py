"""Encoded molecules: how many there are, and what was rejected."""

from __future__ import annotations

from pipeline.report.blocks import Facts, Section
from pipeline.report.reading import Folder
from pipeline.report.rejections import add_rejected
from pipeline.report.settings import ReportSettings

FACTS = {
    "rows_in": "Rows read", "molecules_out": "Molecules with a feature", "rejected": "Rejected",
    "found_in_store": "Found in the store", "encoded": "Encoded by this run",
}  # fmt: skip


def encoded_section(folder: Folder, settings: ReportSettings) -> Section:
    """What jobs.encode left."""
    summary = folder.json("run_summary.json")
    section = Section("Encoded molecules", folder.place)
    if not summary:
        section.lacks("There is no run_summary.json: has the run ended?")
        return section
    facts = [(title, f"{summary[key]:,}") for key, title in FACTS.items() if key in summary]
    facts += [(name.capitalize(), str(summary[name])) for name in ("encoder", "weights", "dataset")
              if name in summary]  # fmt: skip
    counts = {name: n for name, n in (summary.get("structures") or {}).items() if n}
    if counts:
        facts.append(("Structures", ", ".join(f"{name} {n:,}" for name, n in counts.items())))
    section.add(Facts(facts))
    add_rejected(section, folder, "rejected.parquet", settings.table_rows)
    return section
