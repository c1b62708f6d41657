"""A small network that predicts the labels of ID molecules; detectors ask how certain it is.

The network and its training are those of the usual baselines: three hidden layers of 64, ReLU and
dropout; Adam; early stopping by the loss of a random part that it is not fitted to.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.detectors.settings import PropertyHeadSettings
from pipeline.runtime.errors import InputError
from pipeline.runtime.train.optimizers import Adam

log = logging.getLogger(__name__)

HIDDEN = (64, 64, 64)
VALIDATION_SHARE = 0.15
LEAST_LABELS = 10
BATCH_SIZE, MOST_EPOCHS = 512, 300

Layers = list[tuple[Tensor, Tensor]]
"""Weight (out, in) and bias (out,) of each linear layer."""


@dataclass(frozen=True)
class Task:
    """What is predicted: one of two classes, or a value, which is standardised by these two."""

    is_binary: bool
    mean: float = 0.0
    scale: float = 1.0

    @classmethod
    def of(cls, labels: np.ndarray, detector: str) -> Self:
        """The task of labels (n,): classes if all known ones are 0 or 1, else values.

        Raises
        ------
        InputError
            If fewer than `LEAST_LABELS` are known, or all of them are equal.
        """
        known = labels[np.isfinite(labels)]
        if len(known) < LEAST_LABELS:
            raise InputError(
                f"--detector {detector} needs at least {LEAST_LABELS} labels of ID training "
                f"molecules, got {len(known)}"
            )
        if (known == known[0]).all():
            raise InputError(
                f"--detector {detector} cannot learn from labels that are all {known[0]:g}; name a "
                "column that varies, or take a detector without labels, such as knn"
            )
        if np.isin(known, (0, 1)).all():
            return cls(True)
        return cls(False, float(known.mean()), float(known.std()))

    @property
    def outputs(self) -> int:
        """Outputs of the network: a logit of each class, or one value."""
        return 2 if self.is_binary else 1

    def targets(self, labels: np.ndarray) -> Tensor:
        """What `loss` compares with: classes (n,) int64, or standardised values (n, 1)."""
        if self.is_binary:
            return torch.from_numpy(labels.astype(np.int64))
        return torch.from_numpy(((labels - self.mean) / self.scale).astype(np.float32))[:, None]

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy, or mean squared error of standardised values."""
        return (F.cross_entropy if self.is_binary else F.mse_loss)(outputs, targets)


@dataclass(frozen=True)
class Exposure:
    """OOD features (n, width) that energies are pushed up on, by squared hinges.

    Liu et al., Energy-based Out-of-distribution Detection, 2020, equation 7.
    """

    features: np.ndarray
    weight: float
    margin_id: float
    margin_ood: float

    def loss(self, id_logits: Tensor, ood_logits: Tensor) -> Tensor:
        """Weighted mean max(0, E_id − m_id)² plus mean max(0, m_ood − E_ood)²."""
        id_excess = F.relu(free_energy(id_logits) - self.margin_id)
        ood_lack = F.relu(self.margin_ood - free_energy(ood_logits))
        return self.weight * (id_excess.square().mean() + ood_lack.square().mean())


def free_energy(logits: Tensor) -> Tensor:
    """−ln Σ exp(logit), (n,): higher for molecules unlike the training set."""
    return -torch.logsumexp(logits, dim=1)


def train_layers(
    features: np.ndarray,
    labels: np.ndarray,
    task: Task,
    settings: PropertyHeadSettings,
    seed: int,
    exposure: Exposure | None = None,
) -> Layers:
    """The layers of a network trained on ID molecules, on the CPU.

    The seed decides all; torch's own random state and threads stay as they are.

    Parameters
    ----------
    features, labels : (n, width) and (n,); molecules whose label is NaN are left out (logged).
    exposure : if given, training goes on from the best network with this loss added, at a tenth
        of the learning rate.
    """
    known = np.isfinite(labels)
    if not known.all():
        log.warning(
            "%d of %d ID molecules have no label and are left out", (~known).sum(), len(known)
        )
    features, labels = features[known].astype(np.float32), labels[known]
    fitted, held = _inner_cut(labels, task, seed)
    x, y = torch.from_numpy(features), task.targets(labels)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = _network(features.shape[1], task.outputs, settings.property_dropout)

        def loss(rows: Tensor) -> Tensor:
            return task.loss(network(x[rows]), y[rows])

        _descend(network, loss, lambda: loss(held), fitted, settings, settings.property_lr)
        if exposure is not None:
            _fine_tune(network, x, y, task, (fitted, held), settings, exposure)
    linear = (m for m in network if isinstance(m, nn.Linear))
    return [(m.weight.detach(), m.bias.detach()) for m in linear]


