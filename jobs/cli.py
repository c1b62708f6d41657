"""What every command shares: flags from a settings class, YAML, one-line errors, exit codes."""

from __future__ import annotations

import argparse
import dataclasses
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from jsonargparse import ArgumentParser, set_parsing_settings

from pipeline.runtime.errors import InputError, told
from pipeline.runtime.files import starting_over
from pipeline.runtime.settings import Settings, at_home
from pipeline.runtime.telemetry import configure_logging

S = TypeVar("S", bound=Settings)
EXIT_BAD_INPUT, EXIT_INTERRUPTED = 2, 130

# unset_sentinel: a null in a file is a value, to be checked as any other
set_parsing_settings(docstring_parse_attribute_docstrings=True, unset_sentinel=True)


def parse(settings_class: type[S], program: str, argv: Sequence[str]) -> S:
    """Settings from the command line over those of `--config FILE.yaml` over the defaults.

    Raises
    ------
    InputError
        If a flag or key is unknown, missing, of the wrong type or out of bounds.
    """
    files = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    files.add_argument("--config", action="append", default=[])
    try:
        given, flags = files.parse_known_args(argv)
        # jsonargparse lets the later win, file or flag, so the files come first
        words = [*(f"--config={at_home(file)}" for file in given.config), *flags]
        values = _parser(settings_class, program).parse_args(words).as_dict()
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
    program: str | None = None,
) -> int:
    """Run a command and return its exit code: 0, 2 for bad input, 130 when interrupted.

    `program` is what the user called, if not `python -m jobs.JOB`.
    """
    program = program or f"python -m jobs.{job}"
    name = program.removeprefix("python -m ")
    warnings.filterwarnings("ignore", category=FutureWarning, module="ray")
    configure_logging()
    try:
        starting_over(work, parse(settings_class, program, sys.argv[1:] if argv is None else argv))
    except InputError as error:
        print(f"{name}: error: {told(error)}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except KeyboardInterrupt:
        print(
            f"{name}: interrupted; finished work is kept, the same command continues",
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


class _Words(argparse.Action):
    """A list as words: `--seeds 1 2 3` means `--seeds [1,2,3]`, which a typed flag takes."""

    def __init__(self, flag: argparse.Action):
        super().__init__(flag.option_strings, flag.dest, nargs="+")
        self.flag = flag

    def __call__(self, parser, namespace, words, option_string=None):
        self.flag(parser, namespace, f"[{','.join(words).strip('[]')}]", option_string)


def _parser(settings_class: type[Settings], program: str) -> ArgumentParser:
    """A flag for each setting, with the docstring below it as help."""
    parser = ArgumentParser(prog=program, description=settings_class.__doc__, exit_on_error=False)
    parser.add_argument("--config", action="config", help="YAML file with any of these settings.")
    parser.add_class_arguments(settings_class)
    flags = parser._option_string_actions  # there is no public way to a flag
    for name, hint in get_type_hints(settings_class).items():
        flag = flags[f"--{name}"]
        if flag.required:
            flag.default = argparse.SUPPRESS  # or the help would tell one
        if hint is bool:
            flag.nargs, flag.const = "?", True  # `--allow_overlap` alone means true
        elif _is_list(hint):
            flags[f"--{name}"] = _Words(flag)
    return parser


def _is_list(hint: Any) -> bool:
    """Whether a setting is a list, or a list that may be left out."""
    kinds = [kind for kind in get_args(hint) if kind is not type(None)]
    return get_origin(hint) is list or (len(kinds) == 1 and get_origin(kinds[0]) is list)


def _readable(message: str) -> str:
    """A jsonargparse message as one line that names settings as users write them."""
    line = re.sub(r"<class '(\w+)'>", r"\1", " ".join(message.split())).replace("typing.", "")
    line = re.sub(r'^Parser key "(\w+)":', r"--\1:", line)
    line = re.sub(r"^Option ('\w+') is not accepted", r"unknown setting \1; see --help", line)
    if "following arguments are required: " in line:
        missing = line.split("required: ")[1].split(", ")
        return f"required: {', '.join(f'--{name}' for name in missing)}; see --help"
    return f"{line}; see --help" if line.startswith("unrecognized arguments: ") else line
