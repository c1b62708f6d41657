"""The main workflow on the sample that ships with the repository, from a table to a comparison."""

import sys
from dataclasses import dataclass, field, fields
from pathlib import Path

from jobs.cli import main, say
from jobs.compare import compare
from jobs.encode import encode
from jobs.split import split
from pipeline.comparison.settings import CompareSettings
from pipeline.encoding.settings import EncodeSettings
from pipeline.molecules.settings import SplitSettings
from pipeline.runtime.errors import InputError
from pipeline.runtime.settings import OutputSettings, bounded
from pipeline.store.settings import StoreSettings

SAMPLE = Path(__file__).parent.parent / "data" / "hiv_sample.csv.gz"


@dataclass(frozen=True, kw_only=True)
class QuickstartSettings(StoreSettings, OutputSettings):
    """Split the shipped HIV sample, encode it, train frozen and finetuned, compare the two."""

    output_dir: str = "outputs/quickstart"
    """Folder for results."""
    data_file: str = str(SAMPLE)
    """Table of molecules with a column smiles; default: the sample in data/."""
    weights: str | None = "mini"
    """Uni-Mol checkpoint, as of jobs.encode; default: the small one that comes with MolSieve."""
    seeds: list[int] = field(default_factory=lambda: [42])
    """Seeds of the trainings; each makes one with the encoder frozen and one finetuned."""
    epochs: int = bounded(25, least=1)
    """Passes over the training molecules at most; 25 take about two minutes on 2 cores."""
    lr: float = bounded(1e-3, above=0)
    """Learning rate of the head; ten times that of jobs.train, for so few epochs."""
    encoder_lr: float = bounded(1e-4, above=0)
    """Learning rate of the encoder's layers; above that of jobs.train, for a small encoder."""


def quickstart(settings: QuickstartSettings) -> None:
    """Run the three jobs one after the other, and say where to look."""
    if settings.data_file == str(SAMPLE) and not SAMPLE.exists():
        raise InputError(
            "the sample comes with MolSieve's repository, not with the installed package; "
            "give a table of your own with --data_file"
        )
    folder = settings.output_dir
    split_file = f"{folder}/split.json.gz"
    store = {f.name: getattr(settings, f.name) for f in fields(StoreSettings)}
    say("1. split the table by Murcko scaffold (jobs.split)")
    split(SplitSettings(data_file=settings.data_file, output=split_file))
    say("", "2. encode its molecules (jobs.encode)")
    encode(
        EncodeSettings(
            data_file=split_file, weights=settings.weights, output_dir=f"{folder}/encoded", **store
        )
    )
    say("", "3. train Energy-DPO, encoder frozen and finetuned, and compare (jobs.compare)")
    compare(
        CompareSettings(
            data_file=split_file,
            weights=settings.weights,
            sampling="all",
            seeds=settings.seeds,
            epochs=settings.epochs,
            lr=settings.lr,
            encoder_lr=settings.encoder_lr,
            output_dir=f"{folder}/comparison",
            **{**store, "force_recompute_cache": False, "retry_rejected": False},
        )
    )
    say(
        "",
        "Where to look:",
        f"  {folder}/comparison: comparison_summary.txt, figures/, and a folder for each run with",
        "    its checkpoint, detailed_predictions.csv and training_dynamics.csv",
        f"  {folder}/encoded: molecules.parquet, rejected.parquet, run_summary.json",
        f"  {settings.cache_root}: the store of conformers and features for other runs",
    )


if __name__ == "__main__":
    sys.exit(main(QuickstartSettings, quickstart, "quickstart"))
