"""The trunk: what enters the first trained layer, kept or computed when it is asked for.

Three kinds of rows, one interface (`Rows`): a set of molecules that training batches are cut
from, and that turns some of them into the two tensors which `top.Top`
takes. Shapes are named as in `pipeline.encoders.unimol.model`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from pipeline.encoders.unimol.batching import pad_batch
from pipeline.encoders.unimol.engine.forward import Engine, on
from pipeline.encoders.unimol.tokens import TokenizedMolecule


class TrunkRow(NamedTuple):
    """One molecule's activations: x (N, D) float32, pair (H, N, N) float32 or bfloat16."""

    x: Tensor
    pair: Tensor


class Rows(Protocol):
    """Molecules that can be cut into batches."""

    lengths: np.ndarray  # tokens of each

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Tensor | slice) -> Rows:
        """Some of the molecules, in the order asked for."""
        ...

    def padded(self, rows: np.ndarray, device: torch.device) -> tuple[Tensor, Tensor]:
        """What the top takes, of some molecules, padded to the longest of them."""
        ...


class StoredRows:
    """Activations that are in memory."""

    def __init__(self, rows: Sequence[TrunkRow]):
        self.rows = rows
        self.lengths = np.array([len(row.x) for row in rows], dtype=np.int64)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: Tensor | slice) -> StoredRows:
        """See `Rows`."""
        return StoredRows(_some(self.rows, rows))

    def padded(self, rows: np.ndarray, device: torch.device) -> tuple[Tensor, Tensor]:
        """x (B, N, D) and pair (B, H, N, N) in float32; −inf at padded keys."""
        longest = int(self.lengths[rows].max())
        heads, width = len(self.rows[rows[0]].pair), self.rows[rows[0]].x.shape[1]
        pinned = device.type == "cuda"
        x_BND = torch.zeros((len(rows), longest, width), pin_memory=pinned)
        pair_BHNN = torch.zeros(
            (len(rows), heads, longest, longest),
            dtype=self.rows[rows[0]].pair.dtype, pin_memory=pinned,
        )  # fmt: skip
        for place, row in enumerate(rows):
            n = self.lengths[row]
            x_BND[place, :n] = self.rows[row].x
            pair_BHNN[place, :, :n, :n] = self.rows[row].pair
            pair_BHNN[place, :, :, n:] = float("-inf")
        return (
            x_BND.to(device, non_blocking=True),
            pair_BHNN.to(device, non_blocking=True).float(),
        )


class TokenRows:
    """Tokens and coordinates, for an encoder whose embeddings are trained too."""

    def __init__(self, molecules: Sequence[TokenizedMolecule], pad: int):
        self.molecules, self.pad = molecules, pad
        self.lengths = np.array([len(m.tokens) for m in molecules], dtype=np.int64)

    def __len__(self) -> int:
        return len(self.molecules)

    def __getitem__(self, rows: Tensor | slice) -> TokenRows:
        """See `Rows`."""
        return TokenRows(_some(self.molecules, rows), self.pad)

    def padded(self, rows: np.ndarray, device: torch.device) -> tuple[Tensor, Tensor]:
        """Tokens (B, N) and coords (B, N, 3)."""
        tokens_BN, coords_BN3 = pad_batch([self.molecules[row] for row in rows], self.pad)
        return tokens_BN.to(device), coords_BN3.to(device)


class ComputedRows(TokenRows):
    """Activations that the engine computes each time they are asked for."""

    def __init__(self, molecules: Sequence[TokenizedMolecule], pad: int, engine: Engine, cut: int):
        super().__init__(molecules, pad)
        self.engine, self.cut = engine, cut

    def __getitem__(self, rows: Tensor | slice) -> ComputedRows:
        """See `Rows`."""
        return ComputedRows(_some(self.molecules, rows), self.pad, self.engine, self.cut)

    def padded(self, rows: np.ndarray, device: torch.device) -> tuple[Tensor, Tensor]:
        """x (B, N, D) and pair (B, H, N, N) in float32; −inf at padded keys."""
        with on(device):
            x_BND, pair_BHNN = self.engine.trunk(*super().padded(rows, device), self.cut)
        return x_BND, pair_BHNN.float()


def _some(items: Sequence, rows: Tensor | slice) -> list:
    return list(items[rows]) if isinstance(rows, slice) else [items[i] for i in rows.tolist()]
