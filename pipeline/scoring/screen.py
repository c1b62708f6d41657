"""What jobs.screen calls: a training set and a library to scores and a verdict."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, fields
from typing import Any, Literal

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.encoding.views import DISTANCES
from pipeline.molecules.folders import data_files, kind_of_source, of_file
from pipeline.molecules.kinds import SEQUENCE, SMILES, Kind
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import json_bytes, remove, write_atomically
from pipeline.runtime.train.ray_train import decisive
from pipeline.scoring.output.output_folder import part_files, read_part, version_of
from pipeline.scoring.run import run_scoring
from pipeline.scoring.settings import ScoreSettings, VerdictSettings
from pipeline.scoring.steps import SCORES_FOLDER
from pipeline.store.checkpoint_folder import CONFIG
from pipeline.training.outputs import CHECKPOINT_FOLDER
from pipeline.training.settings import DetectorName, TrainSettings
from pipeline.training.synthetic_ood import SYNTHETIC
from pipeline.training.trainer import NOT_IDENTITY
from pipeline.trust.training import train_and_audit

log = logging.getLogger(__name__)

TRAINING_FOLDER, DONE = "training", "_done.json"
COMPLETE = f"{CHECKPOINT_FOLDER}/{CONFIG}"
# By kind of molecules; distances besides, which synthetic features have not.
SCREEN_VIEWS = {SMILES.name: "minimol,ecfp,descriptors", SEQUENCE.name: "esm"}
# Similarity to the nearest training molecule, above which chemists call two molecules alike.
ALIKE = 0.4


@dataclass(frozen=True, kw_only=True)
class ScreenSettings(TrainSettings, VerdictSettings):
    """Train on your training set, score your library, and say which predictions not to trust."""

    foundation_model: (
        Literal["unimol", "unimol2", "minimol", "ecfp", "descriptors", "esm"] | None
    ) = None
    """One encoder in place of --views."""
    views: str | None = None
    """Features side by side: of unimol, unimol2, minimol, ecfp, descriptors, esm, distances;
    default: minimol,ecfp,descriptors,distances, for sequences esm,distances; with --ood synthetic
    without distances."""
    detector: DetectorName | None = "auto"
    """An energy head (dpo, bce, mse, hinge), or a detector that is fitted at once; auto takes the
    best on validation."""


def run_screen(settings: ScreenSettings) -> dict[str, Any]:
    """Train a detector (and with labels an error model) on --id_file, and score --library.

    A training that an earlier run of the same settings finished is taken over, and so are chunks of
    the library that it scored.

    Returns
    -------
    dict
        `training` (training_stats.json of OUTPUT_DIR/training), `scores` (run_summary.json), and
        `verdict`, also in verdict.json.

    Raises
    ------
    InputError
        That names the flag to mend.
    """
    check_screen(settings)
    training = _trained(settings)
    values = {f.name: getattr(settings, f.name) for f in fields(VerdictSettings)}
    names = {f.name for f in fields(ScoreSettings)} & {f.name for f in fields(TrainSettings)}
    values |= {name: getattr(settings, name) for name in names - {"data_file", "weights"}}
    score = ScoreSettings(
        **{
            **values, "data_file": settings.library, "weights": settings.weights,
            "checkpoint": f"{settings.output_dir}/{TRAINING_FOLDER}/{CHECKPOINT_FOLDER}",
            # What these ask for was done for training.
            "force_recompute_cache": False, "dataset": None,
        }
    )  # fmt: skip
    scores = run_scoring(of_file(score, settings.library))
    verdict = verdict_of(settings.output_dir, training, scores)
    write_atomically(f"{settings.output_dir}/verdict.json", json_bytes(verdict))
    return {"training": training, "scores": scores, "verdict": verdict}


def check_screen(settings: ScreenSettings) -> None:
    """Tell flags that are missing or do nothing here.

    Raises
    ------
    InputError
        That names the flag.
    """
    missing = [name for name in ("id_file", "library") if getattr(settings, name) is None]
    if missing:
        raise InputError(
            f"required: {', '.join(f'--{name}' for name in missing)} (the training set, and the "
            "molecules to be scored); see --help"
        )
    if settings.data_file is not None:
        raise InputError("--data_file does nothing here: give --id_file and --library")
    if settings.views and settings.foundation_model:
        raise InputError("--foundation_model and --views say the same; leave one of them out")
    data_files(settings.library, settings.sequence_column)  # before the training is waited for


def screen_views(ood: str | None, kind: Kind = SMILES) -> str:
    """The views that are taken if none are asked for, by `--ood` and the kind of molecules."""
    views = SCREEN_VIEWS[kind.name]
    return views if ood == SYNTHETIC else f"{views},{DISTANCES}"


def _trained(settings: ScreenSettings) -> dict[str, Any]:
    """The content of training_stats.json, of this or of an earlier run with the same settings."""
    folder = f"{settings.output_dir}/{TRAINING_FOLDER}"
    names = [f.name for f in fields(TrainSettings)]
    views = settings.views or settings.foundation_model
    if views is None:
        source = of_file(settings, settings.id_file)
        views = screen_views(settings.ood, kind_of_source(source))
    given = {name: getattr(settings, name) for name in names if name != "foundation_model"}
    library = settings.library if settings.ood == "library" else None
    own = TrainSettings(**{**given, "views": views, "output_dir": folder, "library": library})
    identity = json.loads(json_bytes(_identity(own)))
    fs, path = fsspec.url_to_fs(f"{folder}/{DONE}")
    there = fs.exists(path) and fs.exists(f"{fs._strip_protocol(folder)}/{COMPLETE}")
    if there and not settings.force_recompute_cache:
        earlier = json.loads(fs.cat_file(path))
        if earlier["identity"] == identity:
            log.info("the training of an earlier run is taken over (%s)", folder)
            return earlier["stats"]
    remove(f"{folder}/{DONE}")  # the earlier training is overwritten from here on
    stats = train_and_audit(own)
    write_atomically(f"{folder}/{DONE}", json_bytes({"identity": identity, "stats": stats}))
    return json.loads(json_bytes(stats))


def _identity(own: TrainSettings) -> dict[str, Any]:
    """What only the same training of the same files has."""
    files = [own.id_file, own.ood_file, own.library, own.predictions]
    size = {} if own.model_size is None else {"model_size": own.model_size}
    return {
        "settings": decisive(own, NOT_IDENTITY),
        "weights": own.weights,
        **size,
        "files": [
            version_of(file)
            for name in files
            if name is not None
            for file in data_files(name, own.sequence_column)
        ],
    }


def verdict_of(output_dir: str, training: dict[str, Any], scores: dict[str, Any]) -> dict[str, Any]:
    """What the scores of a library say in all.

    Returns
    -------
    dict
        Counts of molecules by `is_ood` and, with an error model, their `expected_error`: medians
        inside and outside, and of the most and the least trustworthy fifth.
    """
    columns = ["is_ood", "in_training", "nearest_similarity", "expected_error", "energy"]
    parts = part_files(output_dir, SCORES_FOLDER)
    table = pa.concat_tables([read_part(output_dir, part, columns) for part in parts])
    new = table.filter(pc.invert(table["in_training"]))
    is_ood = new["is_ood"].to_numpy(zero_copy_only=False).astype(bool)
    similarity = new["nearest_similarity"].to_numpy()
    made: dict[str, Any] = {
        "molecules": table.num_rows,
        "in_training": table.num_rows - new.num_rows,
        "inside": int((~is_ood).sum()),
        "outside": int(is_ood.sum()),
        "alike": int((similarity >= ALIKE).sum()),
        "alike_from": ALIKE,
        "median_similarity": {
            kind: float(np.median(similarity[mask])) if mask.any() else None
            for kind, mask in (("inside", ~is_ood), ("outside", is_ood))
        },
        "detector": training["detector"],
        "warning": training["audit"].get("warning"),
    }
    errors = new["expected_error"].to_numpy(zero_copy_only=False).astype(float)
    told = np.isfinite(errors)
    if told.any():
        low, high = np.quantile(errors[told], [0.2, 0.8])
        made["expected_error"] = {
            **{
                kind: float(np.median(errors[mask & told])) if (mask & told).any() else None
                for kind, mask in (("inside", ~is_ood), ("outside", is_ood))
            },
            "best_fifth_up_to": float(low),
            "worst_fifth_from": float(high),
            "without": int((~told).sum()),
        }
    return made
