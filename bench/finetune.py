"""An epoch of finetuning on the stored trunk against computing the encoder anew.

`python -m bench.finetune` encodes the shipped sample into the store (random weights of the
published shape, cut at layer 13), times epochs of the same training over the same batches with
what lies below the cut taken from memory, from the engine and from the plain model, compares one
step's gradients, and writes finetune.md. It runs on a GPU if there is one.
"""

from __future__ import annotations

import argparse
import copy
import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import ray
import torch
from torch import Tensor

from bench import SAMPLES
from bench.report import cpu_name, markdown
from pipeline.conformers.child_process import IsolatedEmbedder
from pipeline.detectors.heads.losses import training_loss
from pipeline.encoders.unimol.batching import pad_batch
from pipeline.encoders.unimol.encoder import UniMolEncoder
from pipeline.encoders.unimol.finetuning.trunk import ComputedRows, StoredRows, TokenRows
from pipeline.encoders.unimol.model import UniMol
from pipeline.encoders.unimol.precision import autocast
from pipeline.encoders.unimol.published_format import load_model
from pipeline.encoding.in_store.trunk_table import trunk_rows
from pipeline.encoding.plan import open_run
from pipeline.encoding.stored_features import EncodeResult, encode_molecules
from pipeline.molecules.roles import assign_roles
from pipeline.runtime import telemetry
from pipeline.runtime.telemetry import GIB
from pipeline.runtime.train.ray_train import ONEDNN_CACHE
from pipeline.training.finetuning.energy_model import EnergyModel
from pipeline.training.finetuning.preparation import choose_trunk, prepare_finetuning
from pipeline.training.settings import TrainSettings
from pipeline.training.worker.batches import GlobalBatch, ResidentBatches, Rows
from pipeline.training.worker.worker_setup import build_energy_model

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
ROLES = ("id_train", "ood_train")
CONFORMERS = 100  # molecules that their time is measured on


class PlainRows(TokenRows):
    """Activations by the plain model's layers, as a training script without a trunk has them."""

    def __init__(self, molecules: list, model: UniMol, cut: int, dtype: torch.dtype):
        super().__init__(molecules, model.pad)
        self.model, self.cut, self.dtype = model, cut, dtype

    def __getitem__(self, rows: Tensor | slice) -> PlainRows:
        """See `Rows`."""
        some = super().__getitem__(rows).molecules
        return PlainRows(some, self.model, self.cut, self.dtype)

    @torch.no_grad()
    def padded(self, rows: np.ndarray, device: torch.device) -> tuple[Tensor, Tensor]:
        """See `Rows`."""
        tokens, coords = pad_batch([self.molecules[row] for row in rows], self.pad)
        with autocast(device, self.dtype):
            x, pair = self.model.embed(tokens.to(device), coords.to(device))
            for layer in self.model.encoder.layers[: self.cut]:
                x, pair = layer(x, pair)
        return x.float(), pair.float()


def energy_model(settings: TrainSettings) -> tuple[EnergyModel, list[dict]]:
    """The model that training has, and its optimiser's groups."""
    torch.manual_seed(settings.seed)
    plan = prepare_finetuning(settings).plan
    return build_energy_model(settings, plan, DEVICE)


def batches_of(
    rows: tuple[Rows, Rows], settings: TrainSettings, epoch: int = 0
) -> list[GlobalBatch]:
    """An epoch's batches."""
    batches = ResidentBatches(*rows, settings.batch_size, settings.seed, 0, 1, torch.device("cpu"))
    return list(batches.epoch(epoch))


def epoch_seconds(rows: tuple[Rows, Rows], settings: TrainSettings, repeats: int) -> float:
    """Seconds of the fastest epoch, the optimiser's steps included; the first is not counted."""
    model, groups = energy_model(settings)
    optimizer = torch.optim.AdamW(groups, weight_decay=settings.weight_decay)
    times = []
    for epoch in range(repeats + 1):
        batches = batches_of(rows, settings, epoch)
        started = time.perf_counter()
        model.train()
        for batch in batches:
            optimizer.zero_grad(set_to_none=True)
            loss = training_loss(model(batch.id_rows), model(batch.ood_rows), settings)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), settings.grad_clip)
            optimizer.step()
        loss.item()
        times.append(time.perf_counter() - started)
    return min(times[1:])


