"""A trained generator, and the folder that keeps it: JSON and safetensors, nothing pickled."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import ClassVar, Self

import safetensors.torch
from torch import Tensor, nn

from pipeline.detectors.kept import array_bytes, member, read_arrays
from pipeline.generation.diffusion.denoiser import Denoiser
from pipeline.generation.diffusion.scaling import Scaling
from pipeline.generation.settings import DiffusionSettings, GeneratorSettings
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import write_atomically
from pipeline.store.checkpoint_folder import read_member, told_as_one_line

CONFIG, WEIGHTS, SCALING = "generator.json", "generator.safetensors", "scaling.safetensors"


@dataclass(frozen=True)
class Generator:
    """What draws features of some classes.

    Attributes
    ----------
    KIND, JOB : class of the settings, and what makes such generators.
    classes : their names; a class's number is its place here.
    tensors : of the network, on the CPU.
    """

    KIND: ClassVar[type[DiffusionSettings]] = GeneratorSettings
    JOB: ClassVar[str] = "jobs.generate"

    settings: DiffusionSettings
    classes: tuple[str, ...]
    scaling: Scaling
    tensors: Mapping[str, Tensor]

    def network(self) -> nn.Module:
        """The network, in evaluation mode, on the CPU."""
        settings = self.settings
        made = Denoiser(self.scaling.width, len(self.classes), settings.width, settings.blocks)
        made.load_state_dict(dict(self.tensors))
        return made.eval()

    def write(self, folder: str) -> None:
        """Write the folder, at a path or URI; generator.json comes last and completes it."""
        tensors = {name: tensor.contiguous() for name, tensor in self.tensors.items()}
        config = {"classes": list(self.classes), "settings": asdict(self.settings)}
        config |= {name: getattr(self, name) for name in self._more()}
        write_atomically(f"{folder}/{WEIGHTS}", safetensors.torch.save(tensors))
        write_atomically(f"{folder}/{SCALING}", array_bytes(self.scaling.save()))
        write_atomically(f"{folder}/{CONFIG}", json.dumps(config, indent=2).encode())

    @classmethod
    def read(cls, folder: str) -> Self:
        """What `write` wrote. InputError if the folder or a file is missing or something else."""
        with told_as_one_line("generator", folder, cls.JOB):
            files = {name: read_member(folder, name) for name in (CONFIG, WEIGHTS, SCALING)}
            config = json.loads(member(files, CONFIG))
            known = {f.name for f in fields(cls.KIND)}
            unknown = set(config["settings"]) - known
            if unknown:
                raise InputError(f"{folder}: made by another version (settings {sorted(unknown)})")
            return cls(
                cls.KIND(**config["settings"]),
                tuple(config["classes"]),
                Scaling.load(read_arrays(files[SCALING])),
                safetensors.torch.load(files[WEIGHTS]),
                **{name: config[name] for name in cls._more()},
            )

    @classmethod
    def _more(cls) -> list[str]:
        """Attributes that one of a kind has beside these, JSON-ready."""
        own = {f.name for f in fields(Generator)}
        return [f.name for f in fields(cls) if f.name not in own]
