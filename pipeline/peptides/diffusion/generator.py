"""A trained generator of peptides, and the folder that keeps it: JSON and safetensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pipeline.generation.diffusion.generator import Generator
from pipeline.generation.settings import DiffusionSettings
from pipeline.peptides.diffusion.network import PeptideModel
from pipeline.peptides.settings import PeptideGeneratorSettings


@dataclass(frozen=True)
class PeptideGenerator(Generator):
    """What draws peptides of some classes.

    Attributes
    ----------
    lengths : by class, how many training peptides have each number of residues (as text).
    structure_columns : of a residue's structure; 0 for a model without structures.
    latents : what made the latents, for reports.
    """

    KIND: ClassVar[type[DiffusionSettings]] = PeptideGeneratorSettings
    JOB: ClassVar[str] = "jobs.generate_peptides"

    lengths: Mapping[str, Mapping[str, int]]
    structure_columns: int
    latents: str

    def network(self) -> PeptideModel:
        """The denoiser and the decoder, in evaluation mode, on the CPU."""
        made = PeptideModel(
            self.scaling.width, len(self.classes), self.structure_columns, self.settings
        )
        made.load_state_dict(dict(self.tensors))
        return made.eval()

    def lengths_of(self, name: str, count: int, rng: np.random.Generator) -> np.ndarray:
        """Lengths (count,) of peptides of a class, drawn as often as its training peptides'."""
        known = {int(length): often for length, often in self.lengths[name].items()}
        often = np.array(list(known.values()), float)
        return rng.choice(np.array(list(known)), size=count, p=often / often.sum())


def length_counts(lengths: np.ndarray) -> dict[str, int]:
    """How many peptides have each length, as a generator keeps it."""
    values, counts = np.unique(lengths, return_counts=True)
    return {str(value): int(count) for value, count in zip(values, counts)}
