"""Which precision is faster on this CPU: products of matrices, and two encoders' forward passes.

`python -m bench.bf16` writes bf16.md. What it finds is what `--precision auto` should mean here.
"""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from bench import SAMPLES
from bench.report import cpu_name, markdown, seconds_of
from pipeline.conformers.rdkit_embedder import embed
from pipeline.encoders import load_encoder
from pipeline.encoders.unimol.precision import default_precision, multiplies_natively
from pipeline.encoders.unimol.products import cpu_product
from pipeline.molecules.identity import canonicalize
from pipeline.runtime.errors import RowRejected

SHAPES = ((2048, 336, 336), (2048, 512, 2048))  # of MiniMol and of Uni-Mol: rows, in, out
MOLECULES, SEED, ROUNDS, PRODUCTS = 100, 0, 5, 20
ENCODERS = {
    "Uni-Mol, published shape": ("unimol", "untrained"),
    "MolSieve-Mini": ("unimol", "mini"),
    "MiniMol": ("minimol", None),
}
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def main() -> None:
    """Measure in turns and write bf16.md."""
    if not multiplies_natively(torch.bfloat16):
        raise SystemExit("this CPU has no units for bf16: fp32 is faster, and the default")
    torch.set_num_threads(1)
    molecules = _molecules()
    atoms = sum(len(row["atoms"]) for row in molecules) / len(molecules)
    lines = [_line(what, works, PRODUCTS) for what, works in _products().items()]
    lines += [_line(what, works, MOLECULES) for what, works in _encoders(molecules).items()]
    text = "\n".join([
        "# bf16 or fp32 on a CPU",
        "",
        f"`python -m bench.bf16` on one core of {cpu_name()}, torch {torch.__version__}: in turns, "
        f"the best of {ROUNDS} rounds. Forward passes of {MOLECULES} molecules drawn from the "
        f"shipped sample (HIV), {atoms:.0f} heavy atoms in the mean; ms of a product, or a "
        f"molecule. `--precision auto` is {default_precision('cpu')} here.",
        "",
        *markdown(("what", "fp32, ms", "bf16, ms", "bf16 by fp32"), lines),
        "",
    ])  # fmt: skip
    (Path(__file__).parent / "bf16.md").write_text(text)
    print(text)


def _line(what: str, works: dict[str, Callable[[], Any]], count: int) -> list[str]:
    best = dict.fromkeys(works, float("inf"))
    for _ in range(ROUNDS):
        for name, work in works.items():
            best[name] = min(best[name], seconds_of(work))
    times = [f"{1e3 * best[name] / count:.2f}" for name in DTYPES]
    return [what, *times, f"{best['bf16'] / best['fp32']:.2f}"]


def _products() -> dict[str, dict[str, Callable[[], Any]]]:
    """Each as the engines make it, weights laid out before."""
    return {
        f"a product, {rows} × {wide} × {out}": {
            name: _product(torch.randn(rows, wide), torch.randn(out, wide), dtype)
            for name, dtype in DTYPES.items()
        }
        for rows, wide, out in SHAPES
    }


def _product(x: torch.Tensor, weight: torch.Tensor, dtype: torch.dtype) -> Callable[[], Any]:
    product, x = cpu_product(weight, torch.zeros(len(weight)), dtype), x.to(dtype)
    return lambda: [product(x) for _ in range(PRODUCTS)]


def _molecules() -> list[dict[str, Any]]:
    with gzip.open(SAMPLES["scaffold"], "rt") as file:
        rows = json.load(file)["split"]["train"]
    made: list[dict[str, Any]] = []
    for row in random.Random(SEED).sample(rows, len(rows)):
        smiles = canonicalize(row["smiles"])
        try:
            found = embed(smiles)
        except RowRejected:
            continue
        made.append({"smiles": smiles, "atoms": found.atoms, "coords": found.coords.ravel()})
        if len(made) == MOLECULES:
            return made
    raise SystemExit(f"the sample has conformers of {len(made)} molecules, not of {MOLECULES}")


def _encoders(molecules: list[dict[str, Any]]) -> dict[str, dict[str, Callable[[], Any]]]:
    works: dict[str, dict[str, Callable[[], Any]]] = {}
    for what, (encoder, weights) in ENCODERS.items():
        works[what] = {}
        for name in DTYPES:
            loaded = load_encoder(encoder, weights=weights, device="cpu", precision=name)
            prepared = [loaded.prepare(row) for row in molecules]
            works[what][name] = partial(loaded.encode_prepared, prepared)
    return works


if __name__ == "__main__":
    main()
