"""Making the runs of a comparison: in turn, or several at a time on a cluster."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator

import fsspec
import ray

from pipeline.evaluation.run import train_and_evaluate
from pipeline.runtime import telemetry
from pipeline.runtime.cluster import MAX_RESOURCES
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import json_bytes, remove, starting_over, write_atomically
from pipeline.training.settings import TrainSettings

log = logging.getLogger(__name__)

Key = tuple[str, int]  # arm and seed
Runs = dict[Key, TrainSettings]
Failures = dict[Key, str]
FINISHED = "finished.json"  # in a run's folder: what it was a run of


def make_runs(runs: Runs, identities: dict[Key, str], parallel: int, anew: bool) -> Failures:
    """Make every run that is not there yet, or all anew; the reasons of those that failed.

    Parameters
    ----------
    identities : of each run, what decides its outcome.
    parallel : runs at a time.
    """
    todo = {
        key: (run, identities[key])
        for key, run in runs.items()
        if anew or not _is_finished(run, identities[key])
    }
    if len(todo) < len(runs):
        log.info("%s of %s runs were finished before", len(runs) - len(todo), len(runs))
    outcomes = _in_turn(todo) if parallel == 1 else _in_parallel(todo, parallel)
    failed, count = {}, 0
    for (arm, seed), reason in outcomes:
        count += 1
        told = "finished" if reason is None else f"failed: {reason}"
        log.info("run %s of %s, %s with seed %s, %s", count, len(todo), arm, seed, told)
        if reason is not None:
            failed[arm, seed] = reason
    return failed


def _in_turn(todo: dict) -> Iterator[tuple[Key, str | None]]:
    for key, job in todo.items():
        yield key, _run(*job)


def _in_parallel(todo: dict, parallel: int) -> Iterator[tuple[Key, str | None]]:
    """Each run in a process of its own, which starts its training workers in turn."""
    most = os.environ.get(MAX_RESOURCES, "")  # the head alone has it; empty says nothing
    environment = {"env_vars": {MAX_RESOURCES: most}}
    remote = ray.remote(num_cpus=0, max_retries=0, runtime_env=environment)(_run_apart)
    waiting, running = list(todo.items()), {}
    while waiting or running:
        while waiting and len(running) < parallel:
            key, job = waiting.pop(0)
            running[remote.remote(*job, 1 / parallel)] = key
        [ready], _ = ray.wait(list(running), num_returns=1)
        key = running.pop(ready)
        try:
            yield key, ray.get(ready)
        except ray.exceptions.RayError as error:  # its process died
            yield key, _reason(error)


def _run_apart(settings: TrainSettings, identity: str, share: float) -> str | None:
    telemetry.configure_logging()
    return _run(settings, identity, share)


def _run(settings: TrainSettings, identity: str, share: float = 1.0) -> str | None:
    """Train and evaluate; why it failed, if it did."""
    try:
        # It stands for results that are about to be replaced.
        remove(f"{settings.output_dir}/{FINISHED}")
        starting_over(train_and_evaluate, settings, share)
    except Exception as error:  # whatever it is, the other runs shall go on
        log.debug("run failed", exc_info=True)
        return _reason(error)
    content = json_bytes({"identity": identity})
    write_atomically(f"{settings.output_dir}/{FINISHED}", content)
    return None


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = lines[-1] if lines else "no reason given"  # of a remote traceback the last line says it
    return told if isinstance(error, InputError) else f"{type(error).__name__}: {told}"


def _is_finished(run: TrainSettings, identity: str) -> bool:
    fs, path = fsspec.url_to_fs(f"{run.output_dir}/{FINISHED}")
    return fs.exists(path) and json.loads(fs.cat_file(path)) == {"identity": identity}
