"""What an encoder's settings mean on this cluster: found out once, at the door of a run.

`plan_encoding` decides it; all below takes the plan, or what it needs of it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

import ray
import ray.data

from pipeline.conformers.conformer import NVMOLKIT
from pipeline.encoders import checkpoint_of, encoder_class
from pipeline.encoders.settings import EncoderSettings
from pipeline.encoding.in_store.tables import Tables, TrunkSpec
from pipeline.encoding.settings import EncodedSourceSettings
from pipeline.molecules.folders import kind_of_source
from pipeline.molecules.formats import check_files, read_rows
from pipeline.molecules.kinds import SEQUENCE
from pipeline.molecules.settings import LibrarySettings
from pipeline.molecules.sources import Molecules, parse_rows
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import absolute, portable
from pipeline.runtime.nodes.cluster import device_of, resources, start_ray

if TYPE_CHECKING:
    from pipeline.encoders.unimol.batching import Budget  # would import torch

E = TypeVar("E", bound=EncoderSettings)
S = TypeVar("S", bound=EncodedSourceSettings)

CPU_BATCH, GPU_BATCH = 128, 4096
# What an encoder on a CPU may take: weights and one batch; or the file that it loads, twice.
CPU_ENCODER_BYTES = 2 * 1024**3


class EncoderPool(NamedTuple):
    """Encoder actors to start: their number, device, and what each one reserves.

    `budget` is what a forward pass may hold where jobs.tune chose that; None leaves it to the
    encoder. `now` of the actors have room on the cluster as it is.
    """

    actors: int
    device: str
    cpus: float
    gpus: float
    batch_size: int
    budget: Budget | None = None
    now: int | None = None

    def strategy(self, most: int | None = None) -> ray.data.ActorPoolStrategy:
        """Ray Data's pool: all actors, or more and more of them where the cluster must grow first.

        Parameters
        ----------
        most : actors that there is work for.
        """
        actors = self.actors if most is None else min(self.actors, most)
        start = actors if self.now is None else max(1, min(self.now, actors))
        return ray.data.ActorPoolStrategy(min_size=start, max_size=actors)


@dataclass(frozen=True)
class EncodingPlan(Generic[E]):
    """What is decided of an encoder before anything is computed.

    Attributes
    ----------
    settings : the precision decided.
    device : "cpu" or "cuda"; that of the encoder, and of what is trained.
    weights : `settings.weights` so that every process finds them.
    tables : the store's, under keys made of all that decides their rows.
    """

    settings: E
    device: str
    weights: str | None
    tables: Tables

    def with_trunk(self, spec: TrunkSpec | None) -> EncodingPlan[E]:
        """The plan that also keeps these activations."""
        return replace(self, tables=self.tables.with_trunk(spec))

    def with_residues(self, precision: str | None) -> EncodingPlan[E]:
        """The plan that also keeps residues' features; see `Tables.with_residues`."""
        return replace(self, tables=self.tables.with_residues(precision))

    def reusing(self) -> EncodingPlan[E]:
        """The plan that takes what the store has, rejections too, whatever the settings say."""
        reuse = replace(self.settings, force_recompute_cache=False, retry_rejected=False)
        return replace(self, settings=reuse)

    def finetuned_by(self, checkpoint: str) -> EncodingPlan[E]:
        """The plan for the encoder that a checkpoint's finetuning made of this one."""
        settings = replace(self.settings, finetuned=absolute(checkpoint))
        return replace(self, settings=settings, tables=Tables.of(settings))


def open_run(settings: S, notes: Sequence[str] = ()) -> tuple[EncodingPlan[S], Molecules]:
    """The door of a run: what its settings mean here, and the molecules of its data file.

    Call `check_inputs` before; what it tells, and faults of columns, are told without Ray.

    Parameters
    ----------
    notes : of `check_inputs`, for the run's summary.

    Raises
    ------
    InputError
        That names the flag or the file to mend.
    """
    rows = read_rows(settings)
    plan = plan_encoding(settings)
    return plan, replace(parse_rows(rows, settings), notes=notes)


def check_structures(structures: str, tables: Tables) -> None:
    """InputError if --structures file is asked of an encoder that takes no such structures."""
    name = tables.identity["encoder"]
    if structures == "file" and tables.conformers is None:
        raise InputError(f"--structures file: {name} takes no 3D structures; leave it out")
    if structures == "file" and not encoder_class(name).takes_given_structures:
        raise InputError(
            f"--structures file: {name} reads the bonds of the canonical SMILES too, whose atoms "
            "stand in another order than the file's; leave it out"
        )


