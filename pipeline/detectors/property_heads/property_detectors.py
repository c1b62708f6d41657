"""Detectors that ask a network for the labels how certain it is of a molecule."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from pipeline.detectors.base import Inputs, check_width
from pipeline.detectors.kept import KeptDetector, Training
from pipeline.detectors.property_heads.property_head import (
    HIDDEN,
    Exposure,
    Layers,
    Task,
    forward,
    free_energy,
    train_layers,
)
from pipeline.detectors.settings import DetectorSettings
from pipeline.runtime.errors import InputError

_AT_ONCE = 4_096  # molecules whose float64 features are in memory


class _OnLabels(KeptDetector):
    """One network or several; a score is taken from their outputs in float64."""

    needs_labels: ClassVar[bool] = True
    takes_values: ClassVar[bool] = False  # labels that are not classes

    @classmethod
    def _fitted(cls, training: Training) -> Self:
        """Trains on the labels; InputError if there are none, or not of the kind that it takes."""
        labels = np.asarray(training.labels, np.float64)
        task = Task.of(labels, cls.name)
        if not (task.is_binary or cls.takes_values):
            raise InputError(
                f"--detector {cls.name} needs labels of two classes, 0 and 1, and these are "
                "values; mc_dropout and ensemble take values, by the variance of predictions"
            )
        arrays = {}
        for number in range(cls._networks(training.settings)):
            layers = train_layers(
                training.id_train.features, labels, task, training.settings,
                _seed(training.seed, number), cls._exposure(training.ood_train, training.settings),
            )  # fmt: skip
            for depth, (weight, bias) in enumerate(layers):
                arrays[f"{number}.weight.{depth}"] = weight.numpy()
                arrays[f"{number}.bias.{depth}"] = bias.numpy()
        numbers = {"is_binary": task.is_binary, "scale": task.scale}
        more_arrays, more_numbers = cls._of_settings(training.settings, training.seed)
        return cls({**arrays, **more_arrays}, {**numbers, **more_numbers})

    def scores(self, inputs: Inputs) -> np.ndarray:
        """Scores (n,) float64."""
        check_width(inputs, self.arrays["0.weight.0"].shape[1], self.name)
        scored = np.empty(len(inputs))
        for at in range(0, len(inputs), _AT_ONCE):
            part = np.asarray(inputs.features[at : at + _AT_ONCE], np.float64)
            scored[at : at + _AT_ONCE] = self._scores(torch.from_numpy(part)).detach().numpy()
        return scored

    def networks(self) -> Iterator[Layers]:
        """The layers of each network, float64."""
        number = 0
        while f"{number}.weight.0" in self.arrays:
            yield [
                tuple(
                    torch.from_numpy(self.arrays[f"{number}.{what}.{depth}"].astype(np.float64))
                    for what in ("weight", "bias")
                )
                for depth in range(len(HIDDEN) + 1)
            ]
            number += 1

    @classmethod
    def _networks(cls, settings: DetectorSettings) -> int:
        return 1

    @classmethod
    def _exposure(cls, ood_train: Inputs | None, settings: DetectorSettings) -> Exposure | None:
        return None

    @classmethod
    def _of_settings(cls, settings: DetectorSettings, seed: int) -> tuple[dict, dict]:
        """Arrays and numbers that scores need beside the networks."""
        return {}, {}

    def _scores(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def _variance(self, outputs: list[Tensor]) -> Tensor:
        """Variance (n,) of what is predicted over some outputs: of P(1), or of the value."""
        if self.numbers["is_binary"]:
            predicted = [torch.softmax(each, dim=1)[:, 1] for each in outputs]
        else:
            predicted = [self.numbers["scale"] * each[:, 0] for each in outputs]
        return torch.stack(predicted).var(dim=0, correction=0)


class MaximumSoftmax(_OnLabels):
    """Score: minus the probability of the likelier class.

    Hendrycks and Gimpel, A Baseline for Detecting Misclassified and OOD Examples, 2017.
    """

    name: ClassVar[str] = "msp"

    def _scores(self, x: Tensor) -> Tensor:
        (layers,) = self.networks()
        return -torch.softmax(forward(x, layers), dim=1).amax(dim=1)


class Odin(_OnLabels):
    """Score: minus the probability of the likelier class, at a high temperature, one step on.

    The step moves every feature by ε in the direction in which that probability grows. Liang et
    al., Enhancing the Reliability of Out-of-distribution Image Detection, 2018.
    """

    name: ClassVar[str] = "odin"

    @classmethod
    def _of_settings(cls, settings: DetectorSettings, seed: int) -> tuple[dict, dict]:
        return {}, {"temperature": settings.odin_temperature, "epsilon": settings.odin_epsilon}

    def _scores(self, x: Tensor) -> Tensor:
        (layers,) = self.networks()
        x = x.clone().requires_grad_()
        log_likelier = self._log_softmax(x, layers).amax(dim=1)
        (gradient,) = torch.autograd.grad(log_likelier.sum(), x)
        with torch.no_grad():
            moved = x + self.numbers["epsilon"] * gradient.sign()
            return -self._log_softmax(moved, layers).amax(dim=1).exp()

    def _log_softmax(self, x: Tensor, layers: Layers) -> Tensor:
        return torch.log_softmax(forward(x, layers) / self.numbers["temperature"], dim=1)


class FreeEnergy(_OnLabels):
    """Score: the free energy −ln Σ exp(logit) of a classifier. Liu et al., 2020."""

    name: ClassVar[str] = "energy"

    def _scores(self, x: Tensor) -> Tensor:
        (layers,) = self.networks()
        return free_energy(forward(x, layers))


class EnergyWithExposure(FreeEnergy):
    """Score: the free energy of a classifier that was fine-tuned on ID and OOD molecules.

    Liu et al., Energy-based Out-of-distribution Detection, 2020: cross-entropy of the ID labels,
    and squared hinges that push the energies of ID molecules down and of OOD molecules up.
    """

    name: ClassVar[str] = "energy_oe"
    needs_ood: ClassVar[bool] = True

    @classmethod
    def _exposure(cls, ood_train: Inputs | None, settings: DetectorSettings) -> Exposure:
        return Exposure(
            ood_train.features, settings.exposure_weight,
            settings.exposure_margin_id, settings.exposure_margin_ood,
        )  # fmt: skip


class MonteCarloDropout(_OnLabels):
    """Score: variance of the prediction over passes with dropout: of P(1), or of the value.

    Gal and Ghahramani, Dropout as a Bayesian Approximation, 2016. The passes' masks are drawn once
    and kept, so that a molecule's score does not depend on which others are scored with it.
    """

    name: ClassVar[str] = "mc_dropout"
    takes_values: ClassVar[bool] = True

    @classmethod
    def _of_settings(cls, settings: DetectorSettings, seed: int) -> tuple[dict, dict]:
        if settings.property_dropout == 0:
            raise InputError("--detector mc_dropout needs --property_dropout above 0")
        shape = (settings.mc_passes, len(HIDDEN), HIDDEN[0])
        kept = np.random.default_rng(seed).random(shape) >= settings.property_dropout
        return {"masks": kept.astype(np.uint8)}, {"dropout": settings.property_dropout}

    def _scores(self, x: Tensor) -> Tensor:
        (layers,) = self.networks()
        masks = torch.from_numpy(self.arrays["masks"].astype(np.float64)) / (
            1 - self.numbers["dropout"]
        )
        return self._variance([forward(x, layers, mask) for mask in masks])


class Ensemble(_OnLabels):
    """Score: variance of the prediction over networks trained from different seeds.

    Lakshminarayanan et al., Simple and Scalable Predictive Uncertainty Estimation, 2017.
    """

    name: ClassVar[str] = "ensemble"
    takes_values: ClassVar[bool] = True

    @classmethod
    def _networks(cls, settings: DetectorSettings) -> int:
        return settings.ensemble_size

    def _scores(self, x: Tensor) -> Tensor:
        return self._variance([forward(x, layers) for layers in self.networks()])


def _seed(seed: int, number: int) -> int:
    """The seed of one network; the first has that of the run."""
    if number == 0:
        return seed
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
