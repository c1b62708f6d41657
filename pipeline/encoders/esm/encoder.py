"""The ESM-2 encoder: sequences of any mix of lengths in, one feature a sequence out.

Drivers ask this module for `EsmEncoder.identity` alone: torch and transformers are imported where
an encoder is made.
"""

from __future__ import annotations

import importlib.util
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.encoders.base import TokenCounts, refuse_finetuned
from pipeline.encoders.esm.tokens import PAD, token_ids
from pipeline.encoders.esm.weights import resolve_weights
from pipeline.molecules.sequences import canonical_sequence
from pipeline.runtime.errors import InputError, RowRejected

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from transformers import EsmConfig

    from pipeline.encoders.unimol.batching import Budget

PACKAGE = "transformers"
if importlib.util.find_spec(PACKAGE) is None:  # without it, the import of this module fails
    raise ModuleNotFoundError(f"No module named {PACKAGE!r}", name=PACKAGE)

CODE_VERSION = 1  # raise it when the same input would give other features
POOLING = "mean over residues"
# On a CPU a batch shall stay near the caches; more sequences at once gain nothing.
CPU_TOKENS, CPU_PAIRS, CPU_ENOUGH = 4_096, 1 << 20, 512


class EsmEncoder:
    """ESM-2 by transformers' own model, on one device.

    A sequence's feature is the mean of its residues' last hidden states. It does not depend on
    those that it shares a batch with, but for rounding.

    Parameters
    ----------
    weights, model_size : see `pipeline.encoders.esm.weights.resolve_weights`.
    device : "cpu", "cuda", "cuda:1", ..., or "auto" for a GPU if there is one.
    precision : dtype of the matrix products: fp32, bf16, fp16, or "auto" (see
        `default_precision`); norms and what runs from layer to layer are float32.
    encoding_batch_size : upper bound on sequences in one forward pass.
    budget : what one forward pass may hold; None takes it from the device's free memory.
        It halves when the device runs out of memory.
    memory_share : part of the device's free memory that this encoder may take.
    token_order, finetuned : must be "auto" and None.
    """

    name = "esm"
    takes = "sequence"
    needs_conformers = False
    takes_given_structures = False
    uses_torch = True
    graph = None

    @staticmethod
    def core_seconds(weights: str | None) -> float:
        """Not measured: lengths differ too much."""
        return math.inf

    def __init__(
        self,
        weights: str | None = None,
        model_size: str | None = None,
        device: str = "auto",
        precision: str = "auto",
        encoding_batch_size: int = 256,
        budget: Budget | None = None,
        memory_share: float = 1.0,
        token_order: str = "auto",
        finetuned: str | None = None,
    ):
        from pipeline.encoders.esm.model import load_model
        from pipeline.encoders.unimol.precision import settled

        _refuse_unused(token_order, finetuned)
        self.device, self.dtype = settled(device, precision)
        self.model = load_model(resolve_weights(weights, model_size)).to(self.device)
        config = self.model.config
        self.dim = config.hidden_size
        self.budget = budget or _budget_for(
            self.device, encoding_batch_size, config, self.dtype, memory_share
        )
        self._counts = TokenCounts()

    @staticmethod
    def identity(
        weights: str | None = None,
        model_size: str | None = None,
        precision: str = "auto",
        token_order: str = "auto",
        finetuned: str | None = None,
        **_: Any,
    ) -> dict[str, Any]:
        """Everything that decides the features besides the sequence, JSON-ready.

        Raises
        ------
        InputError
            If the weights cannot be had or do not fit, or a setting is of no use to ESM-2.
        """
        _refuse_unused(token_order, finetuned)
        resolved = resolve_weights(weights, model_size)
        return {
            "encoder": EsmEncoder.name,
            "code_version": CODE_VERSION,
            "weights": resolved.label,
            "weights_sha256": resolved.sha256,
            "config_sha256": resolved.config_sha256,
            "pooling": POOLING,
            "precision": precision,
            PACKAGE: metadata.version(PACKAGE),
        }

    def encode_sequences(self, sequences: Sequence[str]) -> np.ndarray:
        """Features of sequences of any length, each in its canonical form.

        Letters are those that ESM-2 has tokens for: the 20 amino acids and X, U, B, Z, O. It was
        trained on sequences of at most 1,022 residues.

        Returns
        -------
        (n, dim) float32 array in the order given.

        Raises
        ------
        pipeline.runtime.errors.RowRejected
            As `canonical_sequence`, which says what a sequence is.
        """
        return self.encode_prepared([self._tokens(text) for text in sequences])

    def encode_residues(self, sequences: Sequence[str]) -> list[np.ndarray]:
        """Each residue's feature: (residues, dim) float32 of every sequence, in order.

        Sequences and errors as of `encode_sequences`.
        """
        return self.encode_with_residues([self._tokens(text) for text in sequences])[1]

    def encode_smiles(self, smiles: Sequence[str]) -> np.ndarray:
        """InputError: ESM-2 knows no SMILES."""
        raise InputError("esm takes sequences of amino acids, not SMILES: use encode_sequences")

    @staticmethod
    def _tokens(text: str) -> np.ndarray:
        return token_ids(
            canonical_sequence(text, residues="extended", min_length=1, max_length=sys.maxsize)
        )

    def prepare(self, row: Mapping[str, Any]) -> np.ndarray:
        """A row's sequence, which is its `smiles`, as ids of tokens (residues + 2,) int64.

        Raises
        ------
        pipeline.runtime.errors.RowRejected
            If ESM-2 has no token for a letter.
        """
        try:
            return token_ids(row["smiles"])
        except ValueError as error:
            raise RowRejected(str(error)) from None

    def encode_prepared(self, sequences: Sequence[np.ndarray]) -> np.ndarray:
        """Features (n, dim) float32 of what `prepare` returned, batched by length, in order.

        Where the device runs out of memory, the budget halves and the same sequences are tried
        again.

        Raises
        ------
        MemoryError
            If the device cannot hold even one of the sequences.
        """
        from pipeline.encoders.unimol.precision import autocast

        features = np.empty((len(sequences), self.dim), dtype=np.float32)
        # Around all batches, so that weights are cast once.
        with autocast(self.device, self.dtype):
            outputs = list(self._batched(sequences, keep=False))
        # Only once all is under way does a GPU have to be waited for.
        for rows, (mean_BD, _) in outputs:
            features[rows] = mean_BD.cpu().numpy()
        return features

    def encode_with_residues(
        self, sequences: Sequence[np.ndarray]
    ) -> tuple[np.ndarray, list[np.ndarray]]:
        """Features as `encode_prepared`, and each residue's (residues, dim) float32."""
        from pipeline.encoders.unimol.precision import autocast

        features = np.empty((len(sequences), self.dim), dtype=np.float32)
        residues: list[np.ndarray] = [np.empty(0)] * len(sequences)
        with autocast(self.device, self.dtype):
            for rows, (mean_BD, hidden_BND) in self._batched(sequences, keep=True):
                features[rows] = mean_BD.cpu().numpy()
                for row, hidden_ND in zip(rows, hidden_BND.cpu().numpy()):
                    residues[row] = hidden_ND[1 : len(sequences[row]) - 1].copy()
        return features, residues

    def take_token_counts(self) -> tuple[int, int]:
        """Tokens computed, padding included, and padding alone, since this was last asked."""
        return self._counts.take()

    def _batched(
        self, sequences: Sequence[np.ndarray], keep: bool
    ) -> Iterator[tuple[np.ndarray, tuple[Tensor, Tensor | None]]]:
        """Rows of each batch, their features, and if kept their hidden states, on the device."""
        from pipeline.encoders.unimol.batching import batches_that_fit, plan_batches

        return batches_that_fit(
            [len(tokens) for tokens in sequences],
            lambda lengths: plan_batches(lengths, self.budget),
            lambda rows: self._run([sequences[row] for row in rows], keep),
            self._halve_budget,
        )

    def _run(self, sequences: Sequence[np.ndarray], keep: bool) -> tuple[Tensor, Tensor | None]:
        """One batch; a GPU may still be computing it."""
        import torch

        from pipeline.encoders.esm.model import mean_over_residues

        parts = padded(sequences, pinned=self.device.type == "cuda")
        tokens_BN, lengths_B = (part.to(self.device, non_blocking=True) for part in parts)
        padding = tokens_BN.numel() - sum(map(len, sequences))
        mask_BN = tokens_BN.ne(PAD).long() if padding else None
        with torch.no_grad():
            hidden_BND = self.model(tokens_BN, attention_mask=mask_BN).last_hidden_state.float()
            mean_BD = mean_over_residues(hidden_BND, lengths_B)
        self._counts.add(tokens_BN.numel(), padding)
        return mean_BD, hidden_BND if keep else None

    def _halve_budget(self, molecules: int, longest: int) -> None:
        from pipeline.encoders.unimol.batching import half_of

        self.budget = half_of(self.budget, self.device, molecules, longest)


