"""What MolSieve understands of a data file, and what a run over it would cost."""

import sys

from jobs.cli import main, say
from pipeline.checking.settings import CheckSettings


def check(settings: CheckSettings) -> None:
    """Read a data file and say what its rows are."""
    from pipeline.checking.run import run_check

    lines = run_check(settings).lines()
    width = max(len(name) for name, _ in lines)
    say(*(f"{name:{width}}  {text}" for name, text in lines))


if __name__ == "__main__":
    sys.exit(main(CheckSettings, check, "check"))
