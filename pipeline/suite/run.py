"""What jobs.suite calls: the grid is laid out, what is missing is made, and all is summed up."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import product
from typing import Any, NamedTuple

import pyarrow as pa

from pipeline.encoding.kinds import kind_of_views
from pipeline.encoding.views import check_encoders
from pipeline.molecules.kinds import Kind
from pipeline.runtime.errors import InputError, reason_of
from pipeline.runtime.files import json_bytes, read_json, remove, result_or_error, write_atomically
from pipeline.runtime.nodes.cluster import start_ray
from pipeline.suite.cells import Cell, finished_cells, remove_cells
from pipeline.suite.data.data_sets import DataSet, located, read_data, training_settings
from pipeline.suite.grid import (
    Encoder,
    Training,
    detectors_asked,
    encoders_asked,
    samplings_asked,
    trainings_of,
)
from pipeline.suite.opened import Suite
from pipeline.suite.results.compared import check_reference
from pipeline.suite.results.output import write_output
from pipeline.suite.results.table import rows_of
from pipeline.suite.running.audits import audit_file
from pipeline.suite.running.schedule import Audits, at_a_time, make_cells
from pipeline.suite.running.search import Search, failed_trials
from pipeline.suite.settings import SuiteSettings
from pipeline.suite.sweep import check_sweep, concerns, variants_of

log = logging.getLogger(__name__)

Trials = list[dict[str, Any]]


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
    DamagedFile
        If the store is damaged; what was damaged is set aside, and a new start makes it anew.
    """
    started = time.monotonic()
    suite, detectors = _opened(settings)
    suite.draw(samplings_asked(settings, detectors))
    trainings, failed = _trainings(suite, detectors)
    cells = [suite.cells_of(training) for training in trainings]
    make = _missing(suite, cells)
    every = [cell for each in cells for cell in each]
    tests = _audits(suite, every)
    with Audits(tests.todo) as beside:
        suite.failed |= make_cells(
            [suite.group(each[0][0].training, each) for each in make],
            suite.output_dir, at_a_time(settings), beside.start,
        )  # fmt: skip
        if all(cell.key in suite.failed for cell in every):
            raise InputError(f"no cell finished; the first failed so: {suite.failed[every[0].key]}")
        audits, no_audit = tests.told(*beside.results())
    rows = rows_of(suite.output_dir, every, suite.failed, audits)
    remove(f"{suite.output_dir}/.ray_train")  # of runs that were killed: all is made
    more = {"failed_trials": failed, "failed_audits": no_audit}
    summary = write_output(settings, suite.output_dir, rows, detectors, more)
    summary["total_seconds"] = time.monotonic() - started
    write_atomically(f"{suite.output_dir}/summary.json", json_bytes(summary))
    return summary


def _opened(settings: SuiteSettings) -> tuple[Suite, list[str]]:
    """The data sets, read once all settings were looked at; and the detectors."""
    settings.check()
    encoders, detectors = encoders_asked(settings), detectors_asked(settings)
    check_sweep(settings, detectors)
    check_reference(settings, encoders, detectors)
    found = located(settings)
    first = next(iter(found.values()))[0]
    for encoder in encoders:
        each = encoder.settings(first)
        check_encoders(each, each.view_names)
    output_dir = training_settings(settings).output_dir
    write_atomically(f"{output_dir}/suite.json", json_bytes(asdict(settings)))
    start_ray()
    return Suite(settings, read_data(found), encoders), detectors


def _trainings(suite: Suite, detectors: Sequence[str]) -> tuple[list[Training], Trials]:
    """All trainings of the grid; or of a search those of what it has found, and failed trials."""
    settings, made, failed = suite.settings, [], []
    for data, encoder in product(suite.data.values(), suite.encoders.values()):
        if settings.search is not None:
            trainings, trials = _searched(suite, data, encoder, detectors)
            made, failed = made + trainings, failed + trials
            continue
        for detector in detectors:
            variants = variants_of(detector, settings.sweep)
            made += trainings_of(
                data.name, encoder, detector, variants, data.settings, settings.seeds
            )
    return made, failed


