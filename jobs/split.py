"""Any table of molecules to a DrugOOD-format split by scaffold, size or a column."""

import sys

from jobs.cli import main, say
from pipeline.molecules.settings import SplitSettings


def split(settings: SplitSettings) -> None:
    """Cut a table and say how large the parts are."""
    from pipeline.molecules.run import run_splitting

    made = run_splitting(settings)
    say(
        f"rows    {made['rows_in']:,} in: {made['repeated']:,} repeat a molecule, "
        f"{made['rejected']:,} rejected {dict(made['reasons'].most_common(3)) or ''}".rstrip(),
        f"split   {', '.join(f'{name} {size:,}' for name, size in made['sizes'].items())}",
        f"output  {settings.output}",
    )


if __name__ == "__main__":
    sys.exit(main(SplitSettings, split, "split"))