def padded(sequences: Sequence[np.ndarray], pinned: bool = False) -> tuple[Tensor, Tensor]:
    """Tokens (B, N) int64, padded at the end, and how many each sequence has (B,) int64."""
    import torch

    lengths_B = np.array([len(tokens) for tokens in sequences], dtype=np.int64)
    tokens_BN = np.full((len(sequences), lengths_B.max()), PAD, dtype=np.int64)
    for row, tokens in zip(tokens_BN, sequences):
        row[: len(tokens)] = tokens
    parts = torch.from_numpy(tokens_BN), torch.from_numpy(lengths_B)
    return tuple(part.pin_memory() for part in parts) if pinned else parts


def _refuse_unused(token_order: str, finetuned: str | None) -> None:
    refuse_finetuned(EsmEncoder.name, finetuned)
    if token_order != "auto":
        raise InputError("--token_order: ESM-2's tokens have one order; leave it out")


def _budget_for(
    device: torch.device, molecules: int, config: EsmConfig, dtype: torch.dtype, share: float
) -> Budget:
    """The budget of a device: on a GPU from its free memory."""
    from pipeline.encoders.unimol.batching import Budget, Sizes, budget_for

    if device.type != "cuda":
        return Budget(molecules, CPU_TOKENS, CPU_PAIRS, CPU_ENOUGH)
    sizes = Sizes(config.hidden_size, config.intermediate_size, config.num_attention_heads)
    return budget_for(device, molecules, sizes, dtype, share)
