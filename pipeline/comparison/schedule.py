"""Making the runs of a comparison: in turn, or several at a time on a cluster."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Sequence
from typing import Any

import fsspec
import ray

from pipeline.comparison.run_folders import FROZEN
from pipeline.evaluation.run import train_and_evaluate, train_and_evaluate_together
from pipeline.runtime import telemetry
from pipeline.runtime.errors import reason_of
from pipeline.runtime.files import json_bytes, remove, starting_over, write_atomically
from pipeline.runtime.nodes.cluster import MAX_RESOURCES
from pipeline.training.run import can_share_a_training
from pipeline.training.settings import TrainSettings

log = logging.getLogger(__name__)

Key = tuple[str, int]  # arm and seed
Runs = dict[Key, TrainSettings]
Failures = dict[Key, str]
Job = list[tuple[TrainSettings, str]]  # settings and identities of runs that are made at once
Jobs = dict[tuple[Key, ...], Job]
FINISHED = "finished.json"  # in a run's folder: what it was a run of


def make_runs(
    runs: Runs, identities: dict[Key, str], parallel: int, anew: bool, device: str
) -> Failures:
    """Make every run that is not there yet, or all anew; the reasons of those that failed.

    Parameters
    ----------
    identities : of each run, what decides its outcome.
    parallel : runs at a time; the frozen ones of all seeds are one where they train together.
    device : "cpu" or "cuda".
    """
    todo = [key for key in runs if anew or not _is_finished(runs[key], identities[key])]
    if len(todo) < len(runs):
        log.info("%s of %s runs were finished before", len(runs) - len(todo), len(runs))
    jobs = {
        keys: [(runs[key], identities[key]) for key in keys] for keys in _jobs(todo, runs, device)
    }
    outcomes = _in_turn(jobs) if parallel == 1 else _in_parallel(jobs, parallel)
    failed, count = {}, 0
    for keys, reasons in outcomes:
        for (arm, seed), reason in zip(keys, reasons):
            count += 1
            told = "finished" if reason is None else f"failed: {reason}"
            log.info("run %s of %s, %s with seed %s, %s", count, len(todo), arm, seed, told)
            if reason is not None:
                failed[arm, seed] = reason
    return failed


def _jobs(todo: Sequence[Key], runs: Runs, device: str) -> list[tuple[Key, ...]]:
    """Runs that are made at once: the frozen ones' heads train together if they can."""
    frozen = tuple(key for key in todo if key[0] == FROZEN)
    if len(frozen) < 2 or not can_share_a_training([runs[key] for key in frozen], device):
        return [(key,) for key in todo]
    return [frozen, *((key,) for key in todo if key not in frozen)]


def _in_turn(todo: Jobs) -> Iterator[tuple[tuple[Key, ...], list[str | None]]]:
    for keys, job in todo.items():
        yield keys, _run(job)


def _in_parallel(todo: Jobs, parallel: int) -> Iterator[tuple[tuple[Key, ...], list[str | None]]]:
    """Each job in a process of its own, which starts its training workers in turn."""
    most = os.environ.get(MAX_RESOURCES, "")  # the head alone has it; empty says nothing
    environment = {"env_vars": {MAX_RESOURCES: most}}
    remote = ray.remote(num_cpus=0, max_retries=0, runtime_env=environment)(_run_apart)
    waiting, running = list(todo.items()), {}
    while waiting or running:
        while waiting and len(running) < parallel:
            keys, job = waiting.pop(0)
            running[remote.remote(job, 1 / parallel)] = keys
        [ready], _ = ray.wait(list(running), num_returns=1)
        keys = running.pop(ready)
        try:
            yield keys, ray.get(ready)
        except ray.exceptions.RayError as error:  # its process died
            yield keys, [reason_of(error)] * len(keys)


def _run_apart(job: Job, share: float) -> list[str | None]:
    telemetry.configure_logging()
    return _run(job, share)


def _run(job: Job, share: float = 1.0) -> list[str | None]:
    """Train and evaluate; of each run why it failed, if it did."""
    try:
        for settings, _ in job:
            # It stands for results that are about to be replaced.
            remove(f"{settings.output_dir}/{FINISHED}")
        made = starting_over(_make, job, share)
    except Exception as error:  # whatever it is, the other runs shall go on
        log.debug("run failed", exc_info=True)
        return [reason_of(error)] * len(job)
    for results in made:
        if isinstance(results, Exception):
            log.debug("run failed", exc_info=results)
    return [reason_of(each) if isinstance(each, Exception) else None for each in made]


def _make(job: Job, share: float) -> list[dict[str, Any] | Exception | None]:
    """Results of each run, or why it failed; None of one that was finished before a new start."""
    identities = {settings.output_dir: identity for settings, identity in job}
    left = [settings for settings, identity in job if not _is_finished(settings, identity)]

    def finished(settings: TrainSettings) -> None:
        content = json_bytes({"identity": identities[settings.output_dir]})
        write_atomically(f"{settings.output_dir}/{FINISHED}", content)

    if len(left) > 1:
        made = train_and_evaluate_together(left, share, finished)
    else:
        made = [train_and_evaluate(settings, share) for settings in left]
        for settings in left:
            finished(settings)
    found = {settings.output_dir: results for settings, results in zip(left, made)}
    return [found.get(settings.output_dir) for settings, _ in job]


def _is_finished(run: TrainSettings, identity: str) -> bool:
    fs, path = fsspec.url_to_fs(f"{run.output_dir}/{FINISHED}")
    return fs.exists(path) and json.loads(fs.cat_file(path)) == {"identity": identity}
