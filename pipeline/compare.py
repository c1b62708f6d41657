"""The comparison: one trunk and one set of features, a run of either kind for every seed."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray

from pipeline import telemetry
from pipeline.checkpoint import json_bytes
from pipeline.cluster import MAX_RESOURCES, cluster_cores, device_of, resources, settled
from pipeline.comparison import summarize
from pipeline.comparison_runs import ARMS, Run, align, read_run, run_folder
from pipeline.comparison_text import summary_text
from pipeline.config import (
    CompareSettings,
    EvaluateSettings,
    FinetuneSettings,
    TrainSettings,
)
from pipeline.encode import encode
from pipeline.errors import InputError
from pipeline.evaluation_run import run_evaluation
from pipeline.experiment import check_inputs, encode_molecules, run_training, write_rejected
from pipeline.figures import write_figures
from pipeline.files import absolute, remove, starting_over, write_atomically
from pipeline.finetune_run import (
    check_finetuning_flags,
    choose_trunk,
    prepare_finetuning,
)
from pipeline.ray_training import run_name
from pipeline.sources import read_molecules
from pipeline.splits import assign_roles
from pipeline.tables import Tables
from pipeline.training import NOT_IDENTITY, TRAINING_ROLES

log = logging.getLogger(__name__)

CORES_A_RUN = 4
FINISHED = "finished.json"  # in a run's folder: what it was a run of
Runs = dict[tuple[str, int], TrainSettings]
Failures = dict[tuple[str, int], str]


def run_comparison(settings: CompareSettings) -> dict[str, Any]:
    """Train and evaluate both kinds over all seeds; write summary and figures.

    Runs that an earlier, interrupted comparison finished are taken over. A run that fails is
    reported, and the others still count.

    Returns
    -------
    dict
        The content of comparison_summary.json, written beside comparison_summary.txt, the
        folder `figures` and a folder for every run.

    Raises
    ------
    InputError
        If the input is wrong, or no run finishes.
    """
    if not settings.seeds or len(set(settings.seeds)) != len(settings.seeds):
        raise InputError(f"--seeds {settings.seeds}: give at least one seed, and none twice")
    started = time.monotonic()
    check_inputs(settings)
    shared = _train_settings(settings)
    check_finetuning_flags(shared)
    runs = _runs(shared, settings.seeds)
    encoding, molecules = _encode_once(shared)
    parallel = settings.parallel_runs or _room_for_runs(settings)
    failed = _run_all(runs, parallel, settings.force_recompute_cache, molecules)
    done = _finished(runs, settings.output_dir, failed)
    cosines = _drift(done, runs, molecules)
    summary = {
        "encoder": done[0].stats["encoder"],
        "weights": next(run.stats["weights"] for run in done),
        "dataset": settings.dataset or settings.data_file,
        **summarize(
            done, failed, bootstrap_samples=settings.bootstrap_samples, seed=settings.data_seed
        ),
        "feature_cosine": {
            str(seed): {"mean": float(c.mean()), "least": float(c.min())}
            for seed, c in cosines.items()
        },
        "shared_encoding": encoding,
        "parallel_runs": parallel,
    }
    folder = settings.output_dir
    write_atomically(f"{folder}/comparison_summary.txt", summary_text(summary).encode())
    summary["figures"] = write_figures(f"{folder}/figures", done, cosines, done[0].is_ood)
    summary["total_seconds"] = time.monotonic() - started
    write_atomically(f"{folder}/comparison_summary.json", json_bytes(summary))
    return summary


def _runs(shared: TrainSettings, seeds: list[int]) -> Runs:
    """Every run's settings; a frozen one's do not depend on how the other kind is finetuned."""
    # What these two ask for is done once for all runs.
    shared = replace(shared, force_recompute_cache=False, retry_rejected=False)
    plain = {f.name: f.default for f in fields(FinetuneSettings)}
    plain["gradient_accumulation_steps"] = shared.gradient_accumulation_steps
    kinds = {"frozen": replace(shared, **plain), "finetuned": shared}
    return {
        (arm, seed): replace(
            kinds[arm], seed=seed, output_dir=run_folder(shared.output_dir, arm, seed)
        )
        for seed in seeds for arm in ARMS
    }  # fmt: skip


def _finished(runs: Runs, folder: str, failed: Failures) -> list[Run]:
    """The runs to compare; one that was tested on other molecules than the first has failed."""
    done: list[Run] = []
    for arm, seed in (key for key in runs if key not in failed):
        try:
            done = align([*done, read_run(folder, arm, seed)])
        except InputError as error:
            failed[arm, seed] = str(error)
    if not done:
        raise InputError(f"no run finished; the first failed so: {next(iter(failed.values()))}")
    return done


def _train_settings(settings: CompareSettings) -> TrainSettings:
    """What all runs have in common, the output folder and seed apart."""
    values = {f.name: getattr(settings, f.name) for f in fields(TrainSettings)}
    common = TrainSettings(**{**values, "finetune_encoder": True})
    return settled(
        replace(
            common,
            dataset=common.dataset or common.data_file,
            data_file=absolute(common.data_file),
            output_dir=absolute(common.output_dir),
            cache_root=absolute(common.cache_root),
        )
    )


def _encode_once(settings: TrainSettings) -> tuple[dict[str, float], pa.Table]:
    """Fill the store with all that the runs need: what that took, and the molecules."""
    finetuning = prepare_finetuning(settings)
    source = read_molecules(settings)
    sample = assign_roles(source.molecules, settings, settings.data_file)
    in_training = pc.is_in(sample["role"], pa.array(TRAINING_ROLES))
    training, tests = sample.filter(in_training), sample.filter(pc.invert(in_training))
    as_they_are = replace(settings, force_recompute_cache=False, retry_rejected=False)
    results = [
        encode_molecules(training, source, settings, choose_trunk(finetuning, training, settings)),
        encode_molecules(tests, source, settings),
        encode_molecules(sample, source, as_they_are),  # encodes nothing: all of them together
    ]
    write_rejected(results[-1].rejected, settings.output_dir)
    encoding = {
        "encoding_time_seconds": sum(r.result.seconds for r in results),
        "molecules": sum(r.result.encoded for r in results),
        "peak_gpu_memory_encoding_gb": max(r.result.peak_gpu_memory_gb for r in results),
        "peak_resident_memory_encoding_gb": max(r.result.peak_resident_memory_gb for r in results),
    }
    return encoding, results[-1].molecules


def _run_all(runs: Runs, parallel: int, anew: bool, molecules: pa.Table) -> Failures:
    """Make every run that is not there yet, or all anew; the reasons of those that failed."""
    todo = {}
    for key, run in runs.items():
        identity = _identity(run, molecules)
        if anew or not _is_finished(run, identity):
            todo[key] = (run, identity)
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


def _in_turn(todo: dict) -> Iterator[tuple[tuple[str, int], str | None]]:
    for key, job in todo.items():
        yield key, _run(*job)


def _in_parallel(todo: dict, parallel: int) -> Iterator[tuple[tuple[str, int], str | None]]:
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
        starting_over(_train_and_evaluate, settings, share)
    except Exception as error:  # whatever it is, the other runs shall go on
        log.debug("run failed", exc_info=True)
        return _reason(error)
    content = json_bytes({"identity": identity})
    write_atomically(f"{settings.output_dir}/{FINISHED}", content)
    return None


def _train_and_evaluate(settings: TrainSettings, share: float) -> None:
    run_training(settings, share)
    run_evaluation(
        EvaluateSettings(
            checkpoint=f"{settings.output_dir}/checkpoint",
            cache_root=settings.cache_root,
            output_dir=settings.output_dir,
            device=settings.device,
            allow_overlap=settings.allow_overlap,
        )
    )


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = lines[-1] if lines else "no reason given"  # of a remote traceback the last line says it
    return told if isinstance(error, InputError) else f"{type(error).__name__}: {told}"


def _room_for_runs(settings: CompareSettings) -> int:
    if device_of(settings.device) == "cuda":
        return max(1, int(resources()["GPU"]) // settings.num_workers)
    return max(1, cluster_cores() // (CORES_A_RUN * settings.num_workers))


def _identity(run: TrainSettings, molecules: pa.Table) -> str:
    """What decides a run's outcome: its settings, the encoder, the molecules."""
    rows = molecules.select(["id", "key", "role"]).to_pydict()
    return run_name(run, NOT_IDENTITY, Tables.of(run).identity, rows)


