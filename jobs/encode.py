"""Molecules to conformers and features in the store."""

import sys

from jobs.cli import main, say
from pipeline.encoding.settings import EncodeSettings


def encode(settings: EncodeSettings) -> None:
    """Encode a data file and say what became of its rows."""
    from pipeline.conformers.structure import structures_line
    from pipeline.encoding.run import run_encoding
    from pipeline.molecules.sources import tidied_line

    summary = run_encoding(settings)
    removed = summary["fragments_removed"]
    line = structures_line(summary["structures"])
    say(
        f"encoder   {summary['encoder']} (weights: {summary['weights']})",
        f"rows      {summary['rows_in']:,} in = {summary['molecules_out']:,} with features "
        f"+ {summary['rejected']:,} rejected",
        *([f"fragments removed from {removed:,} molecules"] if removed else []),
        *([f"tidied    {tidied_line(summary['tidied'])}"] if summary["tidied"] else []),
        f"encoded   {summary['encoded']:,} now at "
        f"{summary['encoding_molecules_per_second']:.1f} molecules/s, "
        f"{summary['found_in_store']:,} found in the store",
        *([f"bound by  {summary['stages']['bound_by']}"] if summary["stages"] else []),
        f"features  {summary['features']}",
        *([f"residues  {summary['residues']}"] if summary["residues"] else []),
        f"outputs   {settings.output_dir}",
        *([f"structure {line}"] if line else []),
    )


if __name__ == "__main__":
    sys.exit(main(EncodeSettings, encode, "encode"))
