"""What INT8 products would be worth to Uni-Mol and MiniMol on a CPU: speed, features, AUROC.

`python -m bench.int8` writes int8.md. Weights are rounded to 8 bits by channel, activations by
tensor as they come, by torch's own kernels. A molecule's time is CPU time of one thread; the
precisions take turns on the same batches.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bench import SAMPLES
from bench.minimol import SEEDS, TEST, TRAINING, area_of
from bench.report import cpu_name, markdown
from pipeline.conformers.rdkit_embedder import embed
from pipeline.encoders import load_encoder
from pipeline.encoders.minimol.encoder import MODEL_FILE
from pipeline.encoders.minimol.engine import Engine as MiniMolEngine
from pipeline.encoders.minimol.weights import Weights
from pipeline.encoders.unimol.engine.cpu import CpuKernels
from pipeline.encoders.unimol.engine.forward import Engine
from pipeline.encoders.unimol.products import Product
from pipeline.encoders.unimol.published_format import load_model
from pipeline.molecules.identity import canonicalize
from pipeline.runtime.errors import RowRejected

LEAST_INPUTS = 128  # narrower products are a small part of the work
FASTER, COSINE, MOVED = 1.2, 0.999, 0.005
BY_ROW = "int8 by row"  # simulated


def int8_product(weight: Tensor, bias: Tensor, gelu: bool = False) -> Product:
    """x ↦ x · weightᵀ + bias with both rounded to 8 bits, x and the result in float32."""
    scales = weight.abs().amax(dim=1).clamp(min=1e-12).double() / 127
    zeros = torch.zeros(len(weight), dtype=torch.int64)
    rounded = torch.quantize_per_channel(weight.contiguous(), scales, zeros, 0, torch.qint8)
    packed = torch.ops.quantized.linear_prepack(rounded, bias.contiguous())

    def product(x: Tensor) -> Tensor:
        made = torch.ops.quantized.linear_dynamic(x.contiguous(), packed, True)
        return F.gelu(made) if gelu else made

    return product


def rounded_product(weight: Tensor, bias: Tensor, gelu: bool = False) -> Product:
    """As `int8_product` with a scale for each row of x, which torch's kernels here have not.

    It is computed in float32 from rounded numbers: its error is INT8's, its speed is not.
    """
    scales = weight.abs().amax(dim=1, keepdim=True).clamp(min=1e-12) / 127
    weight = (weight / scales).round() * scales

    def product(x: Tensor) -> Tensor:
        scales = x.abs().amax(dim=-1, keepdim=True).clamp(min=1e-12) / 127
        made = F.linear((x / scales).round() * scales, weight, bias)
        return F.gelu(made) if gelu else made

    return product


class Int8Kernels(CpuKernels):
    """Uni-Mol's kernels with wide products in INT8, all else in float32."""

    rounded = staticmethod(int8_product)

    def product(self, weight: Tensor, bias: Tensor, gelu: bool = False) -> Product:
        """As `Kernels.product`."""
        if weight.shape[1] < LEAST_INPUTS:
            return super().product(weight, bias, gelu)
        return self.rounded(weight, bias, gelu)


class ByRowKernels(Int8Kernels):
    """The same with activations rounded by row."""

    rounded = staticmethod(rounded_product)


class Int8MiniMol(MiniMolEngine):
    """MiniMol's engine with wide products in INT8, all else in float32."""

    rounded = staticmethod(int8_product)

    def product(
        self, weight: np.ndarray, bias: np.ndarray, dtype: torch.dtype = torch.float32
    ) -> Product:
        """As `Engine.product`."""
        if weight.shape[1] < LEAST_INPUTS:
            return super().product(weight, bias, dtype)
        return self.rounded(*(torch.from_numpy(np.array(p, np.float32)) for p in (weight, bias)))


class ByRowMiniMol(Int8MiniMol):
    """The same with activations rounded by row."""

    rounded = staticmethod(rounded_product)