def forward(x: Tensor, layers: Layers, masks: Tensor | None = None) -> Tensor:
    """Outputs (n, outputs) of features (n, width); `masks` (hidden layers, 64) scale hidden units.

    One mask for all molecules, so that none's output depends on its place among others.
    """
    for number, (weight, bias) in enumerate(layers[:-1]):
        x = F.relu(F.linear(x, weight, bias))
        x = x if masks is None else x * masks[number]
    return F.linear(x, *layers[-1])


def _network(width: int, outputs: int, dropout: float) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in zip((width, *HIDDEN), HIDDEN):
        layers += [nn.Linear(before, after), nn.ReLU(), nn.Dropout(dropout)]
    return nn.Sequential(*layers, nn.Linear(HIDDEN[-1], outputs))


def _inner_cut(labels: np.ndarray, task: Task, seed: int) -> tuple[Tensor, Tensor]:
    """Rows to fit and rows held for early stopping, at random; of each class the same share."""
    rng = np.random.default_rng(seed)
    kinds = labels if task.is_binary else np.zeros(len(labels))
    held = []
    for kind in np.unique(kinds):
        rows = rng.permutation(np.flatnonzero(kinds == kind))
        held.append(rows[: round(VALIDATION_SHARE * len(rows))])
    held_rows = np.concatenate(held)
    fitted = np.setdiff1d(np.arange(len(labels)), held_rows)
    return torch.from_numpy(fitted), torch.from_numpy(held_rows)


def _fine_tune(
    network: nn.Sequential, x: Tensor, y: Tensor, task: Task, cut: tuple[Tensor, Tensor],
    settings: PropertyHeadSettings, exposure: Exposure,
) -> None:  # fmt: skip
    """Train on with the energies' hinges; OOD molecules are cut for early stopping as well."""
    fitted, held = cut
    ood = torch.from_numpy(exposure.features.astype(np.float32))
    order = torch.randperm(len(ood))
    most_held = max(1, round(VALIDATION_SHARE * len(ood)))
    ood_held, ood_fitted = ood[order[:most_held]], ood[order[most_held:]]
    if not len(ood_fitted):
        raise InputError("--detector energy_oe needs at least 2 OOD training molecules")

    def loss(rows: Tensor, others: Tensor) -> Tensor:
        logits = network(x[rows])
        return task.loss(logits, y[rows]) + exposure.loss(logits, network(others))

    def loss_of_batch(rows: Tensor) -> Tensor:
        return loss(rows, ood_fitted[torch.randint(len(ood_fitted), (len(rows),))])

    rate = settings.property_lr / 10
    _descend(network, loss_of_batch, lambda: loss(held, ood_held), fitted, settings, rate)


def _descend(
    network: nn.Sequential, loss_of_batch: Callable[[Tensor], Tensor],
    held_loss: Callable[[], Tensor], rows: Tensor, settings: PropertyHeadSettings, rate: float,
) -> None:  # fmt: skip
    """Adam over shuffled batches of rows; ends with the weights of the least held-out loss."""
    optimizer = Adam(network.parameters(), lr=rate, weight_decay=settings.property_weight_decay)
    best, best_state, waited = float("inf"), _copy(network), 0
    for _ in range(MOST_EPOCHS):
        network.train()
        for batch in rows[torch.randperm(len(rows))].split(BATCH_SIZE):
            optimizer.zero_grad()
            loss_of_batch(batch).backward()
            optimizer.step()
        network.eval()
        with torch.no_grad():
            loss = held_loss().item()
        waited += 1
        if loss < best:
            best, best_state, waited = loss, _copy(network), 0
        if waited >= settings.property_patience:
            break
    if best == float("inf"):
        raise InputError("the network for the labels diverged; try a lower --property_lr")
    network.load_state_dict(best_state)


def _copy(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}
