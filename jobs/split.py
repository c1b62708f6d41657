"""Any table of molecules to a DrugOOD-format split by scaffold, size or a column."""

import dataclasses
import gzip
import json
import sys
from collections import Counter

from jobs.cli import main, say
from pipeline.config import SplitSettings
from pipeline.errors import InputError


def split(settings: SplitSettings) -> None:
    """Cut a table and write the split file."""
    from pipeline.files import write_atomically
    from pipeline.sources import first_of_each, read_molecules
    from pipeline.splits import make_split

    if not settings.output.endswith((".json", ".json.gz")):
        raise InputError(f"--output {settings.output}: must end in .json or .json.gz")
    if (settings.by == "column") != (settings.column is not None):
        raise InputError("--by column and --column NAME go together")
    if settings.by == "column":
        settings = dataclasses.replace(settings, domain_column=settings.column)
    source = read_molecules(settings)
    molecules = first_of_each(source.molecules)
    content = make_split(molecules, settings)
    text = json.dumps(content, separators=(",", ":")).encode()
    if settings.output.endswith(".gz"):
        text = gzip.compress(text, mtime=0)  # no time stamp: the same split, the same bytes
    write_atomically(settings.output, text)
    sizes = {name: len(items) for name, items in content["split"].items()}
    say(
        f"rows    {source.rows:,} in: {source.molecules.num_rows - molecules.num_rows:,} repeat a "
        f"molecule, {source.rejected.num_rows:,} rejected "
        f"{dict(Counter(source.rejected['reason'].to_pylist()).most_common(3)) or ''}".rstrip(),
        f"split   {', '.join(f'{name} {size:,}' for name, size in sizes.items())}",
        f"output  {settings.output}",
    )


if __name__ == "__main__":
    sys.exit(main(SplitSettings, split, "split"))
