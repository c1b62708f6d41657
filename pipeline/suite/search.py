"""A search by Ray Tune in place of a grid: the settings with the best validation AUROC.

Test molecules are never looked at: what is found is then trained with every seed and tested, as a
grid's cells are.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any

import fsspec
import ray

from pipeline.runtime import telemetry
from pipeline.runtime.errors import reason_of
from pipeline.runtime.files import json_bytes, remove, write_atomically
from pipeline.runtime.ray_train import run_name
from pipeline.suite.cells import NOT_DECISIVE
from pipeline.suite.grid import Training, Variant, variant_text
from pipeline.suite.group import Shared, fitted
from pipeline.suite.schedule import Group, Tasks, at_a_time
from pipeline.suite.settings import SuiteSettings
from pipeline.training.settings import TrainSettings

log = logging.getLogger(__name__)

FOLDER, UNFINISHED, METRIC = "searches", ".searches", "val_auroc"
OF_A_TRIAL = 0.01  # cores: its training is a task, which has one
ONE_THREAD = 1e-9  # share of the cluster's cores


class Search:
    """Searches among the trainings of one group.

    Parameters
    ----------
    group : of the data set and encoder.
    molecules : digest of its molecules.
    """

    def __init__(self, group: Group, molecules: str, settings: SuiteSettings, output_dir: str):
        self.group, self.molecules, self.settings = group, molecules, settings
        self.output_dir, self.parallel = output_dir, at_a_time(settings)

    @cached_property
    def shared(self) -> ray.ObjectRef:
        """What its trainings share."""
        return Tasks(self.parallel).shared(self.group)

    def best(self, training: Training, sweep: Mapping[str, Any]) -> Variant:
        """The best of --search draws for a training, by validation AUROC with its seed.

        What was found is kept as `searches/KEY.json`; a search that was killed goes on with the
        trials that are missing.

        Parameters
        ----------
        training : with the settings that are not searched.
        sweep : the settings that concern it: values to choose from, or bounds.

        Returns
        -------
        dict
            The settings found; none where every trial failed, and that is said.
        """
        identity, settings = self.group.encoded.result.identity, self.settings
        decides = (sweep, settings.search, settings.data_seed, training.settings.view_names)
        key = run_name(training.settings, NOT_DECISIVE, *decides, identity, self.molecules)
        uri = f"{self.output_dir}/{FOLDER}/{key}.json"
        fs, path = fsspec.url_to_fs(uri)
        if not fs.exists(path):
            write_atomically(uri, json_bytes(self._search(training, sweep, key)))
            remove(f"{self.output_dir}/{UNFINISHED}/{key}")
        found = json.loads(fs.cat_file(path))
        _tell(training, found)
        return found["best"] or {}

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
            tuner = tune.Tuner.restore(f"{storage}/{key}", trainable=trial)
        else:
            draws = BasicVariantGenerator(
                max_concurrent=self.parallel, random_state=self.settings.data_seed
            )
            tuner = tune.Tuner(
                trial,
                param_space={name: _space(tune, name, values) for name, values in sweep.items()},
                tune_config=tune.TuneConfig(
                    metric=METRIC, mode="max", num_samples=self.settings.search, search_alg=draws
                ),
                run_config=tune.RunConfig(name=key, storage_path=storage, verbose=0),
            )
        trials = [_told(result) for result in tuner.fit()]
        good = [each for each in trials if each[METRIC] is not None]
        best = max(good, key=lambda each: each[METRIC], default=None)
        return {
            **{name: getattr(training, name) for name in ("data", "encoder", "detector", "seed")},
            "best": best and best["settings"],
            METRIC: best and best[METRIC],
            "trials": trials,
        }


def _tell(training: Training, found: Mapping[str, Any]) -> None:
    where = f"{training.detector} on {training.encoder} of {training.data}"
    trials, best = found["trials"], found["best"]
    failed = [trial for trial in trials if trial[METRIC] is None]
    if failed:
        log.warning("%s: %s of %s trials failed, the first: %s", where, len(failed), len(trials),
                    failed[0]["reason"])  # fmt: skip
    if best is None:
        log.warning("%s: no trial went well; it is trained with the settings as they are", where)
        return
    log.info("%s: best of %s trials by validation AUROC (%.4f): %s", where, len(trials),
             found[METRIC], variant_text(best))  # fmt: skip


def _space(tune: Any, name: str, values: Any) -> Any:
    """What Ray Tune draws a setting from: its values, or evenly on a logarithmic scale."""
    if isinstance(values, list):
        return tune.choice(values)
    least, most = values["least"], values["most"]
    if isinstance(getattr(TrainSettings(), name), int):
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
    tune.report(ray.get(tasks.other(_validated, tried).remote(shared[0], tried, output_dir)))


def _validated(shared: Shared, settings: TrainSettings, output_dir: str) -> dict[str, Any]:
    telemetry.configure_logging()
    [(_, made)] = fitted(shared, [settings], output_dir, ONE_THREAD)
    if isinstance(made, Exception):
        return {METRIC: float("nan"), "reason": reason_of(made)}
    for folder in made.trained.leftovers:
        remove(folder)
    return {METRIC: made.trained.best_val_auroc, "reason": ""}


def _told(result: Any) -> dict[str, Any]:
    """A trial as it is kept."""
    metrics = result.metrics or {}
    value, reason = metrics.get(METRIC), metrics.get("reason", "")
    if result.error is not None:
        reason = reason_of(result.error)
    fine = value is not None and value == value and result.error is None
    return {"settings": result.config, METRIC: value if fine else None, "reason": reason}
