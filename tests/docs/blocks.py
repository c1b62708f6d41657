"""The code blocks of a page, as the commands that its reader types one after the other."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
PYTHON = ".venv/bin/python - <<'END_OF_PYTHON'\n{}END_OF_PYTHON"


class Command(NamedTuple):
    """What a shell reads at once, and the line of the page on which it starts."""

    line: int
    text: str


def commands_of(page: str) -> list[Command]:
    """Every command of a page's `bash` and `console` blocks, and its Python.

    Of a `console` block these are the lines after `$ `; the others are what the command prints. The
    `python` blocks of a page are cells of one notebook: one command, at the place of the last.
    """
    commands, cells = [], []
    for block in BLOCK.finditer(page):
        first = page[: block.start()].count("\n") + 2
        if block[1] == "bash":
            commands += _shell(block[2], first)
        elif block[1] == "console":
            commands += _typed(block[2], first)
        elif block[1] == "python":
            cells.append(block[2])
            commands = [c for c in commands if "END_OF_PYTHON" not in c.text]
            commands.append(Command(first, PYTHON.format("\n".join(cells))))
    return commands


def _joined(block: str, first: int) -> Iterator[Command]:
    """Lines, those that end with a backslash together with what follows."""
    lines: list[str] = []
    for number, line in enumerate(block.splitlines()):
        lines.append(line)
        if not line.endswith("\\"):
            yield Command(first + number - len(lines) + 1, "\n".join(lines))
            lines = []


def _shell(block: str, first: int) -> list[Command]:
    if "<<" in block:  # the lines belong together
        return [Command(first, block)]
    return [c for c in _joined(block, first) if c.text.strip() and not c.text.startswith("#")]


def _typed(block: str, first: int) -> list[Command]:
    typed = (c for c in _joined(block, first) if c.text.startswith("$ "))
    return [Command(line, text.removeprefix("$ ")) for line, text in typed]