def first_gradient(rows: tuple[Rows, Rows], settings: TrainSettings) -> Tensor:
    """The first step's gradient without dropout, as one vector."""
    model, _ = energy_model(replace(settings, dropout=0.0, encoder_dropout=0.0))
    model.train()
    batch = batches_of(rows, settings)[0]
    training_loss(model(batch.id_rows), model(batch.ood_rows), settings).backward()
    grads = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
    return torch.cat(grads).cpu()


def encoded_sample(
    settings: TrainSettings,
) -> tuple[TrainSettings, EncodeResult, dict[str, list[str]]]:
    """The settings as decided; the sample's training molecules, their trunk in the store."""
    finetuning = prepare_finetuning(settings)
    plan, source = open_run(settings)
    sample = assign_roles(source.molecules, settings, settings.data_file, ROLES)
    plan = plan.with_trunk(choose_trunk(finetuning, sample, plan))
    encoded = encode_molecules(sample, source, plan)
    table = encoded.molecules
    keys = {
        role: [k for k, r in zip(table["key"].to_pylist(), table["role"].to_pylist()) if r == role]
        for role in ROLES
    }
    return plan.settings, encoded.result, keys


def rows_of(kind: str, settings: TrainSettings, keys: dict[str, list[str]], result: EncodeResult):
    """The training molecules as rows whose activations come from `kind`."""
    if kind == "stored":
        return tuple(
            trunk_rows(result.trunk.read(keys[r]), settings.trunk_precision) for r in ROLES
        )
    encoder = UniMolEncoder(settings.weights, str(DEVICE), settings.precision)
    conformers = result.conformers
    molecules = [
        [encoder.prepare(row) for row in conformers.read(keys[role]).to_pylist()] for role in ROLES
    ]
    cut = result.trunk.settings["trunk"]["cut"]
    if kind == "engine":
        pad = encoder.vocabulary.pad
        return tuple(ComputedRows(m, pad, encoder.forward, cut) for m in molecules)
    model = copy.deepcopy(load_model(encoder.weights)[0]).to(DEVICE)
    dtype = torch.bfloat16 if settings.precision == "bf16" else torch.float32
    return tuple(PlainRows(m, model, cut, dtype) for m in molecules)


def conformer_milliseconds(settings: TrainSettings) -> float:
    """Milliseconds of one core that a conformer takes, over a seeded sample of the molecules."""
    smiles = open_run(settings)[1].molecules["smiles"].to_pylist()
    chosen = np.random.default_rng(0).choice(smiles, CONFORMERS, replace=False)
    embedder = IsolatedEmbedder(seed=settings.conformer_seed, hydrogens=False, limit_seconds=10)
    embedder.embed_or_reject("C")  # starts it
    started = time.perf_counter()
    for one in chosen:
        embedder.embed_or_reject(str(one))
    seconds = time.perf_counter() - started
    embedder.close()
    return 1e3 * seconds / CONFORMERS


def with_rounded_x(rows: StoredRows) -> StoredRows:
    """As if x had been stored in bf16."""
    return StoredRows([row._replace(x=row.x.bfloat16().float()) for row in rows.rows])


