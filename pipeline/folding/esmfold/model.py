"""ESMFold on one device: sequences of any mix of lengths in, backbones and pLDDT out.

transformers' EsmForProteinFolding does the folding (Lin et al., Science 379, 2023). Shapes: B
sequences, N residues of the longest.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from pipeline.encoders.esm.weights import EsmWeights
from pipeline.encoders.unimol.batching import Budget, batches_that_fit, plan_batches
from pipeline.encoders.unimol.precision import PRECISIONS, autocast, default_precision
from pipeline.folding.esmfold.weights import load_model
from pipeline.runtime.errors import OUT_OF_MEMORY, RowRejected

log = logging.getLogger(__name__)

NOT_FINITE = "ESMFold's structure is not finite"
LETTERS = "ARNDCQEGHILKMFPSTWYV"  # AlphaFold's order; what is none of them is X, the next
CA = 1  # of the 37 atoms for which the model tells pLDDT, and of the 14 for which coordinates
# Memory of one padded pair at a block's peak, for each channel of the pair state: a dozen tensors
# in float32 and the transition's four times as wide.
BYTES_PER_PAIR_CHANNEL = 96
GPU_MEMORY_SHARE = 0.8
CPU_PAIRS = 256 * 256
MOST_SEQUENCES = 256
# Padded residues below which a batch may hold any lengths.
CPU_ENOUGH, GPU_ENOUGH = 64, 1024
# Triangle attention's weights that are there at once, of one head.
CPU_ATTENTION, GPU_ATTENTION = 2**22, 2**27


class Folded(NamedTuple):
    """A structure of n residues.

    Attributes
    ----------
    backbone : (n, 3, 3) float32, N, Cα and C in Å. Of a residue that the model does not know (X) N
        and C are NaN.
    plddt : (n,) float32 of Cα, from 0 to 1.
    """

    backbone: np.ndarray
    plddt: np.ndarray


def folding_precision(device: str, precision: str) -> str:
    """The precision that a setting means on a device: auto is bf16 where that is faster."""
    if precision == "auto":
        return "bf16" if default_precision(device) == "bf16" else "fp32"
    return precision


class EsmFold:
    """ESMFold on one device.

    Parameters
    ----------
    weights : of `resolve_weights`.
    device : "cpu" or "cuda".
    precision : "fp32" or "bf16", that of the language model and of the trunk's matrix products; the
        structure module and the pLDDT head compute in float32: a coordinate of 100 Å is off by
        0.25 Å in bf16.
    recycles : times that the trunk's result goes into it again; None for the model's own.
    pairs : padded residues squared that a batch may have; None takes it from the device's free
        memory. It halves when the device runs out of memory.
    memory_share : part of the device's free memory that this may take.
    """

    def __init__(
        self,
        weights: EsmWeights,
        device: str = "cpu",
        precision: str = "fp32",
        recycles: int | None = None,
        pairs: int | None = None,
        memory_share: float = 1.0,
    ):
        self.device, self.dtype = torch.device(device), PRECISIONS[precision]
        self.recycles = recycles
        model = load_model(weights)
        for parameter in model.esm.parameters():  # 3 billion take most of the memory
            parameter.data = parameter.data.to(self.dtype)  # buffers stay: rotary frequencies
        for module in (model.trunk.structure_module, model.lddt_head):
            module.forward = _in_float32(module.forward, self.device.type)
        self.model = model.to(self.device)
        on_gpu = self.device.type == "cuda"
        self.attention = GPU_ATTENTION if on_gpu else CPU_ATTENTION
        pairs = pairs or (self._pairs_that_fit(memory_share) if on_gpu else CPU_PAIRS)
        enough = GPU_ENOUGH if on_gpu else CPU_ENOUGH
        self.budget = Budget(MOST_SEQUENCES, pairs, pairs, enough)

    def _pairs_that_fit(self, memory_share: float) -> int:
        free_bytes, _ = torch.cuda.mem_get_info(self.device)
        channels = self.model.config.esmfold_config.trunk.pairwise_state_dim
        of_one = BYTES_PER_PAIR_CHANNEL * channels
        return int(GPU_MEMORY_SHARE * memory_share * free_bytes / of_one)

    def fold(
        self, sequences: Sequence[str]
    ) -> Iterator[tuple[np.ndarray, list[Folded | RowRejected]]]:
        """Positions of each batch's sequences, and their structures; the longest come first.

        A structure does not depend on the others of its batch but for rounding. A sequence that
        the device cannot hold alone, or whose structure is not finite, is rejected.
        """
        return batches_that_fit(
            [len(sequence) for sequence in sequences],
            lambda lengths: plan_batches(lengths, self.budget),
            lambda rows: self._run([sequences[row] for row in rows]),
            self._halve,
        )

    def _run(self, sequences: list[str]) -> list[Folded | RowRejected]:
        try:
            return self._folded(sequences)
        except RuntimeError as error:
            if len(sequences) > 1 or not any(words in str(error) for words in OUT_OF_MEMORY):
                raise
        self._free()
        return [RowRejected(f"too long for the memory of {self.device}: {len(sequences[0]):,}")]

    def _folded(self, sequences: list[str]) -> list[Folded | RowRejected]:
        lengths = [len(sequence) for sequence in sequences]
        aatype_BN, mask_BN = _tokens(sequences)
        chunk = max(1, self.attention // max(lengths) ** 2)  # rows of the pair state at once
        self.model.trunk.set_chunk_size(chunk)
        with torch.inference_mode(), autocast(self.device, self.dtype):
            output = self.model(
                aatype_BN.to(self.device), mask_BN.to(self.device), num_recycles=self.recycles
            )
        backbone_BN33 = output.positions[-1][:, :, :3].float()
        known_BN3 = output.atom14_atom_exists[:, :, :3] > 0
        backbone_BN33 = backbone_BN33.masked_fill(~known_BN3[..., None], torch.nan)
        backbone_BN33[:, :, CA] = output.frames[-1][..., 4:]  # of X too: where its frame stands
        # Not the output's own, which autocast makes bfloat16.
        plddt_BN = _plddt(output.lddt_head[-1][:, :, CA].float())
        backbones, plddts = backbone_BN33.cpu().numpy(), plddt_BN.cpu().numpy()
        return [
            _checked(Folded(backbone[:n], plddt[:n]))
            for backbone, plddt, n in zip(backbones, plddts, lengths)
        ]

    def _halve(self, sequences: int, longest: int) -> None:
        self.budget = self.budget.halved(sequences, longest)
        self._free()
        log.warning(
            "%s ran out of memory on %s sequences of up to %s residues; going on with at most %s "
            "pairs of residues in a batch",
            self.device, sequences, longest, f"{self.budget.pairs:,}",
        )  # fmt: skip

    def _free(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def _plddt(logits: torch.Tensor) -> torch.Tensor:
    """Mean of the bins of pLDDT, from 0 to 1: (..., bins) to (...)."""
    bins = logits.shape[-1]
    centres = (torch.arange(bins, device=logits.device) + 0.5) / bins
    return logits.softmax(-1) @ centres


def _checked(folded: Folded) -> Folded | RowRejected:
    if np.isfinite(folded.backbone[:, CA]).all() and np.isfinite(folded.plddt).all():
        return folded
    return RowRejected(NOT_FINITE)


def _tokens(sequences: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """Residue types (B, N) and whether there is a residue (B, N), both int64."""
    types = np.zeros((len(sequences), max(map(len, sequences))), dtype=np.int64)
    mask = np.zeros_like(types)
    number = {letter: i for i, letter in enumerate(LETTERS)}
    for row, sequence in enumerate(sequences):
        types[row, : len(sequence)] = [number.get(letter, len(LETTERS)) for letter in sequence]
        mask[row, : len(sequence)] = 1
    return torch.from_numpy(types), torch.from_numpy(mask)


def _in_float32(forward: Callable[..., Any], device: str) -> Callable[..., Any]:
    """A module's forward without autocast, whatever precision enters it."""

    def as_float32(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: as_float32(each) for name, each in value.items()}
        is_lower = isinstance(value, torch.Tensor) and value.is_floating_point()
        return value.float() if is_lower else value

    def run(*arguments: Any) -> Any:
        with torch.autocast(device, enabled=False):
            return forward(*map(as_float32, arguments))

    return run
