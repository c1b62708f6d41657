"""What runs on workers: the features of a group made ready, and its trainings tested.

A group is one sample of a data set on one encoder's features. What all its trainings share is made
by one task and lies in Ray's object store; a part of them (the heads, or one detector) is a task.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.detectors.base import Inputs
from pipeline.detectors.feature_space import FeatureSpace
from pipeline.detectors.heads.energy_head import energies_of
from pipeline.detectors.registry import ENERGY_HEADS
from pipeline.encoding.views import EncodedViews
from pipeline.evaluation.metrics import metrics_both_ways
from pipeline.runtime import telemetry
from pipeline.runtime.errors import DamagedFile, InputError, reason_of
from pipeline.runtime.files import remove
from pipeline.suite.cells import Cell, Energies, write_cell
from pipeline.suite.data.roles import LEAST_TESTS, training_of, unseen
from pipeline.training.checkpoints.checkpoint import head_of
from pipeline.training.checkpoints.references import References
from pipeline.training.fitting import FitInputs, fit_inputs, fit_on
from pipeline.training.run import fit_space, require_roles
from pipeline.training.settings import TrainSettings
from pipeline.training.together.trainer import together, train_heads
from pipeline.training.trained import Trained
from pipeline.training.trainer import TRAINING_ROLES

log = logging.getLogger(__name__)

OF_STATS = {"epochs_run": "epochs", "best_epoch": "best_epoch"}  # columns: `epochs` may be swept


@dataclass(frozen=True)
class Tests:
    """Test molecules as a group sees them.

    Attributes
    ----------
    ids, is_ood : n molecules.
    inputs : in the group's feature space.
    plain : features (n, width) as the encoder gives them, where heads take these; else None.
    dropped : test molecules that the group's training or validation saw, left out here.
    fault : why nothing can be tested on them, if so.
    """

    ids: list[str]
    is_ood: np.ndarray
    inputs: Inputs | None
    plain: np.ndarray | None
    dropped: int
    fault: str | None = None


@dataclass(frozen=True)
class Shared:
    """What the trainings of a group share."""

    molecules: pa.Table
    encoded: EncodedViews
    space: FeatureSpace
    given: FitInputs
    tests: Mapping[str, Tests]
    device: str

    @property
    def trained_on(self) -> dict[str, int]:
        """The number of training molecules of either kind, as columns of the table."""
        roles = Counter(self.molecules["role"].to_pylist())
        return {f"{role}_molecules": roles[role] for role in ("id_train", "ood_train")}


def shared_of(
    molecules: pa.Table,
    encoded: EncodedViews,
    others: Mapping[str, tuple[pa.Table, EncodedViews]],
    settings: TrainSettings,
    device: str,
) -> Shared:
    """The feature space of a group, and all molecules in it.

    Parameters
    ----------
    molecules : of the group's sample, those with features, with roles.
    encoded : their features.
    others : by name of a data set, test molecules and their features; the group's own among them.

    Raises
    ------
    InputError
        If a role has no molecules.
    """
    require_roles(encoded, TRAINING_ROLES, settings.data_file)
    space = fit_space(encoded, settings)
    references = References(molecules, settings.data_seed)
    seen = training_of(molecules)
    tests = {name: _tests(*found, seen, space, references, name) for name, found in others.items()}
    given = fit_inputs(molecules, encoded, space, settings.data_seed)
    return Shared(molecules, encoded, space, given, tests, device)


def _tests(
    molecules: pa.Table,
    encoded: EncodedViews,
    seen: pa.Table,
    space: FeatureSpace,
    references: References,
    name: str,
) -> Tests:
    kept = unseen(molecules, seen)
    is_ood = pc.equal(kept["role"], "ood_test").to_numpy(zero_copy_only=False)
    dropped, ids = molecules.num_rows - kept.num_rows, kept["id"].to_pylist()
    for kind, count in (("ID", (~is_ood).sum()), ("OOD", is_ood.sum())):
        if count < LEAST_TESTS:
            fault = (
                f"{name} has {count} {kind} test molecules with features that training did not "
                f"see, needs at least {LEAST_TESTS} ({dropped} were in training)"
            )
            return Tests(ids, is_ood, None, None, dropped, fault)
    described = references.described(kept, encoded)
    plain = None if space.plain is None else described.blocks[space.views[0]]
    return Tests(ids, is_ood, space.inputs(described), plain, dropped)


@dataclass(frozen=True)
class Fitted:
    """A training that went well, and what scores test molecules by it."""

    trained: Trained
    scores: Callable[[Tests], np.ndarray]


Part = Sequence[Sequence[Cell]]  # of each of some trainings of a group, its cells


def run_part(shared: Shared, part: Part, output_dir: str, share: float) -> dict[str, str]:
    """Train and test some trainings of a group; each cell is written when it is known.

    Parameters
    ----------
    part : heads, which train together, or trainings of one detector.
    share : part of the cluster's cores that it may take.

    Returns
    -------
    dict
        By key of a cell why it failed; the others are written.

    Raises
    ------
    DamagedFile
        If the store is damaged: the suite starts over.
    """
    telemetry.configure_logging()
    failed = {}
    trainings = [cells[0].training.settings for cells in part]
    leftovers = []
    for place, made in fitted(shared, trainings, output_dir, share):
        for cell in part[place]:
            try:
                if isinstance(made, Exception):
                    raise made
                found, energies = _tested(shared, cell, made)
                write_cell(output_dir, cell.key, found, energies)
            except DamagedFile:
                raise
            except Exception as error:  # whatever it is, the other cells shall go on
                log.debug("cell failed", exc_info=True)
                failed[cell.key] = reason_of(error)
        if isinstance(made, Fitted):
            leftovers += made.trained.leftovers
    # A run that is killed before any cell is written goes on from there; after that it trains the
    # heads that are left anew, since their number is part of the folder's name.
    for folder in leftovers:
        remove(folder)
    return failed


def fitted(
    shared: Shared, trainings: Sequence[TrainSettings], output_dir: str, share: float
) -> Iterator[tuple[int, Fitted | Exception]]:
    """Trainings of a group, by their place: all of heads, or none of them.

    Parameters
    ----------
    output_dir : where heads keep the state that a killed run goes on from.
    share : part of the cluster's cores that it may take.
    """
    if trainings[0].detector in ENERGY_HEADS:
        yield from _heads(shared, trainings, output_dir, share)
    else:
        yield from _detectors(shared, trainings)


def _heads(
    shared: Shared, trainings: Sequence[TrainSettings], output_dir: str, share: float
) -> Iterator[tuple[int, Fitted | Exception]]:
    """Energy heads, those together that can be; by their place."""
    for places in together(trainings):
        settings = [replace(trainings[place], output_dir=output_dir) for place in places]
        try:
            made = train_heads(
                shared.molecules, shared.encoded, shared.space, settings, shared.device, share,
                least=1,
            )  # fmt: skip
        except DamagedFile:
            raise
        except Exception as error:  # of what they share
            made = [error] * len(places)
        for place, each in zip(places, made):
            yield place, each if isinstance(each, Exception) else _fitted_head(shared, each)


def _fitted_head(shared: Shared, trained: Trained) -> Fitted:
    head = head_of(trained.config, trained.files, shared.space)

    def scores(tests: Tests) -> np.ndarray:
        features = tests.inputs.features if tests.plain is None else tests.plain
        return energies_of(head, features).astype(np.float64)

    return Fitted(trained, scores)


def _detectors(
    shared: Shared, trainings: Sequence[TrainSettings]
) -> Iterator[tuple[int, Fitted | Exception]]:
    """Detectors that are fitted at once, by their place."""
    for place, settings in enumerate(trainings):
        telemetry.reset_peak_memory()
        try:
            detector, trained = fit_on(settings.detector, shared.given, settings)
        except DamagedFile:
            raise
        except Exception as error:
            yield place, error
            continue
        peak = {"peak_resident_memory_train_gb": telemetry.peak_resident_memory_gb()}
        yield place, Fitted(trained.beside([], **peak), lambda t, d=detector: d.scores(t.inputs))


def _tested(shared: Shared, cell: Cell, made: Fitted) -> tuple[dict[str, Any], Energies]:
    """What is told of a cell, and the energies of its test molecules."""
    tests, stats, encoding = shared.tests[cell.test_data], made.trained.stats, shared.encoded.result
    if tests.fault:
        raise InputError(tests.fault)
    telemetry.reset_peak_memory()
    started = time.perf_counter()
    energies = made.scores(tests)
    seconds = time.perf_counter() - started
    if not np.isfinite(energies).all():
        raise InputError("energies of test molecules are no finite numbers")
    id_mean, ood_mean = (float(energies[tests.is_ood == kind].mean()) for kind in (False, True))
    found = {
        **cell.labels,
        "val_auroc": made.trained.best_val_auroc,
        **metrics_both_ways(tests.is_ood.astype(int), energies),
        "id_mean_energy": id_mean,
        "ood_mean_energy": ood_mean,
        "energy_separation": ood_mean - id_mean,
        **shared.trained_on,
        "id_molecules": int((~tests.is_ood).sum()),
        "ood_molecules": int(tests.is_ood.sum()),
        "dropped_test_molecules": tests.dropped,
        "train_time_seconds": stats["train_time_seconds"],
        "evaluation_time_seconds": seconds,
        "encoding_time_seconds": encoding.seconds,
        "peak_gpu_memory_encoding_gb": encoding.peak_gpu_memory_gb,
        "peak_resident_memory_encoding_gb": encoding.peak_resident_memory_gb,
        "peak_gpu_memory_train_gb": stats.get("peak_gpu_memory_train_gb", 0.0),
        "peak_gpu_memory_eval_gb": telemetry.peak_gpu_memory_gb(),
        "peak_resident_memory_train_gb": stats["peak_resident_memory_train_gb"],
        "peak_resident_memory_eval_gb": telemetry.peak_resident_memory_gb(),
        "heads_together": stats.get("heads_together", 1),
        **{column: stats[name] for column, name in OF_STATS.items() if name in stats},
    }
    return found, Energies(tests.ids, tests.is_ood, energies)
