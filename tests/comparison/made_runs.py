"""Runs of a comparison, made up."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pipeline.comparison.run_folders import ARMS, Run
from pipeline.evaluation.metrics import ood_metrics

N_ID, N_OOD = 30, 40


def make_run(arm, seed, shift=1.0, energies=None, **stats):
    """A run on the same molecules as any other; by `shift`, OOD energies lie higher."""
    is_ood = np.arange(N_ID + N_OOD) >= N_ID
    if energies is None:
        # What molecules have of their own is the same in every run; seeds add noise to it.
        own = np.random.default_rng(0).normal(size=len(is_ood))
        noise = np.random.default_rng([1, seed, ARMS.index(arm)]).normal(0, 0.2, len(is_ood))
        energies = own + noise + shift * is_ood
    ids = [f"mol{i:03d}" for i in range(len(is_ood))]
    smiles = ["C" * (i + 1) for i in range(len(is_ood))]
    results = ood_metrics(is_ood.astype(int), energies)
    return Run(arm, seed, stats, results, [], ids, smiles, is_ood, energies)


def both_arms(seeds=(1, 2, 3), frozen_shift=1.0, finetuned_shift=1.0):
    frozen = [make_run("frozen", seed, frozen_shift) for seed in seeds]
    return [*frozen, *(make_run("finetuned", seed, finetuned_shift) for seed in seeds)]


def shuffled(run, seed):
    order = np.random.default_rng(seed).permutation(len(run.ids))
    return replace(
        run,
        ids=[run.ids[i] for i in order],
        smiles=[run.smiles[i] for i in order],
        is_ood=run.is_ood[order],
        energies=run.energies[order],
    )
