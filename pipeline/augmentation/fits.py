"""Classifiers of every method and seed, fitted side by side by Ray, one core each."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
import torch

from pipeline.augmentation.classifiers import FITS
from pipeline.augmentation.intervals import resampled_measures
from pipeline.augmentation.methods import METHODS, Rows, Training
from pipeline.augmentation.scores import Judged, measures, threshold_of
from pipeline.augmentation.settings import AugmentSettings
from pipeline.augmentation.table import Part

log = logging.getLogger(__name__)

TOLD = 5  # times that progress is told


@dataclass(frozen=True)
class Data:
    """What every classifier sees, standardised by the real training rows.

    Attributes
    ----------
    tests : by split, their groups numbered from 0.
    """

    training: Training
    val: Part
    tests: Mapping[str, Part]


@dataclass(frozen=True)
class Fit:
    """A classifier's results.

    Attributes
    ----------
    rows : that it learned from, real and made.
    epoch, finished : as of `Classifier`.
    threshold : the score from which on rows are called rare.
    values : by test, metric → value.
    drawn : by test, METRICS (samples, 4) of the resamples.
    """

    method: str
    seed: int
    rows: int
    epoch: int
    finished: bool
    threshold: float
    validation: dict[str, float]
    values: dict[str, dict[str, float]]
    drawn: dict[str, np.ndarray]
    seconds: float


def fit_one(data: Data, method: str, seed: int, settings: AugmentSettings) -> Fit:
    """Train by one method with one seed; choose the threshold on validation, judge on the tests."""
    started = time.perf_counter()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        rows = METHODS[method](data.training, seed)
        val = Rows(data.val.features, data.val.is_rare, np.ones(len(data.val.groups)))
        batches = max(1, len(data.training.is_rare) // settings.classifier_batch_size)
        found = FITS[settings.classifier](rows, val, batches, settings, seed)
        in_val = found.score(val.features)
        threshold = threshold_of(in_val, val.is_rare, settings.threshold_by)
        values, drawn = {}, {}
        for name, test in data.tests.items():
            scores = found.score(test.features)
            judged = Judged(scores, scores >= threshold, test.is_rare, test.groups)
            values[name] = measures(scores, test.is_rare, judged.called)
            drawn[name] = resampled_measures(judged, settings.bootstrap_samples, settings.seed)
    finally:
        torch.set_num_threads(threads)
    of_val = measures(in_val, val.is_rare, in_val >= threshold)
    return Fit(
        method, seed, len(rows.features), found.epoch, found.finished, threshold, of_val, values,
        drawn, time.perf_counter() - started,
    )  # fmt: skip


def fit_all(data: Data, settings: AugmentSettings) -> list[Fit]:
    """As `fit_one`, of all methods and seeds."""
    kept: Any = ray.put(data)
    remote = ray.remote(num_cpus=1)(fit_one)
    underway = [
        remote.remote(kept, method, seed, settings)
        for method in settings.all_methods
        for seed in settings.all_seeds
    ]
    left, every = list(underway), max(1, len(underway) // TOLD)
    while left:
        _, left = ray.wait(left, num_returns=min(every, len(left)))
        log.info("classifiers: %s of %s are trained", len(underway) - len(left), len(underway))
    return ray.get(underway)
