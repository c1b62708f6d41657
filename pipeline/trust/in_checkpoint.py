"""The error model of a checkpoint: fitted after training, kept in its folder `errors`."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from dataclasses import dataclass
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.detectors.feature_space import Described, FeatureSpace
from pipeline.encoding.views import plan_views
from pipeline.molecules.features.descriptors import descriptor_values
from pipeline.molecules.folders import of_file
from pipeline.molecules.formats import read_rows
from pipeline.molecules.sources import parse_rows
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import json_bytes, write_atomically
from pipeline.store.checkpoint_folder import CONFIG, read_member, told_as_one_line
from pipeline.training.checkpoints.checkpoint import Checkpoint
from pipeline.training.checkpoints.checkpoint_encoder import described_from_store
from pipeline.training.outputs import CHECKPOINT_FOLDER
from pipeline.training.settings import TrainSettings
from pipeline.training.training_set import as_split
from pipeline.trust.errors.conformal import least_molecules
from pipeline.trust.errors.error_model import ErrorModel
from pipeline.trust.errors.trusted import Trusted
from pipeline.trust.labels import checked_labels

log = logging.getLogger(__name__)

FOLDER, KEYS = "errors", "keys.json"
LEAST_CALIBRATING = least_molecules(0.1)  # the default of --interval_alpha
FITTED_ON, CALIBRATES = ("id_train", "id_val"), "id_cal"


@dataclass(frozen=True)
class KeptErrors:
    """An error model and what it was fitted on.

    Attributes
    ----------
    keys : of the molecules that it was fitted on and calibrated by.
    sha256 : of the model's files.
    predictions : the user's own, `smiles` and `label`; None if the predictions are the model's.
    """

    model: ErrorModel
    keys: tuple[str, ...]
    sha256: str
    predictions: pa.Table | None = None

    @property
    def binary(self) -> bool:
        """Whether the labels are 0 and 1."""
        return self.model.binary

    def predict(self, space: FeatureSpace, molecules: Described, keys: list[str]) -> Trusted:
        """Of n molecules, what the model says; NaN where the user's predictions lack one.

        A molecule that it was fitted on gets what it got out of fold.
        """
        row = {key: number for number, key in enumerate(self.keys)}
        own = np.array([row.get(key, -1) for key in keys])
        given = None
        if self.predictions is not None:
            place = pc.index_in(pa.array(molecules.smiles), self.predictions["smiles"])
            given = self.predictions["label"].take(place).to_numpy(zero_copy_only=False)
        there = np.ones(len(keys), bool) if given is None else np.isfinite(given)
        made = Trusted(*np.full((3, len(keys)), np.nan))
        if there.any():
            some = molecules.take(there)
            found = self.model.predict(
                some.bits, encoded_views(space, some), descriptor_values(some.smiles, some.kind),
                predictions=None if given is None else given[there], own=own[there],
            )  # fmt: skip
            for whole, values in zip(made, found):
                whole[there] = values
        return made


def encoded_views(space: FeatureSpace, molecules: Described) -> dict[str, np.ndarray]:
    """Each view's standardised features (n, width)."""
    inputs = space.inputs(molecules)
    return {view: inputs.features[:, columns] for view, columns in inputs.blocks.items()}


def read_predictions(settings: TrainSettings, file: str | None = None) -> pa.Table | None:
    """The user's own predictions, `smiles` and `label`, each molecule once; None if there are none.

    Raises
    ------
    InputError
        If the file or its column is missing.
    """
    file = file or settings.predictions
    if file is None:
        return None
    source = of_file(
        settings, file, dataset=None, label_column=settings.prediction_column,
        domain_column=None, split_column=None, id_column=None, structures="made",
    )  # fmt: skip
    try:
        rows = read_rows(source)
    except InputError as error:
        told = str(error).replace(
            "Set --label_column", "--prediction_column, of training, names it"
        )
        raise InputError(f"--predictions: {told}") from None
    found = parse_rows(as_split(rows), source)
    differ = sum("another label" in r for r in found.rejected["reason"].to_pylist())
    if differ:
        log.warning(
            "%s: %s molecules have several predictions; the first counts", file, f"{differ:,}"
        )
    return found.molecules.select(["smiles", "label"]).combine_chunks()


