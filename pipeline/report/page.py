"""Sections to a page."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime

from pipeline.report.blocks import Section
from pipeline.report.settings import ReportSettings
from pipeline.report.templating import environment
from pipeline.runtime.files import absolute


def page_bytes(sections: Sequence[Section], settings: ReportSettings) -> bytes:
    """The HTML of a page; gives the sections their anchors."""
    for place, section in enumerate(sections, start=1):
        words = re.sub(r"[^a-z0-9]+", "-", f"{section.title} {section.folder}".lower()).strip("-")
        section.anchor = f"s{place}-{words}"
    leading = [section for section in sections if section.lead]
    title = settings.title or absolute(settings.folder).rsplit("/", 1)[-1]
    text = environment().get_template("page.html").render(
        title=title,
        folder=settings.folder,
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        lead=[
            f"{section.folder}: {line}" if len(leading) > 1 else line
            for section in leading for line in section.lead
        ],
        sections=sections,
    )  # fmt: skip
    return text.encode()