def unimols(weights: str) -> dict[str, Any]:
    """Uni-Mol encoders by precision."""
    made = {
        name: load_encoder("unimol", weights=weights, device="cpu", precision=name)
        for name in ("fp32", "bf16")
    }
    for name, kernels in (("int8", Int8Kernels), (BY_ROW, ByRowKernels)):
        made[name] = load_encoder("unimol", weights=weights, device="cpu", precision="fp32")
        model = load_model(made[name].weights)[0]
        with torch.inference_mode():
            made[name].forward = Engine(model, kernels(torch.float32, model.config.heads))
    return made


def minimols() -> dict[str, Any]:
    """MiniMol encoders by precision."""
    made = {
        name: load_encoder("minimol", device="cpu", precision=name) for name in ("fp32", "bf16")
    }
    for name, engine in (("int8", Int8MiniMol), (BY_ROW, ByRowMiniMol)):
        made[name] = load_encoder("minimol", device="cpu", precision="fp32")
        made[name].forward = engine(Weights(MODEL_FILE), torch.float32, torch.device("cpu"))
    return made


def milliseconds(encoders: dict[str, Any], prepared: list, rounds: int) -> dict[str, float]:
    """CPU milliseconds a molecule, the least of the rounds."""
    best = dict.fromkeys(encoders, float("inf"))
    for _ in range(rounds):
        for name, encoder in encoders.items():
            started = time.process_time()
            encoder.encode_prepared(prepared)
            best[name] = min(best[name], time.process_time() - started)
    return {name: 1e3 * seconds / len(prepared) for name, seconds in best.items()}