def fit_errors(
    checkpoint: Checkpoint, settings: TrainSettings, predictions: pa.Table | None
) -> dict[str, Any]:
    """Fit the error model of a training's checkpoint, and keep it there.

    Parameters
    ----------
    settings : of the training.
    predictions : the user's own, of `read_predictions`.

    Returns
    -------
    dict
        Numbers of molecules `labelled` and `unlabelled`; of the former those `fitted` on and those
        that `calibrate`; whose `predictions`; `seconds`.
    """
    started = time.perf_counter()
    folder = f"{settings.output_dir}/{CHECKPOINT_FOLDER}"
    molecules = checkpoint.of_role(*FITTED_ON, CALIBRATES)
    labelled = molecules.filter(_is_known(molecules["label"]))
    given = None
    if predictions is not None:
        place = pc.index_in(labelled["smiles"], predictions["smiles"])
        value = predictions["label"].take(place)
        there = _is_known(value)
        lack = pc.sum(pc.invert(there)).as_py() or 0
        if lack:
            log.warning("%s labelled molecules have no prediction of yours: left out", lack)
        labelled, given = labelled.filter(there), value.filter(there).to_numpy()
    keys, smiles = labelled["key"].to_pylist(), labelled["smiles"].to_pylist()
    checked_labels(smiles, labelled["label"].to_numpy())
    calibrates = np.flatnonzero(np.array(labelled["role"].to_pylist()) == CALIBRATES)
    if len(calibrates) < LEAST_CALIBRATING:
        raise InputError(
            f"--label_column: of the {len(keys):,} labelled molecules {len(calibrates)} are among "
            f"those drawn to calibrate intervals, which takes {LEAST_CALIBRATING}; label more, or "
            "draw others by another --data_seed"
        )
    plans = plan_views(settings, settings.view_names)
    shown = described_from_store(checkpoint, labelled, plans)
    model = ErrorModel.fit(
        smiles, shown.bits, labelled["label"].to_numpy(), encoded_views(checkpoint.space, shown),
        property_model=settings.property_model, predictions=given,
        descriptors=descriptor_values(smiles, shown.kind), calibration=calibrates,
        seed=settings.seed,
    )  # fmt: skip
    files = {**model.save(), KEYS: json_bytes(keys)}
    for name, content in files.items():
        write_atomically(f"{folder}/{FOLDER}/{name}", content)
    # It comes last, and completes the folder.
    about = {
        "files": {name: hashlib.sha256(files[name]).hexdigest() for name in sorted(files)},
        "prediction_column": settings.prediction_column,
    }
    write_atomically(f"{folder}/{FOLDER}/{CONFIG}", json_bytes(about))
    made = {
        "labelled": len(keys),
        "unlabelled": molecules.num_rows - len(keys),
        "fitted": len(keys) - len(calibrates),
        "calibrate": len(calibrates),
        "predictions": settings.predictions or settings.property_model,
        "seconds": time.perf_counter() - started,
    }
    log.info(
        "error model: fitted on %s labelled molecules, calibrated by %s others, in %.1f s",
        f"{made['fitted']:,}", f"{made['calibrate']:,}", made["seconds"],
    )  # fmt: skip
    return made


def _is_known(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Whether each is a number; files of some tools write NaN where there is none."""
    return pc.fill_null(pc.invert(pc.is_nan(values)), False)


def _digest(files: dict[str, str]) -> str:
    """One SHA-256 of those of all files."""
    return hashlib.sha256("".join(files[name] for name in sorted(files)).encode()).hexdigest()


def read_errors(checkpoint: str, predicted: bool = False) -> KeptErrors | None:
    """The error model of a checkpoint folder; None if it has none.

    Parameters
    ----------
    predicted : whether there are predictions of the user's own, of the molecules to come.

    Raises
    ------
    InputError
        If files are missing or damaged, or such predictions are where it needs them.
    """
    folder = f"{checkpoint.rstrip('/')}/{FOLDER}"
    fs, path = fsspec.url_to_fs(f"{folder}/{CONFIG}")
    if not fs.exists(path):
        if predicted:
            raise InputError(f"--predictions: {checkpoint} has no error model; leave it out")
        return None
    with told_as_one_line("checkpoint", folder):
        about = json.loads(read_member(folder, CONFIG))
        files = {name: read_member(folder, name) for name in about["files"]}
        for name, digest in about["files"].items():
            if hashlib.sha256(files[name]).hexdigest() != digest:
                raise ValueError(f"{name} is damaged; train again into another folder")
        keys = tuple(json.loads(files[KEYS]))
        model = ErrorModel.load(files)
    if model.property_model is None and not predicted:
        raise InputError(
            f"the error model of {checkpoint} tells the errors of your own predictions; give those "
            "of the library by --predictions"
        )
    if model.property_model is not None and predicted:
        raise InputError(
            f"--predictions: the error model of {checkpoint} makes its predictions itself; leave "
            "it out, or train with --predictions"
        )
    return KeptErrors(model, keys, _digest(about["files"]))
