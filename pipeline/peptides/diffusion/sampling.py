"""Peptides of a generator: drawn in shards of about one length, on all devices of the cluster.

A shard's noise depends on the seed and its number alone, see `pipeline.generation.diffusion`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pipeline.encoders.unimol.precision import autocast
from pipeline.generation.diffusion.draws import Noising
from pipeline.generation.diffusion.noise import scheduler_of
from pipeline.generation.diffusion.sampling import ShardSampler, on_all_devices
from pipeline.peptides.diffusion.decoder import decoded
from pipeline.peptides.diffusion.generator import PeptideGenerator
from pipeline.peptides.diffusion.residues import padded_length, parts_of

SHARD_RESIDUES = {"cpu": 4096, "cuda": 131072}


class PeptideShard(NamedTuple):
    """Peptides that share their noise.

    Attributes
    ----------
    seed : of the noise: the seeds given, and the shard's number.
    classes, lengths : (n,) int64.
    """

    seed: tuple[int, ...]
    classes: np.ndarray
    lengths: np.ndarray


class Drawn(NamedTuple):
    """Peptides that were drawn, and the mean probability of their residues (n,)."""

    sequences: list[str]
    confidence: np.ndarray


class PeptideSampler(ShardSampler):
    """A generator's model on one device."""

    def _drawn(self, shard: PeptideShard, noise: torch.Generator) -> Drawn:
        latents_BNC, real_BN = self.latents(shard, noise)
        with autocast(self.device, self.dtype):
            found = decoded(self.network.decoder, latents_BNC, real_BN)
        return Drawn(found.sequences, found.confidence.numpy())

    def latents(self, shard: PeptideShard, noise: torch.Generator) -> tuple[Tensor, Tensor]:
        """Scaled latents (B, N, C) float32, and which places are residues."""
        settings = self.generator.settings
        noising, scheduler = Noising(settings), scheduler_of(settings)
        classes_B = torch.from_numpy(shard.classes).to(self.device)
        length = padded_length(int(shard.lengths.max()))
        real_BN = torch.from_numpy(np.arange(length) < shard.lengths[:, None]).to(self.device)
        shape = (*real_BN.shape, self.generator.scaling.width)
        x_BNC = torch.randn(shape, generator=noise, device=self.device)
        guess_KBNC = torch.zeros((self.branches, *shape), device=self.device)
        for step in scheduler.timesteps:
            steps_B = torch.full_like(classes_B, int(step))
            told_KBNC = self._told(x_BNC, guess_KBNC, real_BN, steps_B, classes_B)
            if settings.self_conditioning > 0:  # each branch sees its own guess, as in training
                guess_KBNC = torch.stack([noising.clean(x_BNC, t, steps_B) for t in told_KBNC])
            guided_BNC = self._guided(told_KBNC)
            x_BNC = scheduler.step(guided_BNC, step, x_BNC, generator=noise, return_dict=False)[0]
        return x_BNC, real_BN

    def _told(
        self, x_BNC: Tensor, guess_KBNC: Tensor, real_BN: Tensor, steps_B: Tensor, classes_B: Tensor
    ) -> Tensor:
        """What the denoiser tells in each of its K branches: (K, B, N, C) float32."""

        def of(asked: Tensor) -> Tensor:
            x, real, steps = (
                torch.cat([part] * self.branches) for part in (x_BNC, real_BN, steps_B)
            )
            with autocast(self.device, self.dtype):
                return self.network.denoiser(x, guess_KBNC.flatten(0, 1), real, steps, asked)

        return self._branches(of, classes_B)


def draw_peptides(
    generator: PeptideGenerator, classes: np.ndarray, lengths: np.ndarray, seed: Sequence[int],
    device: str = "cpu", precision: str = "auto",
) -> Drawn:  # fmt: skip
    """Peptides of some classes and lengths, drawn on all devices that the cluster has.

    Parameters
    ----------
    classes, lengths : (n,) the number of each one's class, and its residues.
    seed : what the noise depends on, beside a shard's number.
    device : "cpu" or "cuda".
    """
    order = np.argsort(lengths, kind="stable")
    shards = [
        PeptideShard((*seed, number), classes[order[part]], lengths[order[part]])
        for number, part in enumerate(parts_of(lengths[order], SHARD_RESIDUES[device]))
    ]
    made = on_all_devices(PeptideSampler, generator, shards, device, precision)
    sequences, confidence = [""] * len(order), np.empty(len(order), np.float32)
    confidence[order] = np.concatenate([each.confidence for each in made])
    for place, sequence in zip(order, (text for each in made for text in each.sequences)):
        sequences[place] = sequence
    return Drawn(sequences, confidence)