def main() -> None:
    """Measure all of it and write finetune.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache_root", default=".molsieve")
    parser.add_argument("--weights", default="untrained")
    parser.add_argument("--repeats", type=int, default=2)
    arguments = parser.parse_args()
    common = TrainSettings(
        data_file=str(SAMPLES["scaffold"]), weights=arguments.weights, sampling="all",
        cache_root=arguments.cache_root, output_dir="outputs/finetune", finetune_encoder=True,
    )  # fmt: skip
    settings, result, keys = encoded_sample(common.sized())
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", ONEDNN_CACHE)  # as training does
    count = sum(map(len, keys.values()))
    batches = batches_of(rows_of("stored", settings, keys, result), settings)
    passes = sum(len(b.id_rows) + len(b.ood_rows) for b in batches)
    del batches  # they hold the trunk
    kinds = {
        "stored trunk": "stored",
        "trunk by the engine in every epoch (`--trunk_cache off`)": "engine",
        "trunk by the plain model in every epoch": "plain",
    }
    ray.shutdown()  # its processes shall not run beside the epochs
    seconds, memory = {}, {}
    for title, kind in kinds.items():
        rows = rows_of(kind, settings, keys, result)
        telemetry.reset_peak_memory()
        seconds[title] = epoch_seconds(rows, settings, arguments.repeats)
        memory[title] = telemetry.peak_gpu_memory_gb() or telemetry.peak_resident_memory_gb()
        print(f"{title}: {seconds[title]:.2f} s", flush=True)
    fastest = seconds["stored trunk"]

    errors = {}
    for precision, trunk in (("fp32", "fp32"), ("fp32", "bf16"), (settings.precision, "bf16")):
        small = {"trunk_precision": trunk, "train_size": 64, "batch_size": 64}
        exact = replace(common, precision=precision, **small).sized()
        exact, few, some = encoded_sample(exact)
        stored, engine = (rows_of(kind, exact, some, few) for kind in ("stored", "engine"))
        expected = first_gradient(engine, exact)
        variants = {f"x in fp32, pairs in {trunk}": stored}
        if (precision, trunk) == ("fp32", "bf16"):
            variants["x and pairs in bf16"] = tuple(map(with_rounded_x, stored))
        for title, rows in variants.items():
            error = (first_gradient(rows, exact) - expected).norm() / expected.norm()
            errors[precision, title] = error.item()

    conformer_ms = conformer_milliseconds(settings)
    stored = result.trunk.read(sum(keys.values(), []))
    each = stored.nbytes / count
    where = (
        f"{torch.cuda.get_device_name()}" if DEVICE.type == "cuda"
        else f"{torch.get_num_threads()} cores of {cpu_name()}"
    )  # fmt: skip
    lines = [
        "# Finetuning on the stored trunk",
        "",
        f"`python -m bench.finetune` on {where}, torch {torch.__version__}, {settings.precision}, "
        f"random weights of the published shape, cut at layer 13, batches of {settings.batch_size} "
        f"+ {settings.batch_size}, the shipped sample's {len(keys['id_train'])} ID and "
        f"{len(keys['ood_train'])} OOD training molecules ({passes:,} molecules pass in an epoch), "
        f"the fastest of {arguments.repeats} epochs after a first one. Conformers are in the store "
        "for all three.",
        "",
        *markdown(
            ("an epoch with", "seconds", "ms a molecule", "times the stored trunk's", "peak GiB"),
            [
                [title, f"{s:.2f}", f"{1e3 * s / passes:.2f}", f"{s / fastest:.2f}",
                 f"{memory[title]:.2f}"]
                for title, s in seconds.items()
            ],
        ),
        "",
        "All three cut batches by length and compute the [CLS] row alone in the last layer. A "
        f"script that also makes conformers anew in every epoch spends {conformer_ms:.0f} ms of "
        f"one core more on each molecule ({CONFORMERS} of them, measured apart).",
        "",
        f"The trunk takes {each / 1e3:.0f} kB a molecule, {stored.nbytes / GIB:.2f} GiB for all "
        f"{count:,}.",
        "",
        "## One step's gradient, stored trunk against trunk by the engine",
        "",
        *markdown(
            ("matrix products", "stored", "relative difference"),
            [[p, t, f"{e:.1e}"] for (p, t), e in errors.items()],
        ),
        "",
        "With untrained weights the energies of ID and OOD molecules are nearly the same, so that "
        "the gradient is a small difference of large parts and shows rounding most.",
        "",
    ]  # fmt: skip
    (Path(__file__).parent / "finetune.md").write_text("\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
