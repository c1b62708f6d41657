"""The comparison: one trunk and one set of features, a run of either kind for every seed."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.comparison.figures import write_figures
from pipeline.comparison.run_folders import ARMS, FROZEN, Run, align, read_run, run_folder
from pipeline.comparison.schedule import Failures, Runs, make_runs
from pipeline.comparison.settings import CompareSettings
from pipeline.comparison.statistics import summarize
from pipeline.comparison.summary_text import summary_text
from pipeline.encoding.in_store.tables import Tables
from pipeline.encoding.kinds import kind_of_views
from pipeline.encoding.plan import EncodingPlan, check_inputs, open_run
from pipeline.encoding.stored_features import encode, encode_molecules
from pipeline.evaluation.audit import RIVALS
from pipeline.molecules.kinds import SMILES
from pipeline.molecules.rejected import write_rejected
from pipeline.molecules.roles import CALIBRATION, ROLES, assign_roles
from pipeline.molecules.sources import Molecules
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import absolute, json_bytes, write_atomically
from pipeline.runtime.nodes.cluster import cluster_cores, resources
from pipeline.training.finetuning.preparation import (
    FinetuneRun,
    check_finetuning_flags,
    choose_trunk,
    prepare_finetuning,
)
from pipeline.training.fitting import detectors_of
from pipeline.training.settings import FinetuneSettings, TrainSettings
from pipeline.training.trainer import TRAINING_ROLES, training_name

log = logging.getLogger(__name__)

CORES_A_RUN = 4


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
    if settings.data_file is None or settings.id_file is not None:
        raise InputError("jobs.compare needs --data_file, a split with test molecules, alone")
    notes = check_inputs(settings)
    common = _train_settings(settings)
    detectors_of(common)
    check_finetuning_flags(common)
    finetuning = prepare_finetuning(common) if common.finetune_encoder else None
    arms = ARMS if finetuning else (FROZEN,)
    if not finetuning:
        log.info("%s cannot be finetuned: the frozen arm runs alone", common.foundation_model)
    plan, source = open_run(common, notes)
    encoding, molecules = _encode_once(plan, source, finetuning)
    runs = _runs(replace(plan.settings, weights=plan.weights), settings.seeds, arms)
    parallel = settings.parallel_runs or _room_for_runs(plan)
    identities = {key: _identity(run, plan.tables, molecules) for key, run in runs.items()}
    failed = make_runs(
        runs, identities, parallel, anew=settings.force_recompute_cache, device=plan.device
    )
    done = _finished(runs, settings.output_dir, failed)
    cosines = _drift(done, runs, plan, molecules)
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
        "rivals": _rivals(done),
        "shared_encoding": encoding,
        "parallel_runs": parallel,
    }
    folder = settings.output_dir
    write_atomically(f"{folder}/comparison_summary.txt", summary_text(summary).encode())
    summary["figures"] = write_figures(f"{folder}/figures", done, cosines, done[0].is_ood)
    summary["total_seconds"] = time.monotonic() - started
    write_atomically(f"{folder}/comparison_summary.json", json_bytes(summary))
    return summary


def _runs(shared: TrainSettings, seeds: list[int], arms: Sequence[str]) -> Runs:
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
        for seed in seeds for arm in arms
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


def _rivals(done: list[Run]) -> dict[str, dict[str, Any]]:
    """The AUROC of what needs no training: the same in all runs, since their molecules are.

    Empty if an earlier version made the runs.
    """
    audit = next((run.results["audit"] for run in done if "audit" in run.results), {})
    return {
        rival: {key: value for key, value in audit[rival].items() if not key.startswith("lead")}
        for rival in RIVALS if rival in audit
    }  # fmt: skip


def _train_settings(settings: CompareSettings) -> TrainSettings:
    """What all runs have in common, the output folder and seed apart."""
    values = {f.name: getattr(settings, f.name) for f in fields(TrainSettings)}
    if kind_of_views(settings.view_names) == SMILES:  # no encoder of sequences can be finetuned
        values["finetune_encoder"] = True
    common = TrainSettings(**values)
    return replace(
        common,
        dataset=common.dataset or common.data_file,
        data_file=absolute(common.data_file),
        output_dir=absolute(common.output_dir),
        cache_root=absolute(common.cache_root),
    )


def _encode_once(
    plan: EncodingPlan[TrainSettings], source: Molecules, finetuning: FinetuneRun | None
) -> tuple[dict[str, float], pa.Table]:
    """Fill the store with all that the runs need: what that took, and the molecules."""
    settings = plan.settings
    roles = (*ROLES, CALIBRATION)
    sample = assign_roles(source.molecules, settings, settings.data_file, roles)
    in_training = pc.is_in(sample["role"], pa.array(TRAINING_ROLES))
    training, tests = sample.filter(in_training), sample.filter(pc.invert(in_training))
    with_trunk = plan
    if finetuning is not None:
        with_trunk = plan.with_trunk(choose_trunk(finetuning, training, plan))
    results = [
        encode_molecules(training, source, with_trunk),
        encode_molecules(tests, source, plan),
        encode_molecules(sample, source, plan.reusing()),  # encodes nothing: all of them together
    ]
    write_rejected(results[-1].rejected, settings.output_dir, kind=source.kind)
    encoding = {
        "encoding_time_seconds": sum(r.result.seconds for r in results),
        "molecules": sum(r.result.encoded for r in results),
        "peak_gpu_memory_encoding_gb": max(r.result.peak_gpu_memory_gb for r in results),
        "peak_resident_memory_encoding_gb": max(r.result.peak_resident_memory_gb for r in results),
    }
    return encoding, results[-1].molecules


def _room_for_runs(plan: EncodingPlan[TrainSettings]) -> int:
    workers = plan.settings.num_workers
    if plan.device == "cuda":
        return max(1, int(resources()["GPU"]) // workers)
    return max(1, cluster_cores() // (CORES_A_RUN * workers))


def _identity(run: TrainSettings, tables: Tables, molecules: pa.Table) -> str:
    """What decides a run's outcome: its settings, the encoder, the molecules."""
    rows = molecules.select(["id", "key", "role"]).to_pydict()
    return training_name(run, tables.identity, rows)


def _drift(
    done: list[Run], runs: Runs, plan: EncodingPlan, molecules: pa.Table
) -> dict[int, np.ndarray]:
    """By seed, the cosine of each test molecule's finetuned to its frozen feature."""
    key_of = dict(zip(molecules["id"].to_pylist(), molecules["key"].to_pylist()))
    keys = [key_of[i] for i in done[0].ids]
    tests = molecules.filter(pc.is_in(molecules["key"], pa.array(keys)))

    def features(plan: EncodingPlan) -> np.ndarray:
        # In the store already, unless that has moved since the run was made.
        return encode(tests, plan).features.read_features(keys)

    plan = plan.reusing()
    before, cosines = features(plan), {}
    for run in (run for run in done if run.arm == "finetuned"):
        folder = runs[run.arm, run.seed].output_dir
        after = features(plan.finetuned_by(f"{folder}/checkpoint"))
        norms = np.linalg.norm(before, axis=1) * np.linalg.norm(after, axis=1)
        cosines[run.seed] = (before * after).sum(axis=1) / norms
    return cosines
