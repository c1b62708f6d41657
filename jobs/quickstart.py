"""The main workflow on the sample that ships with the repository, from a table to a verdict."""

import sys
from dataclasses import dataclass, field, fields
from pathlib import Path

from jobs.cli import main, say
from jobs.compare import compare
from jobs.encode import encode
from jobs.report import report
from jobs.screen import screen
from jobs.split import split
from jobs.trust import trust
from pipeline.comparison.settings import CompareSettings
from pipeline.encoding.settings import EncodeSettings
from pipeline.molecules.settings import SplitSettings
from pipeline.report.settings import PAGE, ReportSettings
from pipeline.runtime.errors import InputError
from pipeline.runtime.settings import OutputSettings, bounded
from pipeline.scoring.screen import ScreenSettings
from pipeline.store.settings import StoreSettings
from pipeline.trust.settings import TrustSettings

DATA = Path(__file__).parent.parent / "data"
TRAINING, LIBRARY = DATA / "activity_training.csv.gz", DATA / "activity_library.csv.gz"
VIEWS = "unimol,minimol,ecfp,descriptors,distances"
TITLE = "MolSieve quickstart"
CHUNK = 64  # rows of the library: few, so that all cores have some


@dataclass(frozen=True, kw_only=True)
class QuickstartSettings(StoreSettings, OutputSettings):
    """Encode a training set, train on it, screen a library, see if the verdict holds; one page.

    The shipped set is of inhibitors of one target; some values of its library are known.
    """

    output_dir: str = "outputs/quickstart"
    """Folder for results."""
    id_file: str = str(TRAINING)
    """Training set, with columns smiles and --label_column; default: the sample in data/."""
    library: str = str(LIBRARY)
    """Library to screen; --label_column, by which the verdict is checked, need not be complete."""
    label_column: str = "y"
    """Column with measured values, of both files."""
    id_column: str | None = "id"
    """Column with unique ids, of both files."""
    weights: str | None = "mini"
    """Uni-Mol checkpoint, as of jobs.encode; default: the small one that comes with MolSieve."""
    seeds: list[int] = field(default_factory=lambda: [42])
    """Seeds of the trainings; each makes one with the encoder frozen and one finetuned."""
    epochs: int = bounded(5, least=1)
    """Passes over the training molecules at most, of the trainings that are compared."""
    lr: float = bounded(1e-3, above=0)
    """Learning rate of the head; ten times that of jobs.train, for so few epochs."""
    encoder_lr: float = bounded(1e-4, above=0)
    """Learning rate of the encoder's layers; above that of jobs.train, for a small encoder."""
    ood_size: int = bounded(400, least=20)
    """Background molecules that the screen trains with; fewer than in jobs.screen, for time."""


def quickstart(settings: QuickstartSettings) -> None:
    """Run the jobs one after the other, and say where to look."""
    if settings.id_file == str(TRAINING) and not TRAINING.exists():
        raise InputError(
            "the sample comes with MolSieve's repository, not with the installed package; "
            "give a table of your own with --id_file, and a --library"
        )
    folder = settings.output_dir
    store = {f.name: getattr(settings, f.name) for f in fields(StoreSettings)}
    again = {**store, "force_recompute_cache": False, "retry_rejected": False}
    _compare(settings, store, again)
    say("", "4. screen the library with all views (jobs.screen)")
    screen(
        ScreenSettings(
            id_file=settings.id_file,
            library=settings.library,
            label_column=settings.label_column,
            id_column=settings.id_column,
            views=VIEWS,
            weights=settings.weights,
            ood_size=settings.ood_size,
            chunk_size=CHUNK,
            output_dir=f"{folder}/screen",
            **again,
        )
    )
    _check(settings)
    say("", "6. all of it on one page (jobs.report)")
    report(ReportSettings(folder=folder, title=TITLE))
    say(
        "",
        "Where to look:",
        f"  {folder}/screen: scores/, beside_nearest.png (the most and the least trustworthy",
        "    molecules beside their nearest training molecules), top.csv, training/checkpoint",
        f"  {folder}/trust: retention.png, trust.txt",
        f"  {folder}/comparison: comparison_summary.txt, figures/, and a folder for each run",
        f"  {settings.cache_root}: the store of conformers and features for other runs",
        "",
        "The page to look at first, in any browser:",
        f"  {folder}/{PAGE}",
    )


def _compare(settings: QuickstartSettings, store: dict, again: dict) -> None:
    """Split the training set, encode it, and train on it in both ways."""
    folder = settings.output_dir
    split_file = f"{folder}/split.json.gz"
    say("1. split the training set by clusters of similar molecules (jobs.split)")
    split(
        SplitSettings(
            data_file=settings.id_file,
            id_column=settings.id_column,
            label_column=settings.label_column,
            by="cluster",
            output=split_file,
        )
    )
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
            seeds=settings.seeds,
            epochs=settings.epochs,
            lr=settings.lr,
            encoder_lr=settings.encoder_lr,
            output_dir=f"{folder}/comparison",
            **again,
        )
    )


def _check(settings: QuickstartSettings) -> None:
    """Judge the screen by the library's measured values."""
    say("", "5. does it hold? by the measured values, which the screen did not see (jobs.trust)")
    trust(
        TrustSettings(
            data_file=f"{settings.output_dir}/screen/scores",
            label_file=settings.library,
            label_column=settings.label_column,
            prediction_column="prediction",
            score_columns=["expected_error", "energy"],
            lower_column="lower",
            upper_column="upper",
            id_file=settings.id_file,
            output_dir=f"{settings.output_dir}/trust",
        )
    )


if __name__ == "__main__":
    sys.exit(main(QuickstartSettings, quickstart, "quickstart"))
