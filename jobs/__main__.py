"""`molsieve` and `python -m jobs`: a job by its name, or the list of the jobs."""

from __future__ import annotations

import ast
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import get_type_hints

EXIT_BAD_INPUT = 2  # that of jobs.cli, which takes seconds to import


def main(program: str = "molsieve", argv: Sequence[str] | None = None) -> int:
    """Run the job that the first word names and return its exit code; without one, list them."""
    name, *flags = (sys.argv[1:] if argv is None else argv) or ["--help"]
    jobs = _jobs()
    if name in ("-h", "--help"):
        print(
            f"usage: {program} JOB [--SETTING VALUE ...]",
            "",
            *(f"  {job:{max(map(len, jobs))}}  {what}" for job, what in jobs.items()),
            "",
            f"`{program} JOB --help` tells a job's settings.",
            sep="\n",
        )
        return 0
    if name not in jobs:
        print(
            f"{program.removeprefix('python -m ')}: error: no job {name!r}; "
            f"there are {', '.join(jobs)}",
            file=sys.stderr,
        )
        return EXIT_BAD_INPUT
    from jobs import cli

    work = getattr(import_module(f"jobs.{name}"), name)
    return cli.main(get_type_hints(work)["settings"], work, name, flags, f"{program} {name}")


def _jobs() -> dict[str, str]:
    """Each job's name and the first line of its module's docstring, read without an import."""
    files = (file for file in sorted(Path(__file__).parent.glob("[!_]*.py")) if file.stem != "cli")
    docstrings = {file.stem: ast.get_docstring(ast.parse(file.read_bytes())) for file in files}
    return {job: docstring.splitlines()[0] for job, docstring in docstrings.items()}


if __name__ == "__main__":
    sys.exit(main("python -m jobs"))
