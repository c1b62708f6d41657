"""Any table of molecules to a DrugOOD-format split by scaffold, size, cluster, column or time."""

import sys
from typing import Any

from jobs.cli import main, say
from pipeline.molecules.settings import SplitSettings

TAKEN = {
    "first": "the first is taken",
    "mean": "their mean is taken",
    "drop": "they are dropped",
}


def split(settings: SplitSettings) -> None:
    """Cut a table and say how large the parts are, and what was merged or left out."""
    from pipeline.molecules.splitting.run import run_splitting

    made = run_splitting(settings)
    say(
        *(f"guessed {note}" for note in made["reading"]),
        f"rows    {made['rows_in']:,} in: {made['repeated']:,} repeat a molecule, "
        f"{made['rejected']:,} rejected {dict(made['reasons'].most_common(3)) or ''}".rstrip(),
        *_left_out(settings, made),
        f"order   {made['order']}",
        *_parts(settings, made["parts"]),
        f"split   {', '.join(f'{name} {size:,}' for name, size in made['sizes'].items())}",
        f"output  {settings.output}",
    )


def _parts(settings: SplitSettings, parts: dict[str, list[str]]) -> list[str]:
    """Of clusters, how many are ID, ood_val and ood_test; of dates, the first and the last."""
    if settings.by == "cluster":
        return ["cluster " + ", ".join(f"{part} {len(names)}" for part, names in parts.items())]
    if settings.by == "time":
        spans = (f"{part} {names[0]} to {names[-1]}" for part, names in parts.items())
        return ["dates   " + ", ".join(spans)]
    return []


def _left_out(settings: SplitSettings, made: dict[str, Any]) -> list[str]:
    """A line for each kind of row that was merged, changed or left out, if there is one."""
    lines = []
    if made["several_rows"]:
        lines.append(
            f"repeats {made['several_rows']:,} molecules have several rows, "
            f"{made['several_labels']:,} of them with different labels"
        )
    if made["several_labels"]:
        lines[-1] += f": {TAKEN[settings.duplicates]} (--duplicates {settings.duplicates})"
    if made["conflicting"]:
        lines.append(
            f"dropped {made['conflicting']:,} rows of {made['conflicting_molecules']:,} molecules "
            "with different labels"
        )
    if made["several_domains"]:
        lines.append(
            f"domains {made['several_domains']:,} molecules have rows in several domains: the "
            "first row's is taken"
        )
    if made["without_domain"]:
        lines.append(f"dropped {made['without_domain']:,} rows without a domain")
    if made["fragments_removed"]:
        lines.append(f"largest {made['fragments_removed']:,} molecules lost smaller fragments")
    if made["not_sampled"]:
        lines.append(f"sampled {made['not_sampled']:,} molecules are left out (--max_molecules)")
    return lines


if __name__ == "__main__":
    sys.exit(main(SplitSettings, split, "split"))
