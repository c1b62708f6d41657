"""A search by Ray Tune in place of a grid: the settings with the best validation AUROC.

Test molecules are never looked at: what is found is then trained with every seed and tested, as a
grid's cells are.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from typing import Any

import ray

from pipeline.runtime import telemetry
from pipeline.runtime.errors import DamagedFile, reason_of
from pipeline.runtime.files import json_bytes, read_json, remove, write_atomically
from pipeline.runtime.telemetry import Progress
from pipeline.runtime.train.ray_train import run_name
from pipeline.suite.cells import NOT_DECISIVE
from pipeline.suite.grid import Training
from pipeline.suite.running.group import Shared, fitted
from pipeline.suite.running.schedule import Group, Tasks, at_a_time
from pipeline.suite.settings import SuiteSettings, kinds_of
from pipeline.suite.sweep import variant_text
from pipeline.training.settings import TrainSettings

log = logging.getLogger(__name__)

FOLDER, UNFINISHED, METRIC = "searches", ".searches", "val_auroc"
OF_A_TRIAL = 0.01  # cores: its training is a task, which has one
ONE_THREAD = 1e-9  # share of the cluster's cores
DAMAGED = "damaged"  # a trial's store
LOGS_OF_TUNE = ("ray.tune.execution.tune_controller", "ray.tune.tune")
OF_FAILURES = ("Trial task failed", "Trials did not complete")


class Search:
    """Searches among the trainings of one group.

    Parameters
    ----------
    group : of the data set and encoder.
    molecules : digest of its molecules, those with features.
    """

    def __init__(self, group: Group, molecules: str, settings: SuiteSettings, output_dir: str):
        self.group, self.molecules, self.settings = group, molecules, settings
        self.output_dir, self.parallel = output_dir, at_a_time(settings)

    @cached_property
    def shared(self) -> ray.ObjectRef:
        """What its trainings share."""
        return Tasks(self.parallel).shared(self.group)

    def best(self, training: Training, sweep: Mapping[str, Any]) -> dict[str, Any]:
        """The best of --search draws for a training, by validation AUROC with its seed.

        What was found is kept as `searches/KEY.json` once no trial has failed; the same search
        again makes the trials that are missing, since it was killed, or that have failed.

        Parameters
        ----------
        training : with the settings that are not searched.
        sweep : the settings that concern it: values to choose from, or bounds.

        Returns
        -------
        dict
            `best`, the settings found, None where every trial failed; their `val_auroc`; `trials`,
            each with its `settings`, `val_auroc` (None if it failed) and `reason`.

        Raises
        ------
        DamagedFile
            If a trial met one.
        """
        identity, settings = self.group.encoded.result.identity, self.settings
        decides = (sweep, settings.search, settings.data_seed, training.settings.view_names)
        key = run_name(training.settings, NOT_DECISIVE, *decides, identity, self.molecules)
        uri = f"{self.output_dir}/{FOLDER}/{key}.json"
        found = read_json(uri)
        if found is None:
            found = self._search(training, sweep, key)
            if not failed_trials(found):
                write_atomically(uri, json_bytes(found))
                remove(f"{self.output_dir}/{UNFINISHED}/{key}")
        _tell(training, found)
        return found

    def _search(self, training: Training, sweep: Mapping[str, Any], key: str) -> dict[str, Any]:
        from ray import tune  # slow to import, and only a search needs it
        from ray.tune.search.basic_variant import BasicVariantGenerator

        # Tune would answer Ctrl-C by returning the trials that it has, as if these were all.
        os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")
        os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # its panels, which no setting turns off
        given = {
            "settings": training.settings, "shared": [self.shared], "output_dir": self.output_dir,
            "tasks": Tasks(self.parallel),
        }  # fmt: skip
        trial = tune.with_resources(tune.with_parameters(_trial, **given), {"cpu": OF_A_TRIAL})
        storage = f"{self.output_dir}/{UNFINISHED}"
        if tune.Tuner.can_restore(f"{storage}/{key}"):
            tuner = tune.Tuner.restore(f"{storage}/{key}", trainable=trial, restart_errored=True)
        else:
            draws = BasicVariantGenerator(
                max_concurrent=self.parallel, random_state=self.settings.data_seed
            )
            told = _progress(tune, f"search of {_where(training)}", self.settings.search)
            tuner = tune.Tuner(
                trial,
                param_space={name: _space(tune, name, values) for name, values in sweep.items()},
                tune_config=tune.TuneConfig(
                    metric=METRIC, mode="max", num_samples=self.settings.search, search_alg=draws
                ),
                run_config=tune.RunConfig(
                    name=key, storage_path=storage, verbose=0, callbacks=[told]
                ),
            )
        with _failures_told_once():
            trials = [_told(result) for result in tuner.fit()]
        good = [each for each in trials if each[METRIC] is not None]
        best = max(good, key=lambda each: each[METRIC], default=None)
        return {
            **{name: getattr(training, name) for name in ("data", "encoder", "detector", "seed")},
            "best": best and best["settings"],
            METRIC: best and best[METRIC],
            "trials": trials,
        }


def failed_trials(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The trials of a search that failed, with the search's data set, encoder and detector."""
    labels = {name: found[name] for name in ("data", "encoder", "detector")}
    return [
        {**labels, "settings": trial["settings"], "reason": trial["reason"]}
        for trial in found["trials"] if trial[METRIC] is None
    ]  # fmt: skip


