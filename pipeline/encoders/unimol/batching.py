"""Batches of molecules that waste little padding and fit a memory budget."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from pipeline.encoders.unimol.tokens import TokenizedMolecule

# Bytes that one padded pair of tokens takes at the peak of the forward in fp32: the
# Gaussian features (128 channels, three copies) and the 64-head pair tensor (four copies).
BYTES_PER_PAIR = 4 * (3 * 128 + 4 * 64)
CPU_MAX_PAIRS = 16_000  # about 20 drug-like molecules: their tensors stay near the caches
GPU_MEMORY_SHARE = 0.5


def max_pairs_for(device: torch.device) -> int:
    """Padded pairs (Σ N²) that one batch may hold on a device, from its free memory."""
    if device.type != "cuda":
        return CPU_MAX_PAIRS
    free_bytes, _ = torch.cuda.mem_get_info(device)
    return max(CPU_MAX_PAIRS, int(GPU_MEMORY_SHARE * free_bytes / BYTES_PER_PAIR))


def plan_batches(lengths: Sequence[int], *, max_molecules: int, max_pairs: int) -> list[np.ndarray]:
    """Group molecules by length so that no batch exceeds a count or a padded size.

    Parameters
    ----------
    lengths : tokens of each molecule, [CLS] and [SEP] included.
    max_molecules : upper bound on molecules in a batch.
    max_pairs : upper bound on molecules × (longest length)²; a single molecule above it
        still gets a batch of its own.

    Returns
    -------
    list of int arrays
        Indices into `lengths`; each index appears once, long molecules come first.
    """
    order = np.argsort(-np.asarray(lengths, dtype=np.int64), kind="stable")
    batches, start = [], 0
    while start < len(order):
        longest = int(lengths[order[start]])
        count = min(max_molecules, max(1, max_pairs // (longest * longest)))
        batches.append(order[start : start + count])
        start += count
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
