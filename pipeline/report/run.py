"""What jobs.report calls: an output folder to a page."""

from __future__ import annotations

import logging
import time
from typing import Any

from pipeline.report.blocks import Section, Text
from pipeline.report.folders import KINDS, look_into
from pipeline.report.page import page_bytes
from pipeline.report.reading import Folder, reason
from pipeline.report.settings import PAGE, ReportSettings
from pipeline.runtime.errors import InputError, told
from pipeline.runtime.files import absolute, result_or_error, write_atomically
from pipeline.runtime.text import some

log = logging.getLogger(__name__)


def run_report(settings: ReportSettings) -> dict[str, Any]:
    """Write the page of an output folder.

    A part that cannot be made is said in the page and logged; the others are there.

    Returns
    -------
    dict
        `output`, `bytes`, `sections` (title and folder of each), `figures` (drawings), `failed`
        (the reason by folder), `seconds`.

    Raises
    ------
    InputError
        If the folder is missing or empty, holds nothing that is known, no part can be made, or the
        page cannot be written.
    """
    started = time.monotonic()
    folder = _opened(settings.folder)
    found = look_into(folder)
    if not found.parts:
        known = ", ".join(f"{kind.mark} ({kind.name})" for kind in KINDS)
        raise InputError(
            f"--folder {settings.folder} holds nothing that a page can be made of: it has "
            f"{some(folder.names())}; known are {known}"
        )
    sections, failed = [], {}
    for kind, place in found.parts:
        made = result_or_error(kind.section, place, settings)
        if isinstance(made, Exception):
            failed[place.uri] = why = reason(made)
            log.warning("%s: its part of the page cannot be made: %s", place.uri, why)
            text = f"This part cannot be made: {why}."
            made = Section(kind.name.capitalize(), place.place, [Text(text, "warning")])
        sections.append(made)
    if len(failed) == len(sections):
        raise InputError(f"no part of the page can be made: {next(iter(failed.values()))}")
    if found.unknown or found.unread:
        rest = Section("Also in this folder", "")
        if found.unknown:
            rest.say(f"Not shown in this page: {some(found.unknown, 20)}.")
        for place, why in found.unread.items():
            log.warning("%s cannot be looked into: %s", place, why)
            rest.say(f"{place} cannot be looked into: {why}.", "warning")
        sections.append(rest)
    output = settings.output or f"{absolute(settings.folder)}/{PAGE}"
    content = page_bytes(sections, settings)
    write_atomically(output, content)
    return {
        "output": output,
        "bytes": len(content),
        "sections": [(section.title, section.folder) for section in sections],
        "figures": content.count(b"<svg") - content.count(b'class="swatch"'),
        "failed": failed,
        "seconds": time.monotonic() - started,
    }


def _opened(name: str) -> Folder:
    try:
        folder = Folder(absolute(name))
        there, inside = folder.fs.isdir(folder.path), folder.names()
    except (OSError, ValueError, ImportError) as error:
        raise InputError(f"--folder {name}: {told(error)}") from None
    if not there:
        what = "is a file, not a folder" if folder.fs.exists(folder.path) else "is not there"
        raise InputError(f"--folder {name} {what}; give the --output_dir of a job")
    if not inside:
        raise InputError(f"--folder {name} is empty; give the --output_dir of a job that has run")
    return folder
