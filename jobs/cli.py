"""What every command shares: flags from a settings class, YAML, one-line errors, exit codes."""

from __future__ import annotations

import argparse
import dataclasses
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from jsonargparse import ArgumentParser, set_parsing_settings

from pipeline.config import Settings
from pipeline.errors import InputError, told
from pipeline.files import starting_over
from pipeline.telemetry import configure_logging

S = TypeVar("S", bound=Settings)
EXIT_BAD_INPUT, EXIT_INTERRUPTED = 2, 130

set_parsing_settings(docstring_parse_attribute_docstrings=True)


def parse(settings_class: type[S], job: str, argv: Sequence[str]) -> S:
    """Settings from the command line over those of `--config FILE.yaml` over the defaults.

    Raises
    ------
    InputError
        If a flag or key is unknown, missing, of the wrong type or out of bounds.
    """
    parser = ArgumentParser(
        prog=f"python -m jobs.{job}",
        description=settings_class.__doc__,
        exit_on_error=False,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--config", action="config", help="YAML file with any of these settings.")
    parser.add_class_arguments(settings_class)
    try:
        words = _with_explicit_booleans(settings_class, _with_joined_lists(settings_class, argv))
        words = _config_first(words)
        values = parser.parse_args(words).as_dict()
    except argparse.ArgumentError as error:
        raise InputError(_readable(str(error))) from None
    except UnicodeDecodeError as error:
        raise InputError(f"the file of --config is not text: {error}") from None
    return settings_class(**{f.name: values[f.name] for f in dataclasses.fields(settings_class)})


def main(
    settings_class: type[S],
    work: Callable[[S], Any],
    job: str,
    argv: Sequence[str] | None = None,
) -> int:
    """Run a command and return its exit code: 0, 2 for bad input, 130 when interrupted."""
    warnings.filterwarnings("ignore", category=FutureWarning, module="ray")
    configure_logging()
    try:
        starting_over(work, parse(settings_class, job, sys.argv[1:] if argv is None else argv))
    except InputError as error:
        print(f"jobs.{job}: error: {told(error)}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except KeyboardInterrupt:
        print(
            f"jobs.{job}: interrupted; finished work is kept, the same command continues",
            file=sys.stderr,
        )
        return EXIT_INTERRUPTED
    return 0


def say(*lines: str) -> None:
    """Print a result for the user on standard output."""
    print("\n".join(lines), flush=True)


def metric_cell(results: dict[str, Any], name: str) -> str:
    """A metric with its 95 % interval."""
    low, high = results[f"{name}_ci95"]
    return f"{results[name]:.3f} [{low:.3f}, {high:.3f}]"


def _with_explicit_booleans(settings_class: type[Settings], argv: Sequence[str]) -> list[str]:
    """Let a boolean flag stand alone: `--allow_overlap` means `--allow_overlap true`."""
    booleans = {
        f"--{f.name}" for f in dataclasses.fields(settings_class) if f.type in ("bool", bool)
    }
    explicit = []
    for word, following in zip(argv, [*argv[1:], "--"]):
        explicit.append(word)
        if word in booleans and following.startswith("--"):
            explicit.append("true")
    return explicit


def _with_joined_lists(settings_class: type[Settings], argv: Sequence[str]) -> list[str]:
    """Let a list be written as words: `--seeds 1 2 3` means `--seeds [1,2,3]`."""
    lists = {
        f"--{f.name}" for f in dataclasses.fields(settings_class) if str(f.type)[:5] == "list["
    }
    joined: list[str] = []
    words = list(argv)
    while words:
        joined.append(words.pop(0))
        if joined[-1] in lists and words and not words[0].startswith("["):
            values = []
            while words and not words[0].startswith("--"):
                values.append(words.pop(0))
            joined.append(f"[{','.join(values)}]")
    return joined


def _config_first(argv: Sequence[str]) -> list[str]:
    """Put `--config FILE` in front, wherever it stands, so that flags win over the file."""
    config, others, words = [], [], iter(argv)
    for word in words:
        if word == "--config":
            config += [word, *(value for value in [next(words, None)] if value is not None)]
        else:
            (config if word.startswith("--config=") else others).append(word)
    return [*config, *others]


def _readable(message: str) -> str:
    """A jsonargparse message as one line that names settings as users write them."""
    line = re.sub(r"<class '(\w+)'>", r"\1", " ".join(message.split())).replace("typing.", "")
    line = re.sub(r'^Parser key "(\w+)":', r"--\1:", line)
    line = re.sub(r"^Option ('\w+') is not accepted", r"unknown setting \1; see --help", line)
    if "following arguments are required: " in line:
        missing = line.split("required: ")[1].split(", ")
        return f"required: {', '.join(f'--{name}' for name in missing)}; see --help"
    return f"{line}; see --help" if line.startswith("unrecognized arguments: ") else line