def _where(training: Training) -> str:
    return f"{training.detector} on {training.encoder} of {training.data}"


def _tell(training: Training, found: Mapping[str, Any]) -> None:
    failed, count = failed_trials(found), len(found["trials"])
    if failed:
        log.warning("%s: %s of %s trials failed, the first: %s; the same command tries them again",
                    _where(training), len(failed), count, failed[0]["reason"])  # fmt: skip
    if found["best"] is not None:
        log.info("%s: best of %s trials by validation AUROC (%.4f): %s", _where(training), count,
                 found[METRIC], variant_text(found["best"]))  # fmt: skip


def _progress(tune: Any, what: str, total: int) -> Any:
    """What counts the trials of a search, as Ray Tune calls it."""

    class Told(tune.Callback):
        def setup(self, **_: Any) -> None:  # also where a killed search goes on
            self.progress = Progress(what, total, unit="trials")

        def _tell(self, trials: Any) -> None:
            done = sum(trial.status in ("TERMINATED", "ERROR") for trial in trials)
            self.progress.advance(done - self.progress.done)

        def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
            self._tell(trials)

        def on_trial_error(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
            self._tell(trials)

    return Told()


@contextmanager
def _failures_told_once() -> Iterator[None]:
    """Ray Tune logs failed trials with their tracebacks; the suite tells the reasons itself."""

    def is_other(record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith(OF_FAILURES)

    loggers = [logging.getLogger(name) for name in LOGS_OF_TUNE]
    for logger in loggers:
        logger.addFilter(is_other)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(is_other)


def _space(tune: Any, name: str, values: Any) -> Any:
    """What Ray Tune draws a setting from: its values, or evenly on a logarithmic scale."""
    if isinstance(values, list):
        return tune.choice(values)
    least, most = values["least"], values["most"]
    kinds, _ = kinds_of(name)
    if float not in kinds:
        return tune.lograndint(least, most + 1)
    return tune.loguniform(least, most)


def _trial(
    drawn: dict[str, Any],
    settings: TrainSettings,
    shared: list[ray.ObjectRef],
    output_dir: str,
    tasks: Tasks,
) -> None:
    """Train with drawn settings, and report the validation AUROC or why there is none."""
    from ray import tune

    # In a task: Ray Train, which trains heads, refuses to run in a process of Ray Tune's.
    tried = replace(settings, **drawn)
    found = ray.get(tasks.other(_validated, tried).remote(shared[0], tried, output_dir))
    tune.report(found)
    if found["reason"]:
        raise RuntimeError(found["reason"])  # so that Ray Tune makes it again when it goes on


def _validated(shared: Shared, settings: TrainSettings, output_dir: str) -> dict[str, Any]:
    telemetry.configure_logging()
    try:
        [(_, made)] = fitted(shared, [settings], output_dir, ONE_THREAD)
    except DamagedFile as error:
        return {METRIC: float("nan"), "reason": reason_of(error), DAMAGED: True}
    if isinstance(made, Exception):
        return {METRIC: float("nan"), "reason": reason_of(made)}
    for folder in made.trained.leftovers:
        remove(folder)
    area = made.trained.best_val_auroc
    return {METRIC: area, "reason": "" if area == area else "its validation AUROC is no number"}


def _told(result: Any) -> dict[str, Any]:
    """A trial as it is kept."""
    metrics = result.metrics or {}
    value, reason = metrics.get(METRIC), metrics.get("reason", "")
    if metrics.get(DAMAGED):
        raise DamagedFile(reason)
    if result.error is not None and not reason:  # its process died
        reason = reason_of(result.error)
    if value is None and not reason:
        reason = "it reported nothing"
    return {"settings": result.config, METRIC: None if reason else value, "reason": reason}
