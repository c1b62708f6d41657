"""Uni-Mol2's forward pass: unimol_tools' own batches against those of the encoder here.

`python -m bench.unimol2` draws molecules of the shipped sample, makes their conformers once, and
lets both ways encode them in turns on one thread, with the same random weights of the smallest
published size. It writes unimol2.md.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import os
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rdkit import Chem

from bench.encode_smiles import TABLE, cpu_seconds
from bench.report import cpu_name, markdown
from pipeline.conformers.rdkit_embedder import embed
from pipeline.encoders import load_encoder
from pipeline.encoders.unimol.precision import multiplies_natively
from pipeline.encoders.unimol2.library import library

SIZE, BATCH = "84m", 32
SMALLEST, LARGEST = 8, 30  # heavy atoms


def molecules(count: int) -> list[str]:
    """SMILES of the sample, drawn with a fixed seed."""
    with gzip.open(TABLE, "rt") as file:
        read = [Chem.MolFromSmiles(row["smiles"]) for row in csv.DictReader(file)]
    fit = [Chem.MolToSmiles(m) for m in read if m and SMALLEST <= m.GetNumHeavyAtoms() <= LARGEST]
    return random.Random(0).sample(fit, count)


def by_unimol_tools(model: Any, graphs: list[dict], batch_size: int) -> np.ndarray:
    """Features as UniMolRepr makes them, in batches as they come."""
    made = []
    with torch.inference_mode():
        for start in range(0, len(graphs), batch_size):
            some = [({**graph}, 0.0) for graph in graphs[start : start + batch_size]]
            batch, _ = model.batch_collate_fn(some)
            made.append(model(**batch, return_repr=True).numpy())
    return np.concatenate(made)


def main() -> None:
    """Measure and write unimol2.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--molecules", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(1)
    smiles = molecules(given.molecules)
    made = [embed(text) for text in smiles]
    rows = [{"smiles": s, "atoms": c.atoms, "coords": c.coords} for s, c in zip(smiles, made)]
    precisions = ["fp32", *(["bf16"] if multiplies_natively(torch.bfloat16) else [])]
    encoders = {
        name: load_encoder(
            "unimol2", weights="untrained", model_size=SIZE, device="cpu", precision=name
        )
        for name in precisions
    }
    ours = encoders["fp32"]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "checkpoint.pt"
        torch.save({"model": ours.model.state_dict()}, file)
        theirs = library("models.unimolv2").UniMolV2Model(
            output_dim=1, model_size=SIZE, pretrained_model_path=str(file)
        )
    theirs.eval()
    graphs = [their_graph(row) for row in rows]
    prepared = [ours.prepare(row) for row in rows]
    works: dict[str, Callable[[], np.ndarray]] = {
        f"unimol_tools, batches of {BATCH}": lambda: by_unimol_tools(theirs, graphs, BATCH),
        "unimol_tools, batches of one": lambda: by_unimol_tools(theirs, graphs, 1),
    } | {f"here, {name}": lambda e=encoder: e.encode_prepared(prepared)
         for name, encoder in encoders.items()}  # fmt: skip
    spent, found = dict.fromkeys(works, (float("inf"),) * 2), {}
    for _ in range(given.rounds):
        for name, work in works.items():
            cpu, started = cpu_seconds(), time.perf_counter()
            found[name] = work()
            spent[name] = min(spent[name], (cpu_seconds() - cpu, time.perf_counter() - started))
    graph_seconds = timed(lambda: [ours.prepare(row) for row in rows])
    text = report(given, spent, found, graph_seconds)
    (Path(__file__).parent / "unimol2.md").write_text(text)
    print(text)


def their_graph(row: dict[str, Any]) -> dict[str, Any]:
    """unimol_tools' input of a molecule whose conformer is there."""
    molecule = Chem.RemoveAllHs(Chem.AddHs(Chem.MolFromSmiles(row["smiles"])))
    conformer = Chem.Conformer(molecule.GetNumAtoms())
    conformer.SetPositions(row["coords"].astype(np.float64))
    molecule.AddConformer(conformer)
    return library("data.conformer").mol2unimolv2(molecule, 256)


def timed(work: Callable[[], Any]) -> float:
    """CPU seconds of a call."""
    before = cpu_seconds()
    work()
    return cpu_seconds() - before


def report(
    given: argparse.Namespace, spent: dict[str, tuple[float, float]], found: dict[str, np.ndarray],
    graph_seconds: float,
) -> str:  # fmt: skip
    """unimol2.md."""
    exact = found["unimol_tools, batches of one"]
    norm, slowest = np.linalg.norm(exact, axis=1), spent[f"unimol_tools, batches of {BATCH}"][0]
    rows = [
        [name, f"{given.molecules / cpu:.2f}", f"{slowest / cpu:.2f}",
         f"{(np.linalg.norm(found[name] - exact, axis=1) / norm).max():.1e}"]
        for name, (cpu, _) in spent.items()
    ]  # fmt: skip
    return "\n".join([
        "# Uni-Mol2's forward pass",
        "",
        f"`python -m bench.unimol2 --molecules {given.molecules} --rounds {given.rounds}` on one "
        f"thread of {cpu_name()}, torch {torch.__version__}: molecules of {SMALLEST} to {LARGEST} "
        f"heavy atoms of the shipped sample (HIV), conformers ready, random weights of the size "
        f"{SIZE}. The best of {given.rounds} rounds, in turns; load at the end: "
        f"{', '.join(f'{load:.1f}' for load in os.getloadavg())}. Rates are by CPU seconds.",
        "",
        *markdown(
            ("forward pass", "molecules a CPU second", "times unimol_tools",
             "largest error against batches of one"), rows,
        ),
        "",
        "In unimol_tools padding is not masked and some sums are scaled by the padded size, so a "
        "molecule's feature depends on its batch; batches here hold molecules of one size. The "
        "head that moves atoms, which no feature depends on, is left out. A molecule's graph takes "
        f"{1e3 * graph_seconds / given.molecules:.1f} ms.",
        "",
    ])  # fmt: skip


if __name__ == "__main__":
    main()
