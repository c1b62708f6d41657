"""What jobs.suite calls: the grid is laid out, what is missing is made, and all is summed up."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.encoding.views import (
    EncodedViews,
    check_encoders,
    decided,
    encode_views,
    plan_views,
)
from pipeline.molecules.rejected import write_rejected
from pipeline.runtime.cluster import start_ray
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import json_bytes, remove, write_atomically
from pipeline.suite.audits import audit_file, read_audit
from pipeline.suite.cells import Cell, cell_key, finished_cells
from pipeline.suite.data_sets import DataSet, Sample, located, read_data, training_settings
from pipeline.suite.grid import (
    Encoder,
    Training,
    Variant,
    check_sweep,
    concerns,
    detectors_asked,
    encoders_asked,
    trainings_of,
    variants_of,
)
from pipeline.suite.output import write_output
from pipeline.suite.schedule import Failures, Group, at_a_time, audit_all, make_cells
from pipeline.suite.search import Search
from pipeline.suite.settings import SuiteSettings
from pipeline.suite.table import rows_of

log = logging.getLogger(__name__)

Sampling = tuple[tuple[str, Any], ...]


@dataclass(frozen=True)
class Features:
    """A sample's molecules encoded.

    Attributes
    ----------
    encoded : the molecules that have features, with roles.
    device : "cpu" or "cuda".
    """

    encoded: EncodedViews
    device: str

    @property
    def tests(self) -> pa.Table:
        """The test molecules."""
        molecules = self.encoded.molecules
        return molecules.filter(pc.is_in(molecules["role"], pa.array(["id_test", "ood_test"])))


class Suite:
    """A suite whose data are read: samples, features and cells, each made once.

    Attributes
    ----------
    failed : why cells failed, by key.
    """

    def __init__(
        self, settings: SuiteSettings, data: Mapping[str, DataSet], encoders: Sequence[Encoder]
    ):
        self.settings, self.data = settings, dict(data)
        self.encoders = {encoder.name: encoder for encoder in encoders}
        self.output_dir = training_settings(settings).output_dir
        self.failed: Failures = {}
        self._samples: dict[tuple[str, Sampling], Sample] = {}
        self._features: dict[tuple[str, Sampling, str], Features] = {}

    def sample(self, data: str, sampling: Sampling = ()) -> Sample:
        """The molecules of a data set with roles."""
        key = data, sampling
        if key not in self._samples:
            try:
                self._samples[key] = self.data[data].sample(dict(sampling))
            except InputError as error:
                raise InputError(f"--data {data}: {error}") from None
        return self._samples[key]

    def features(self, data: str, sampling: Sampling, encoder: str) -> Features:
        """The same encoded; what the store lacks is encoded now."""
        key = data, sampling, encoder
        if key not in self._features:
            each = self.data[data]
            settings = self.encoders[encoder].settings(each.settings)
            plans = plan_views(settings, settings.view_names)
            _, device = decided(settings, plans)
            encoded = encode_views(self.sample(data, sampling).molecules, each.source, plans)
            write_rejected(encoded.rejected, f"{self.output_dir}/rejected/{data}/{encoder}")
            self._features[key] = Features(encoded, device)
        return self._features[key]

    def tested_on(self, data: str) -> list[str]:
        """The data sets that what is trained on one is tested on: its own first."""
        others = [name for name in self.data if name != data] if self.settings.cross else []
        return [data, *others]

    def cells_of(self, training: Training) -> list[Cell]:
        """The cells of a training, one for each data set that it is tested on."""
        features = self.features(training.data, training.sample, training.encoder)
        molecules = self.sample(training.data, training.sample).digest
        identity = features.encoded.result.identity
        cells = []
        for name in self.tested_on(training.data):
            sampling = training.sample if name == training.data else ()
            tests = self.sample(name, sampling).tests_digest
            cells.append(Cell(cell_key(training, identity, molecules, tests), training, name))
        return cells

    def group(self, cells: Sequence[Sequence[Cell]]) -> Group:
        """Cells of trainings on the same features."""
        training = cells[0][0].training
        data, sampling, encoder = training.data, training.sample, training.encoder
        features = self.features(data, sampling, encoder)
        others = {}
        for name in dict.fromkeys(cell.test_data for each in cells for cell in each):
            tested = self.features(name, sampling if name == data else (), encoder)
            others[name] = tested.tests, tested.encoded
        return Group(
            features.encoded.molecules, features.encoded, others, training.settings,
            features.device, cells,
        )  # fmt: skip


def run_suite(settings: SuiteSettings) -> dict[str, Any]:
    """Train and test a grid; cells that an earlier, killed run has finished are taken over.

    A cell that fails is reported, and the others still count.

    Returns
    -------
    dict
        The content of summary.json, written beside cells.parquet, cells.csv, suite.json and the
        folder `tables`.

    Raises
    ------
    InputError
        If the input is wrong, or no cell finishes.
    """
    started = time.monotonic()
    suite, detectors = _opened(settings)
    trainings = _trainings(suite, detectors)
    for training in trainings:  # faults of data are told before anything is encoded
        suite.sample(training.data, training.sample)
    cells = [suite.cells_of(training) for training in trainings]
    make = _missing(suite, cells)
    suite.failed |= make_cells(
        [suite.group(each) for each in make], suite.output_dir, at_a_time(settings)
    )
    every = [cell for each in cells for cell in each]
    if all(cell.key in suite.failed for cell in every):
        raise InputError(f"no cell finished; the first failed so: {suite.failed[every[0].key]}")
    audits = _audits(suite, every)
    rows = rows_of(suite.output_dir, every, suite.failed, audits)
    remove(f"{suite.output_dir}/.ray_train")  # of runs that were killed: all is made
    summary = write_output(settings, suite.output_dir, rows, detectors)
    summary["total_seconds"] = time.monotonic() - started
    write_atomically(f"{suite.output_dir}/summary.json", json_bytes(summary))
    return summary


def _opened(settings: SuiteSettings) -> tuple[Suite, list[str]]:
    """The data sets, read once all settings were looked at; and the detectors."""
    settings.check()
    encoders, detectors = encoders_asked(settings), detectors_asked(settings)
    check_sweep(settings, detectors)
    found = located(settings)
    first = next(iter(found.values()))[0]
    for encoder in encoders:
        each = encoder.settings(first)
        check_encoders(each, each.view_names)
    output_dir = training_settings(settings).output_dir
    write_atomically(f"{output_dir}/suite.json", json_bytes(asdict(settings)))
    start_ray()
    return Suite(settings, read_data(found), encoders), detectors


def _trainings(suite: Suite, detectors: Sequence[str]) -> list[Training]:
    """All trainings of the grid; of a search, those of what it has found."""
    settings, made = suite.settings, []
    for data, encoder in product(suite.data.values(), suite.encoders.values()):
        several = {name: variants_of(name, settings.sweep) for name in detectors}
        if settings.search is not None:
            several = _found(suite, data, encoder, detectors)
        for detector, variants in several.items():
            made += trainings_of(
                data.name, encoder, detector, variants, data.settings, settings.seeds,
                are_found=settings.search is not None,
            )  # fmt: skip
    return made


def _found(
    suite: Suite, data: DataSet, encoder: Encoder, detectors: Sequence[str]
) -> dict[str, list[Variant]]:
    """By detector the settings that --search finds, if --sweep has any that concern it."""
    settings = suite.settings
    plain = {
        name: trainings_of(data.name, encoder, name, [{}], data.settings, settings.seeds[:1])[0]
        for name in detectors
    }
    group = suite.group([suite.cells_of(plain[detectors[0]])])
    search = Search(group, suite.sample(data.name).digest, settings, suite.output_dir)
    found = {}
    for name, training in plain.items():
        sweep = {key: values for key, values in settings.sweep.items() if concerns(key, name)}
        found[name] = [search.best(training, sweep) if sweep else {}]
    return found


def _missing(suite: Suite, cells: Sequence[Sequence[Cell]]) -> list[list[list[Cell]]]:
    """The cells that are to be made, by group and training."""
    anew = suite.settings.force_recompute_cache
    there = set() if anew else finished_cells(suite.output_dir)
    groups: dict[Any, list[list[Cell]]] = {}
    count = 0
    for each in cells:
        left = [cell for cell in each if cell.key not in there]
        count += len(each) - len(left)
        if left:
            training = left[0].training
            key = training.data, training.sample, training.encoder
            groups.setdefault(key, []).append(left)
    if count:
        log.info("%s of %s cells were finished before", f"{count:,}", f"{sum(map(len, cells)):,}")
    return list(groups.values())


def _audits(suite: Suite, cells: Sequence[Cell]) -> dict[str, dict[str, Any]]:
    """By key of a cell, the audit of its test set."""
    uris, todo, found = {}, {}, {}
    for cell in cells:
        training = cell.training
        own = suite.sample(training.data, training.sample)
        tests = suite.sample(cell.test_data, training.sample if cell.test_data == own.data else ())
        uri = audit_file(suite.output_dir, own.digest, tests.tests_digest)
        uris[cell.key] = uri
        if uri in found:
            continue
        found[uri] = read_audit(uri)
        if found[uri] is None:
            todo.setdefault(own.digest, (own, {}))[1][uri] = tests.tests
    seed = suite.settings.data_seed
    if todo:
        log.info("audit: the best descriptor and Tanimoto, on %s test sets",
                 sum(len(tests) for _, tests in todo.values()))  # fmt: skip
    found |= audit_all([(own.molecules, tests, seed) for own, tests in todo.values()])
    return {key: found[uri] for key, uri in uris.items()}