def _searched(
    suite: Suite, data: DataSet, encoder: Encoder, detectors: Sequence[str]
) -> tuple[list[Training], Trials]:
    """Trainings with the settings that --search finds, if --sweep has any that concern them."""
    settings, made, failed = suite.settings, [], []
    search: Search | None = None
    features = result_or_error(suite.features, data.name, (), encoder.name)
    for name in detectors:
        sweep = {key: values for key, values in settings.sweep.items() if concerns(key, name)}
        [plain] = trainings_of(data.name, encoder, name, [{}], data.settings, settings.seeds[:1])
        variant, fault = {}, None
        if sweep and isinstance(features, Exception):
            fault = reason_of(features)
        elif sweep:
            if search is None:
                search = Search(suite.group(plain), features.digest, settings, suite.output_dir)
            found = search.best(plain, sweep)
            trials = failed_trials(found)
            failed += trials
            variant = found["best"] or {}
            if not variant:
                fault = f"all {len(trials)} trials of the search failed: {trials[0]['reason']}"
        made += trainings_of(
            data.name, encoder, name, [variant], data.settings, settings.seeds,
            are_found=bool(sweep), fault=fault,
        )  # fmt: skip
    return made, failed


def _missing(suite: Suite, cells: Sequence[Sequence[Cell]]) -> list[list[list[Cell]]]:
    """The cells that are to be made, by group and training."""
    if suite.settings.force_recompute_cache:
        remove_cells(suite.output_dir, (cell.key for each in cells for cell in each))
    there = finished_cells(suite.output_dir)
    groups: dict[Any, list[list[Cell]]] = {}
    count = 0
    for each in cells:
        count += sum(cell.key in there for cell in each)
        left = [cell for cell in each if cell.key not in there and cell.key not in suite.failed]
        if left:
            training = left[0].training
            key = training.data, training.sample, training.encoder
            groups.setdefault(key, []).append(left)
    if count:
        log.info("%s of %s cells were finished before", f"{count:,}", f"{sum(map(len, cells)):,}")
    return list(groups.values())


class Audited(NamedTuple):
    """What is known of test sets before their audits, each of which is a file.

    Attributes
    ----------
    uris : by key of a cell its audit.
    found : by audit what an earlier run found; None where it is to be made.
    labels : by audit its data sets.
    todo : what is to be made, as `make_audits` takes it.
    """

    uris: dict[str, str]
    found: dict[str, dict[str, Any] | None]
    labels: dict[str, dict[str, str]]
    todo: list[tuple[pa.Table, dict[str, pa.Table], int, Kind]]

    def told(
        self, made: Mapping[str, Any], reasons: Mapping[str, str]
    ) -> tuple[dict[str, dict[str, Any]], Trials]:
        """By key of a cell, the audit of its test set; and the test sets whose audits failed.

        Parameters
        ----------
        made, reasons : by audit, what came of those that were to be made.
        """
        failed = [{**self.labels[uri], "reason": reason} for uri, reason in reasons.items()]
        for each in failed:
            log.warning("no audit of %(data)s tested on %(test_data)s: %(reason)s", each)
        there = {key: made.get(uri) or self.found.get(uri) for key, uri in self.uris.items()}
        return {key: audit or {} for key, audit in there.items()}, failed


def _audits(suite: Suite, cells: Sequence[Cell]) -> Audited:
    """The audits of cells' test sets."""
    uris, todo, found, labels = {}, {}, {}, {}
    for cell in cells:
        training = cell.training
        own = suite.sample(training.data, training.sample)
        tests = suite.sample(cell.test_data, training.sample if cell.test_data == own.data else ())
        uri = audit_file(suite.output_dir, own.digest, tests.tests_digest)
        uris[cell.key] = uri
        if own.fault or uri in found:
            continue
        labels[uri] = {"data": own.data, "test_data": tests.data}
        found[uri] = read_json(uri)
        if found[uri] is None:
            kind = kind_of_views(training.settings.view_names)
            todo.setdefault(own.digest, (own, kind, {}))[-1][uri] = tests.tests
    if todo:
        log.info("audit: the best descriptor and Tanimoto, on %s test sets, beside the cells",
                 sum(len(tests) for *_, tests in todo.values()))  # fmt: skip
    seed = suite.settings.data_seed
    waiting = [(own.molecules, tests, seed, kind) for own, kind, tests in todo.values()]
    return Audited(uris, found, labels, waiting)
