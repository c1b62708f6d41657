"""The comparison: one trunk and one set of features, a run of either kind for every seed."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Iterator
from dataclasses import asdict, fields, replace
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray

from pipeline import telemetry
from pipeline.checkpoint import json_bytes
from pipeline.cluster import cluster_cores, device_of, settled
from pipeline.comparison import summarize
from pipeline.comparison_runs import ARMS, Run, align, read_run, run_folder
from pipeline.comparison_text import summary_text
from pipeline.config import CompareSettings, EvaluateSettings, TrainSettings
from pipeline.errors import InputError
from pipeline.evaluation_run import run_evaluation
from pipeline.experiment import check_inputs, encode_molecules, run_training, write_rejected
from pipeline.figures import write_figures
from pipeline.finetune_run import choose_trunk, prepare_finetuning
from pipeline.sources import read_molecules
from pipeline.splits import assign_roles
from pipeline.store import absolute, write_atomically
from pipeline.tables import Tables
from pipeline.training import NOT_IDENTITY, TRAINING_ROLES

log = logging.getLogger(__name__)

CORES_A_RUN = 4
FINISHED = "finished.json"  # in a run's folder: what it was a run of
Runs = dict[tuple[str, int], TrainSettings]


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
    encoding, molecules = _encode_once(shared)
    runs = {
        (arm, seed): replace(
            shared, seed=seed, finetune_encoder=arm == "finetuned",
            output_dir=run_folder(settings.output_dir, arm, seed),
        )
        for seed in settings.seeds for arm in ARMS
    }  # fmt: skip
    failed = _run_all(runs, settings, molecules)
    finished = [key for key in runs if key not in failed]
    if not finished:
        raise InputError(f"no run finished; the first failed so: {next(iter(failed.values()))}")
    done = align([read_run(settings.output_dir, arm, seed) for arm, seed in finished])
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
    }
    figures = write_figures(f"{settings.output_dir}/figures", done, cosines, done[0].is_ood)
    summary |= {"figures": figures, "total_seconds": time.monotonic() - started}
    folder = settings.output_dir
    write_atomically(f"{folder}/comparison_summary.json", json_bytes(summary))
    write_atomically(f"{folder}/comparison_summary.txt", summary_text(summary).encode())
    return summary


def _train_settings(settings: CompareSettings) -> TrainSettings:
    """What all runs have in common, the output folder and seed apart."""
    values = {f.name: getattr(settings, f.name) for f in fields(TrainSettings)}
    common = TrainSettings(**{**values, "finetune_encoder": True})
    return settled(replace(common, output_dir=absolute(settings.output_dir)))


def _encode_once(settings: TrainSettings) -> tuple[dict[str, float], pa.Table]:
    """Fill the store with all that the runs need: what that took, and the molecules."""
    finetuning = prepare_finetuning(settings)
    source = read_molecules(settings)
    sample = assign_roles(source.molecules, settings, settings.data_file)
    training = sample.filter(pc.is_in(sample["role"], pa.array(TRAINING_ROLES)))
    trunk = choose_trunk(finetuning, training["smiles"], settings)
    results = [
        encode_molecules(part, source, replace(settings, force_recompute_cache=fresh), spec)
        for part, spec, fresh in (
            (training, trunk, settings.force_recompute_cache),
            (sample, None, False),
        )
    ]
    write_rejected(results[-1].rejected, settings.output_dir)
    encoding = {
        "encoding_time_seconds": sum(r.result.seconds for r in results),
        "molecules": sum(r.result.encoded for r in results),
        "peak_gpu_memory_encoding_gb": max(r.result.peak_gpu_memory_gb for r in results),
        "peak_resident_memory_encoding_gb": max(r.result.peak_resident_memory_gb for r in results),
    }
    return encoding, results[-1].molecules


def _run_all(runs: Runs, settings: CompareSettings, molecules: pa.Table) -> dict:
    """Make every run that is not there yet; the reasons of those that failed."""
    todo = {}
    for key, run in runs.items():
        identity = _identity(run, molecules)
        if settings.force_recompute_cache or not _is_finished(run, identity):
            todo[key] = (run, identity)
    if len(todo) < len(runs):
        log.info("%s of %s runs were finished before", len(runs) - len(todo), len(runs))
    parallel = settings.parallel_runs or _room_for_runs(settings)
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
    remote = ray.remote(num_cpus=0, max_retries=0)(_run_apart)
    waiting, running = list(todo.items()), {}
    while waiting or running:
        while waiting and len(running) < parallel:
            key, job = waiting.pop(0)
            running[remote.remote(*job)] = key
        [ready], _ = ray.wait(list(running), num_returns=1)
        key = running.pop(ready)
        try:
            yield key, ray.get(ready)
        except ray.exceptions.RayError as error:  # its process died
            yield key, _reason(error)


def _run_apart(settings: TrainSettings, identity: str) -> str | None:
    telemetry.configure_logging()
    return _run(settings, identity)


def _run(settings: TrainSettings, identity: str) -> str | None:
    """Train and evaluate; why it failed, if it did."""
    try:
        run_training(settings)
        run_evaluation(
            EvaluateSettings(
                checkpoint=f"{settings.output_dir}/checkpoint",
                cache_root=settings.cache_root,
                output_dir=settings.output_dir,
                device=settings.device,
                allow_overlap=settings.allow_overlap,
            )
        )
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


def _room_for_runs(settings: CompareSettings) -> int:
    if device_of(settings.device) == "cuda":
        return max(1, int(ray.cluster_resources()["GPU"]) // settings.num_workers)
    return max(1, cluster_cores() // (CORES_A_RUN * settings.num_workers))


def _identity(run: TrainSettings, molecules: pa.Table) -> str:
    """What decides a run's outcome: its settings, the encoder, the molecules."""
    decides = {k: v for k, v in asdict(run).items() if k not in NOT_IDENTITY}
    content = [
        decides,
        Tables.of(run).identity,
        molecules.select(["id", "key", "role"]).to_pydict(),
    ]
    return hashlib.blake2b(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _is_finished(run: TrainSettings, identity: str) -> bool:
    fs, path = fsspec.url_to_fs(f"{run.output_dir}/{FINISHED}")
    return fs.exists(path) and json.loads(fs.cat_file(path)) == {"identity": identity}


def _drift(done: list[Run], runs: Runs, molecules: pa.Table) -> dict[int, np.ndarray]:
    """By seed, the cosine of each test molecule's finetuned to its frozen feature."""
    key_of = dict(zip(molecules["id"].to_pylist(), molecules["key"].to_pylist()))
    keys = [key_of[i] for i in done[0].ids]
    cosines = {}
    for run in done:
        if run.arm != "finetuned":
            continue
        settings = runs[run.arm, run.seed]
        finetuned = replace(settings, finetuned=f"{settings.output_dir}/checkpoint")
        before, after = (Tables.of(s).features.read_features(keys) for s in (settings, finetuned))
        norms = np.linalg.norm(before, axis=1) * np.linalg.norm(after, axis=1)
        cosines[run.seed] = (before * after).sum(axis=1) / norms
    return cosines
