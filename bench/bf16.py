"""Which precision is faster on this CPU: products of matrices, and two encoders' forward passes.

`python -m bench.bf16` writes bf16.md. What it finds is what `--precision auto` should mean here.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
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

SHAPES = ((2048, 336, 336), (2048, 512, 2048))  # of MiniMol and of Uni-Mol: rows, in, out
MOLECULES, MOST_ATOMS, ROUNDS, PRODUCTS = 100, 30, 5, 20
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def main() -> None:
    """Measure in turns and write bf16.md."""
    if not multiplies_natively(torch.bfloat16):
        raise SystemExit("this CPU has no units for bf16: fp32 is faster, and the default")
    torch.set_num_threads(1)
    lines = [_line(what, works) for what, works in {**_products(), **_encoders()}.items()]
    text = "\n".join([
        "# bf16 or fp32 on a CPU",
        "",
        f"`python -m bench.bf16` on one core of {cpu_name()}, torch {torch.__version__}: in turns, "
        f"the best of {ROUNDS} rounds. Encoders on {MOLECULES} molecules of at most {MOST_ATOMS} "
        "heavy atoms of the shipped sample (HIV), Uni-Mol with random weights of the published "
        f"shape. `--precision auto` is {default_precision('cpu')} here.",
        "",
        *markdown(("what", "fp32, ms", "bf16, ms", "bf16 by fp32"), lines),
        "",
    ])  # fmt: skip
    (Path(__file__).parent / "bf16.md").write_text(text)
    print(text)


def _line(what: str, works: dict[str, Callable[[], Any]]) -> list[str]:
    best = dict.fromkeys(works, float("inf"))
    for _ in range(ROUNDS):
        for name, work in works.items():
            best[name] = min(best[name], seconds_of(work))
    times = [f"{1e3 * best[name]:.1f}" for name in DTYPES]
    return [what, *times, f"{best['bf16'] / best['fp32']:.2f}"]


def _products() -> dict[str, dict[str, Callable[[], Any]]]:
    """Each as the engines make it, weights laid out before."""
    return {
        f"{PRODUCTS} products, {rows} × {wide} × {out}": {
            name: _product(torch.randn(rows, wide), torch.randn(out, wide), dtype)
            for name, dtype in DTYPES.items()
        }
        for rows, wide, out in SHAPES
    }


def _product(x: torch.Tensor, weight: torch.Tensor, dtype: torch.dtype) -> Callable[[], Any]:
    product, x = cpu_product(weight, torch.zeros(len(weight)), dtype), x.to(dtype)
    return lambda: [product(x) for _ in range(PRODUCTS)]


def _encoders() -> dict[str, dict[str, Callable[[], Any]]]:
    with gzip.open(SAMPLES["scaffold"], "rt") as file:
        rows = json.load(file)["split"]["train"]
    made = [
        (smiles, embed(smiles)) for smiles in (canonicalize(row["smiles"]) for row in rows[:200])
    ]
    some = [(smiles, found) for smiles, found in made if len(found.atoms) <= MOST_ATOMS]
    inputs = [
        {"smiles": smiles, "atoms": found.atoms, "coords": found.coords.ravel()}
        for smiles, found in some[:MOLECULES]
    ]
    works = {}
    for encoder in ("unimol", "minimol"):
        works[f"{encoder}'s forward pass"] = {}
        for name in DTYPES:
            loaded = load_encoder(encoder, weights="untrained", device="cpu", precision=name)
            prepared = [loaded.prepare(row) for row in inputs]
            works[f"{encoder}'s forward pass"][name] = lambda loaded=loaded, prepared=prepared: (
                loaded.encode_prepared(prepared)
            )
    return works


if __name__ == "__main__":
    main()