def _is_finished(run: TrainSettings, identity: str) -> bool:
    fs, path = fsspec.url_to_fs(f"{run.output_dir}/{FINISHED}")
    return fs.exists(path) and json.loads(fs.cat_file(path)) == {"identity": identity}


def _drift(done: list[Run], runs: Runs, molecules: pa.Table) -> dict[int, np.ndarray]:
    """By seed, the cosine of each test molecule's finetuned to its frozen feature."""
    key_of = dict(zip(molecules["id"].to_pylist(), molecules["key"].to_pylist()))
    keys = [key_of[i] for i in done[0].ids]
    tests = molecules.filter(pc.is_in(molecules["key"], pa.array(keys)))

    def features(settings: TrainSettings) -> np.ndarray:
        # In the store already, unless that has moved since the run was made.
        return encode(tests, settings).features.read_features(keys)

    before, cosines = features(next(iter(runs.values()))), {}
    for run in (run for run in done if run.arm == "finetuned"):
        settings = runs[run.arm, run.seed]
        after = features(replace(settings, finetuned=f"{settings.output_dir}/checkpoint"))
        norms = np.linalg.norm(before, axis=1) * np.linalg.norm(after, axis=1)
        cosines[run.seed] = (before * after).sum(axis=1) / norms
    return cosines
