"""Batches of molecules that waste little padding and fit a memory budget."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch

from pipeline.encoders.unimol.model import UniMolConfig
from pipeline.encoders.unimol.tokens import TokenizedMolecule
from pipeline.runtime.errors import OUT_OF_MEMORY

log = logging.getLogger(__name__)

# On a CPU a batch shall stay near the caches; more molecules at once gain nothing.
CPU_TOKENS, CPU_PAIRS, CPU_ENOUGH = 2_048, 16_000, 192
CPU_TRAINING = 4_096, 64_000, 512  # tokens, pairs and enough tokens of a micro-batch
# Padded tokens below which a GPU mostly waits for the next kernel's start: of a forward pass, on an
# H100 and an H200, and of a micro-batch in training, on an H200 (bench/cuda.md).
GPU_ENOUGH, GPU_TRAINING_ENOUGH = 16_384, 16_384
GPU_MEMORY_SHARE = 0.8
MOST_PADDING = 0.04  # share of a batch's tokens


class Sizes(NamedTuple):
    """Of a transformer's layers: their width, that of the feed-forward part, attention heads."""

    width: int
    ffn_width: int
    heads: int


@dataclass(frozen=True)
class Budget:
    """What one forward pass may hold.

    Attributes
    ----------
    molecules : molecules at most.
    tokens, pairs : padded tokens (molecules × longest) and padded pairs (molecules × longest²)
        at most; a single molecule above them still gets a batch of its own.
    enough_tokens : padded tokens from which a batch must keep to its share of padding.
    """

    molecules: int
    tokens: int
    pairs: int
    enough_tokens: int

    def halved(self, molecules: int, longest: int) -> Budget:
        """Half of a batch that did not fit, which may be far below a budget that never bound.

        The number of molecules stays: a few long ones say nothing of how many short ones fit.
        """
        return replace(
            self,
            tokens=min(self.tokens, molecules * longest // 2),
            pairs=min(self.pairs, molecules * longest**2 // 2),
        )


def budget_for(
    device: torch.device, molecules: int, config: UniMolConfig | Sizes, dtype: torch.dtype,
    memory_share: float = 1.0,
) -> Budget:  # fmt: skip
    """The budget of a device: on a GPU from its free memory, on a CPU from its caches.

    Parameters
    ----------
    molecules : upper bound on molecules.
    memory_share : part of the GPU's free memory that this process may take.
    """
    if device.type != "cuda":
        return Budget(molecules, CPU_TOKENS, CPU_PAIRS, CPU_ENOUGH)
    free_bytes, _ = torch.cuda.mem_get_info(device)
    half = GPU_MEMORY_SHARE * memory_share * free_bytes / 2
    size = dtype.itemsize
    pair_size = 2 if dtype == torch.bfloat16 else 4
    # At the peak of a layer: x in float32 and its norm; q, k, v and their mix; both sides of GELU.
    token_bytes = (4 + 6 * size) * config.width + 2 * size * config.ffn_width
    return Budget(
        molecules, int(half / token_bytes), int(half / (config.heads * pair_size)), GPU_ENOUGH
    )


def training_budget_for(
    device: torch.device, molecules: int, config: UniMolConfig, layers: int
) -> Budget:
    """The budget of a micro-batch through so many trained layers, gradients included.

    Parameters
    ----------
    molecules : upper bound on molecules.
    """
    if device.type != "cuda":
        return Budget(molecules, *CPU_TRAINING)
    free_bytes, _ = torch.cuda.mem_get_info(device)
    # Kept for the gradient of each layer, in float32 where autocast does not lower it: pairs,
    # attention weights before and after dropout; a dozen tensors of the width, three of the FFN.
    half = GPU_MEMORY_SHARE * free_bytes / 2 / layers
    token_bytes = 4 * (12 * config.width + 3 * config.ffn_width)
    pairs = int(half / (config.heads * 20))
    return Budget(molecules, int(half / token_bytes), pairs, GPU_TRAINING_ENOUGH)


def batches_that_fit(
    lengths: Sequence[int],
    plan: Callable[[np.ndarray], list[np.ndarray]],
    run: Callable[[np.ndarray], Any],
    halve: Callable[[int, int], None],
) -> Iterator[tuple[np.ndarray, Any]]:
    """Rows of each batch and what came of it; where memory ran out, smaller batches follow.

    Parameters
    ----------
    lengths : tokens of each molecule.
    plan : batches of molecules of these lengths.
    run : works on the molecules of some rows.
    halve : told how many molecules of how many tokens at most did not fit; the plan heeds it.
    """
    lengths = np.asarray(lengths, dtype=np.int64)
    batches = deque(plan(lengths))
    while batches:
        rows = batches.popleft()
        output = _if_room(run, rows)
        if output is not None:
            yield rows, output
            continue
        halve(len(rows), int(lengths[rows].max()))
        left = np.concatenate([rows, *batches])
        batches = deque(left[batch] for batch in plan(lengths[left]))


def _if_room(run: Callable[[np.ndarray], Any], rows: np.ndarray) -> Any | None:
    """What a run gives; None if the device ran out of memory, which is free again by then."""
    try:
        return run(rows)
    except RuntimeError as error:
        if not any(words in str(error) for words in OUT_OF_MEMORY):
            raise
        return None


def half_of(budget: Budget, device: torch.device, molecules: int, longest: int) -> Budget:
    """The budget after a batch that did not fit; told in the log.

    Raises
    ------
    MemoryError
        If the batch was one molecule.
    """
    if molecules == 1:
        raise MemoryError(
            f"{device} has no room for one molecule of {longest} tokens; free memory on it, or use "
            "another --device"
        )
    budget = budget.halved(molecules, longest)
    if device.type == "cuda":
        torch.cuda.empty_cache()
    log.warning(
        "%s ran out of memory on %s molecules of up to %s tokens; going on with at most "
        "%s tokens and %s pairs in a batch",
        device, molecules, longest, budget.tokens, budget.pairs,
    )  # fmt: skip
    return budget


def plan_batches(lengths: Sequence[int], budget: Budget) -> list[np.ndarray]:
    """Group molecules by length so that no batch exceeds the budget and padding stays small.

    Parameters
    ----------
    lengths : tokens of each molecule, [CLS] and [SEP] included.

    Returns
    -------
    list of int arrays
        Indices into `lengths`; each index appears once, long molecules come first.
    """
    order = np.argsort(-np.asarray(lengths, dtype=np.int64), kind="stable")
    falling = np.asarray(lengths, dtype=np.int64)[order]
    batches, start = [], 0
    while start < len(order):
        longest = int(falling[start])
        most = max(1, min(budget.molecules, budget.tokens // longest, budget.pairs // longest**2))
        padded = longest * np.arange(1, len(falling[start : start + most]) + 1)
        padding = 1 - np.cumsum(falling[start : start + most]) / padded
        # Shorter and shorter molecules follow, so the share of padding only grows.
        fitting = int(np.sum((padding <= MOST_PADDING) | (padded <= budget.enough_tokens)))
        batches.append(order[start : start + max(1, fitting)])
        start += max(1, fitting)
    return batches


def pad_batch(
    molecules: Sequence[TokenizedMolecule], pad: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Stack molecules to tokens (B, N) int64 and coords (B, N, 3) float32, padded at the end."""
    longest = max(len(m.tokens) for m in molecules)
    tokens = np.full((len(molecules), longest), pad, dtype=np.int64)
    coords = np.zeros((len(molecules), longest, 3), dtype=np.float32)
    for row, molecule in enumerate(molecules):
        tokens[row, : len(molecule.tokens)] = molecule.tokens
        coords[row, : len(molecule.tokens)] = molecule.coords
    return torch.from_numpy(tokens), torch.from_numpy(coords)
