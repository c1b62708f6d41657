"""The pages name flags, files and headings that exist, and the settings page has all settings."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import get_type_hints

import pytest

from tests.commands import REPOSITORY

CARDS = [
    REPOSITORY / f"pipeline/encoders/{encoder}/mini/README.md" for encoder in ("unimol", "esm")
]
PAGES = [
    REPOSITORY / "README.md",
    REPOSITORY / "CONTRIBUTING.md",
    *sorted((REPOSITORY / "docs").glob("*.md")),
    *CARDS,
]

OF_EVERY_JOB = {"help", "config", "print_config"}  # the parser's own
FOREIGN = {
    "address": "ray start, ray job submit",
    "autoscaling-config": "ray start",
    "check": "ruff format",
    "costs.conformer_ms": "bench.scaling",
    "dashboard-host": "ray start",
    "generate": "ray get-auth-token",
    "head": "ray start",
    "molecules": "bench.scaling",
    "port": "ray start",
    "prices.gpu_hour": "bench.scaling",
    "submission-id": "ray job submit",
    "working-dir": "ray job submit",
}

FENCE, SPAN = re.compile(r"^```\w*\n(.*?)^```", re.M | re.S), re.compile(r"`([^`]+)`")
JOB = re.compile(r"\bjobs\.([a-z]\w*)|(?<![\w./])molsieve ([a-z]\w*)")
FLAG = re.compile(r"(?<![\w-])--([A-Za-z][\w.-]*)")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def settings_of_jobs() -> dict[str, type]:
    """The settings class of each job."""
    names = (path.stem for path in REPOSITORY.glob("jobs/[!_]*.py") if path.stem != "cli")
    works = {name: getattr(import_module(f"jobs.{name}"), name) for name in names}
    return {name: get_type_hints(work)["settings"] for name, work in works.items()}


def flags_of(job: str) -> set[str]:
    return {field.name for field in dataclasses.fields(settings_of_jobs()[job])}


def commands(text: str) -> Iterator[str]:
    """Each command of the code blocks and of `code` in a line, then the prose between."""
    for block in FENCE.findall(text):
        for line in block.replace("\\\n", " ").splitlines():
            yield from re.split(r"&&|;|\||\s#\s", line)
    prose = FENCE.sub("", text)
    yield from (" ".join(span.split()) for span in SPAN.findall(prose))
    yield SPAN.sub("", prose).replace("jobs.", "")


def unknown_flags(text: str) -> list[str]:
    """What a page names and no job, or not the job on the same command line, has."""
    anywhere = set().union(*map(flags_of, settings_of_jobs()), OF_EVERY_JOB, FOREIGN)
    unknown = []
    for command in commands(text):
        job = JOB.search(command)
        before, after = (command[: job.start()], command[job.end() :]) if job else (command, "")
        unknown += [f"--{flag}" for flag in FLAG.findall(before) if flag not in anywhere]
        if job and (name := job[1] or job[2]) not in settings_of_jobs():
            unknown.append(f"jobs.{name}")
        elif job:
            known = flags_of(name) | OF_EVERY_JOB
            unknown += [f"{name} --{flag}" for flag in FLAG.findall(after) if flag not in known]
    return unknown


def anchors(file: Path) -> set[str]:
    """What may follow `#` in a link to a file: nothing, or on a page the name of a heading."""
    text = FENCE.sub("", file.read_text()) if file.suffix == ".md" else ""
    titles = re.findall(r"^#+ (.+)$", text, re.M)
    return {"", *(re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles)}


def broken_links(text: str, page: Path) -> list[str]:
    broken = []
    for link in LINK.findall(SPAN.sub("", FENCE.sub("", text))):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if "://" not in link and not (target.exists() and anchor in anchors(target)):
            broken.append(link)
    return broken


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_a_page_names_flags_and_files_that_exist(page):
    assert unknown_flags(page.read_text()) == []
    assert broken_links(page.read_text(), page) == []


def test_what_does_not_exist_is_found():
    page = "`jobs.train --alpha 1`\n```\nmolsieve score \\\n --b 2 && x --head\n```\n--c `jobs.d`"
    assert unknown_flags(page) == ["score --b", "train --alpha", "jobs.d", "--c"]
    assert broken_links("[a](b.md) [c](#d) [e](README.md)", PAGES[0]) == ["b.md", "#d"]


def test_the_readme_is_short():
    assert len((REPOSITORY / "README.md").read_text().splitlines()) <= 150


@pytest.mark.parametrize("job", settings_of_jobs())
def test_the_settings_page_has_every_setting(job):
    rows = re.findall(r"^\|([^|]+)\|", (REPOSITORY / "docs/settings.md").read_text(), re.M)
    assert flags_of(job) <= set(FLAG.findall(" ".join(rows)))