def cosines(made: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """Cosine of each molecule's features (n, d) with the exact ones: (n,)."""
    norms = np.linalg.norm(made, axis=1) * np.linalg.norm(exact, axis=1)
    return (made * exact).sum(axis=1) / norms


def sample(count: int) -> dict[str, list[dict[str, Any]]]:
    """Rows of the scaffold sample with conformers: the first `count` of each part it needs."""
    with gzip.open(SAMPLES["scaffold"], "rt") as file:
        split = json.load(file)["split"]
    parts: dict[str, list[dict[str, Any]]] = {part: [] for part in TRAINING + TEST}
    for part, rows in parts.items():
        for entry in split[part]:
            smiles = canonicalize(entry["smiles"])
            if len(smiles) > 120:  # whose conformers take minutes here
                continue
            try:
                made = embed(smiles)
            except RowRejected:
                continue
            rows.append({"smiles": smiles, "atoms": made.atoms, "coords": made.coords})
            if len(rows) == count:
                break
    return parts


def measured(
    name: str, make: Callable[[], dict[str, Any]], parts: dict[str, list], rounds: int, timed: int
) -> list[list[str]]:
    """Rows of the report for one model."""
    encoders = make()
    prepared = {
        part: [encoders["fp32"].prepare(row) for row in rows] for part, rows in parts.items()
    }
    real = {precision: encoder for precision, encoder in encoders.items() if precision != BY_ROW}
    taken = milliseconds(real, prepared[TEST[1]][:timed], rounds)
    made = {
        precision: {part: encoder.encode_prepared(each) for part, each in prepared.items()}
        for precision, encoder in encoders.items()
        if precision != "bf16" or name != "Uni-Mol"  # without units it takes minutes
    }
    exact, rows = np.concatenate(list(made["fp32"].values())), []
    areas = {p: [area_of(features, seed) for seed in SEEDS] for p, features in made.items()}
    for precision in encoders:
        row = [name, precision, *["–"] * 3]
        if (took := taken.get(precision)) is not None:
            row[2:] = [f"{took:.1f}", *(f"{taken[other] / took:.2f}" for other in ("fp32", "bf16"))]
        if precision in made:
            near = cosines(np.concatenate(list(made[precision].values())), exact)
            moved = max(abs(a - b) for a, b in zip(areas[precision], areas["fp32"]))
            row += [f"{near.min():.5f}", f"{np.median(near):.5f}",
                    ", ".join(f"{a:.4f}" for a in areas[precision]), f"{moved:.4f}"]  # fmt: skip
        else:
            row += ["–"] * 4
        rows.append(row)
        print(row, flush=True)
    return rows


def main() -> None:
    """Measure and write int8.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--molecules", type=int, default=100, help="of each part of the split")
    parser.add_argument("--timed", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    warnings.filterwarnings("ignore", message=".*quantiz")
    torch.set_num_threads(1)
    parts = sample(given.molecules)
    rows = []
    for name, make in (
        ("MiniMol", minimols),
        ("MolSieve-Mini", lambda: unimols("mini")),
        ("Uni-Mol", lambda: unimols("untrained")),
    ):
        rows += measured(name, make, parts, given.rounds, given.timed)
    text = report(given, rows)
    (Path(__file__).parent / "int8.md").write_text(text)
    print(text)


def verdict(rows: list[list[str]]) -> list[str]:
    """Which models INT8 would be kept for, and why `--precision` has it not."""
    lines = [
        f"INT8 is kept where it is {FASTER} times as fast as bf16 and fp32 here, every cosine is "
        f"above {COSINE}, and no AUROC moves by more than {MOVED}:",
        "",
    ]
    for name, precision, _, fp32, bf16, cosine, _, _, moved in rows:
        if precision == "int8":
            fails = [
                *(["speed"] if min(float(fp32), float(bf16)) < FASTER else []),
                *(["cosine"] if float(cosine) <= COSINE else []),
                *(["AUROC"] if float(moved) > MOVED else []),
            ]
            lines.append(f"- {name}: {'fails by ' + ' and '.join(fails) if fails else 'passes'}")
    return [
        *lines,
        "",
        "So `--precision int8` is refused, as every unknown value is. The two trained models fail, "
        "and Uni-Mol's random weights say little of the published ones. One scale for a whole "
        "tensor costs most of the error: by row it is far smaller. But torch has no such kernel "
        "for CPUs, and its `_int_mm`, of which one could be made, took thirty times as long as "
        "float32 on this machine, which has no VNNI. bf16 is slow here for want of units, so being "
        "faster than bf16 says nothing of CPUs with AMX; those and GPUs were not measured.",
    ]


def report(given: argparse.Namespace, rows: list[list[str]]) -> str:
    """int8.md."""
    text = Path("/proc/cpuinfo").read_text()
    units = [unit for unit in ("avx2", "avx512_vnni", "avx_vnni", "amx_int8") if f" {unit}" in text]
    return "\n".join([
        "# INT8 products",
        "",
        f"`python -m bench.int8 --molecules {given.molecules} --timed {given.timed} --rounds "
        f"{given.rounds}` on one thread of {cpu_name()}, of units for INT8 {', '.join(units)}; "
        f"torch {torch.__version__}, engine {torch.backends.quantized.engine}. Weights by channel, "
        "activations by tensor and dynamic, in products of at least "
        f"{LEAST_INPUTS} inputs; all else float32. By row: a scale for each atom or token, "
        f"simulated for its error. CPU time of {given.timed} molecules, the least "
        f"of {given.rounds} rounds in turns; cosines and test AUROC of Energy-DPO (seeds "
        f"{', '.join(map(str, SEEDS))}) on {given.molecules} molecules of each of the parts "
        f"{', '.join(TRAINING + TEST)} of the scaffold sample (HIV). Uni-Mol has seeded random "
        f"weights. Load at the end: {', '.join(f'{load:.1f}' for load in os.getloadavg())}.",
        "",
        *markdown(
            ("model", "precision", "ms a molecule", "times fp32", "times bf16", "least cosine",
             "median cosine", "test AUROC", "moved by at most"), rows,
        ),
        "",
        *verdict(rows),
        "",
    ])  # fmt: skip


if __name__ == "__main__":
    main()