def check_kind(settings: LibrarySettings, encoders: Sequence[str]) -> None:
    """InputError if a source's molecules are not of the kind that every encoder takes."""
    kind, source = kind_of_source(settings), settings.data_file
    for name in encoders:
        if encoder_class(name).takes == kind.name:
            continue
        if kind is SEQUENCE:
            mend = f"leave {name} out" if len(encoders) > 1 else "take --foundation_model esm"
            raise InputError(f"{source} holds sequences, and {name} takes SMILES; {mend}")
        raise InputError(
            f"{source} holds SMILES, and {name} takes sequences: a FASTA file, or a table whose "
            "column of sequences --sequence_column names; or take another --foundation_model"
        )


def check_inputs(settings: EncodedSourceSettings) -> list[str]:
    """Tell a missing file, bad weights or a folder that cannot be before any work is done.

    Returns
    -------
    list
        What reading the data file has to guess, in words.

    Raises
    ------
    InputError
        That names the flag to mend.
    """
    notes = check_files(settings)
    check_kind(settings, [settings.foundation_model])
    check_structures(settings.structures, Tables.of(settings))
    return notes


def plan_encoding(settings: E) -> EncodingPlan[E]:
    """Join or start the cluster, and decide what the settings leave open.

    Raises
    ------
    InputError
        If the cluster has not what they ask for, the encoder is not installed, or its weights
        cannot be had or do not fit.
    """
    if settings.finetuned:
        settings = replace(settings, finetuned=absolute(settings.finetuned))
    start_ray()
    device = device_of(settings.device)
    if settings.precision == "auto" and encoder_class(settings.foundation_model).uses_torch:
        from pipeline.encoders.unimol.precision import default_precision  # torch is slow to import

        settings = replace(settings, precision=default_precision(device))
    tables = Tables.of(settings)
    return EncodingPlan(settings, device, _weights_everywhere(settings), tables)


def _weights_everywhere(settings: EncoderSettings) -> str | None:
    """`--weights` so that every process finds them: of a folder, what is meant in it."""
    if settings.weights and os.path.isdir(os.path.expanduser(settings.weights)):
        path = _checkpoint(settings)
        return settings.weights if path is None else str(path)
    return portable(settings.weights)


def _checkpoint(settings: EncoderSettings) -> Path | None:
    return checkpoint_of(settings.foundation_model, settings.weights, settings.model_size)


def encoder_pool(settings: EncoderSettings, device: str) -> EncoderPool:
    """One actor a GPU; or one a CPU core as memory allows, single-threaded, reserving no core.

    Conformers take most of the CPU time, so a core held by an encoder would idle while it
    waits for them; without a reservation the operating system shares the cores between both.
    Encoders that do without torch get CPU cores, whatever the device.
    """
    if settings.conformer_method == NVMOLKIT and device != "cuda":
        raise InputError(
            "--conformer_method nvmolkit needs a GPU, and the Ray cluster has none (or --device "
            "cpu was given); use etkdg+mmff"
        )
    if device == "cuda" and encoder_class(settings.foundation_model).uses_torch:
        most = resources()["GPU"]
        actors = settings.encoder_workers or int(most)
        gpus = min(1.0, most / actors)
        now = int(ray.cluster_resources().get("GPU", 0) / gpus)
        if settings.conformer_method == NVMOLKIT:
            gpus /= 2  # the other half is its conformers'
        size = settings.encoding_batch_size or GPU_BATCH
        return EncoderPool(actors, device, 0, gpus, size, now=now)
    size = settings.encoding_batch_size or CPU_BATCH
    actors, now = (
        settings.encoder_workers or max(1, int(min(has.get("CPU", 1), _room(has, settings))))
        for has in (resources(), ray.cluster_resources())
    )
    return EncoderPool(actors, "cpu", 0, 0, size, now=now)


def _room(has: dict[str, float], settings: EncoderSettings) -> float:
    """Encoders that some nodes' memory holds."""
    checkpoint = _checkpoint(settings)
    file_bytes = 0 if checkpoint is None else _bytes(checkpoint)
    return has.get("memory", 0) / max(CPU_ENCODER_BYTES, 2 * file_bytes)


def _bytes(checkpoint: Path) -> int:
    """Of a file, or of the files in a folder that hold the tensors."""
    if checkpoint.is_file():
        return checkpoint.stat().st_size
    from pipeline.encoders.esm.weights import weight_files  # only here: torch comes with it

    files = weight_files(checkpoint)
    return sum(file.stat().st_size for file in files)
