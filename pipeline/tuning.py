"""The batch sizes at which this machine's device encodes fastest, measured and remembered.

`tune` tries sizes on molecules like the user's and keeps the best beside the store's tables;
encoding finds it there (`tuned`) under the encoder, the weights and the precision.
"""

from __future__ import annotations

import json
import logging
import platform
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import ray

from pipeline import telemetry
from pipeline.cluster import EncoderPool, encoder_pool, settled
from pipeline.config import EncoderSettings, TuneSettings
from pipeline.encoders import load_encoder
from pipeline.encoders.unimol.batching import Budget
from pipeline.encoders.unimol.encoder import UniMolEncoder
from pipeline.errors import InputError
from pipeline.store import KeyedTable, write_atomically
from pipeline.tables import Tables

log = logging.getLogger(__name__)

# Padded tokens of a batch, and molecules that the batches are cut from, smallest first.
TOKENS = {"cpu": [2**n for n in range(7, 13)], "cuda": [2**n for n in range(11, 20)]}
WINDOWS = {"cpu": (64, 128, 256), "cuda": (1024, 4096, 16384)}
PAIRS_PER_TOKEN = 64  # room for batches of molecules up to this long
CLOSE_TO_BEST = 0.98  # among sizes this near to the best rate, the smallest is taken
FILE = "_best.json"


@dataclass(frozen=True)
class Trial:
    """One size that was tried.

    Attributes
    ----------
    encoding_batch_size : molecules that batches were cut from.
    tokens : padded tokens that a batch held at most.
    padding_share : share of padding in the tokens computed.
    memory_gb : peak, GiB; of the GPU's memory, or resident on a CPU.
    rate : molecules a second.
    """

    encoding_batch_size: int
    tokens: int
    padding_share: float
    memory_gb: float
    rate: float


def budget_of(tokens: int, molecules: int) -> Budget:
    """The budget that a size stands for."""
    return Budget(molecules, tokens, PAIRS_PER_TOKEN * tokens, tokens // 2)


def tune(molecules: pa.Table, settings: TuneSettings) -> tuple[list[Trial], Trial]:
    """Try sizes on one encoder of this cluster; keep the best where encoding finds it.

    Parameters
    ----------
    molecules : `smiles`, canonical; their sizes are what the trials run on.

    Returns
    -------
    All trials, and the one chosen.

    Raises
    ------
    InputError
        If the encoder has no sizes to tune, or not even the smallest fits the memory asked for.
    """
    if settings.foundation_model != UniMolEncoder.name:
        raise InputError(
            f"--foundation_model {settings.foundation_model}: only {UniMolEncoder.name} batches "
            "by size; there is nothing to tune"
        )
    settings = settled(settings)
    identity = Tables.of(settings).identity
    pool = encoder_pool(settings)
    remote = ray.remote(num_cpus=pool.cpus, num_gpus=pool.gpus, max_calls=1)(_trials)
    atoms = _atom_counts(molecules["smiles"].to_pylist())
    sizes = [(w, tokens) for tokens in TOKENS[pool.device] for w in WINDOWS[pool.device]]
    device, trials = ray.get(remote.remote(settings, pool, atoms, sizes))
    if not trials:
        raise InputError(
            f"--memory_gb {settings.memory_gb:g}: the smallest size takes more; allow more"
        )
    enough = CLOSE_TO_BEST * max(trial.rate for trial in trials)
    best = min(
        (trial for trial in trials if trial.rate >= enough),
        key=lambda trial: (trial.tokens, trial.encoding_batch_size),
    )
    content = {"device": device, "identity": identity, "best": asdict(best)}
    write_atomically(_place(settings, identity, pool.device), json.dumps(content).encode())
    return trials, best


def tuned(
    settings: EncoderSettings, identity: dict[str, Any], device: str
) -> tuple[str, Trial] | None:
    """The name of the device that was tuned and the size chosen; None if nothing was tuned.

    Parameters
    ----------
    identity : the encoder's, of `pipeline.tables.Tables`.
    device : "cpu" or "cuda".
    """
    fs, path = fsspec.url_to_fs(_place(settings, identity, device))
    try:
        found = json.loads(fs.cat_file(path))
        return found["device"], Trial(**found["best"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        log.warning("%s is not what jobs.tune writes (%s); run it again", path, error)
        return None


def device_name(device: str) -> str:
    """The model of this machine's GPU or processor."""
    if device == "cuda":
        import torch

        return torch.cuda.get_device_name()
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _place(settings: EncoderSettings, identity: dict[str, Any], device: str) -> str:
    kept = {name: identity[name] for name in ("encoder", "weights_sha256") if name in identity}
    decides = {**kept, "precision": settings.precision, "device": device}
    return f"{KeyedTable(settings.cache_root, 'tuning', decides).uri}/{FILE}"


def _atom_counts(smiles: Sequence[str]) -> np.ndarray:
    from rdkit import Chem

    return np.array([Chem.MolFromSmiles(s).GetNumHeavyAtoms() for s in smiles])


def _conformers(atoms: np.ndarray, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Random structures with these numbers of atoms, repeated: speed depends on sizes alone."""
    random = np.random.default_rng(0)
    return [
        (np.full(n, 6, np.uint8), random.normal(0, 3, (n, 3)).astype(np.float32))
        for n in random.choice(atoms, count)
    ]


def _trials(
    settings: TuneSettings, pool: EncoderPool, atoms: np.ndarray, sizes: list[tuple[int, int]]
) -> tuple[str, list[Trial]]:
    """On the worker: the device's name and the trials that fit the memory asked for."""
    telemetry.configure_logging()
    if pool.device == "cpu":
        import torch

        torch.set_num_threads(1)  # as each of the flow's encoders, one a core
    encoder = load_encoder(
        settings.foundation_model, weights=settings.weights, device=pool.device,
        precision=settings.precision, token_order=settings.token_order,
    )  # fmt: skip
    return device_name(pool.device), list(_sweep(encoder, settings, atoms, sizes))


def _sweep(
    encoder: UniMolEncoder, settings: TuneSettings, atoms: np.ndarray, sizes: list[tuple[int, int]]
) -> Iterator[Trial]:
    structures = _conformers(atoms, max(window for window, _ in sizes))
    prepared = [encoder.prepare({"atoms": a, "coords": c}) for a, c in structures]
    encoder.encode_prepared(prepared[: sizes[0][0]])  # the first run sets things up
    for window, tokens in sizes:
        encoder.budget = wanted = budget_of(tokens, window)
        telemetry.reset_peak_memory()
        encoder.reset_padding()
        done, started = 0, time.monotonic()
        while time.monotonic() - started < settings.seconds:
            start = done % len(prepared)
            part = prepared[start : start + window]
            encoder.encode_prepared(part)
            done += len(part)
        seconds = time.monotonic() - started
        memory = (
            telemetry.peak_gpu_memory_gb()
            if encoder.device.type == "cuda"
            else telemetry.peak_resident_memory_gb()
        )
        too_much = settings.memory_gb is not None and memory > settings.memory_gb
        if too_much or encoder.budget != wanted:  # it halves where memory ran out
            return
        yield Trial(window, tokens, encoder.padding_share, memory, done / seconds)
