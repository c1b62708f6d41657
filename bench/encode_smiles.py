"""`encode_smiles` without Ray against unimol_tools' `get_repr`, on large molecules.

`python -m bench.encode_smiles` takes 300 organic molecules of 30 to 50 heavy atoms of the shipped
sample, lets both sides encode them in turns, each in a process of its own that has loaded its model
before, and writes encode_smiles.md. It takes some three minutes on two cores.

`--pool` measures instead from how many molecules child processes pay, and prints it.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bench.report import cpu_name, markdown, seconds_of

HERE = Path(__file__).parent
TABLE = HERE.parent / "data" / "hiv_sample.csv.gz"
SIZES = range(30, 51)  # heavy atoms
ELEMENTS = ("H", "C", "N", "O", "F", "P", "S", "Cl", "Br", "I")  # with metals some take minutes
BATCH = 32  # unimol_tools' default
FEW = ["CCO", "c1ccccc1", "CC(=O)N", "CCCC"]  # encoded first, so that all is set up


def molecules(count: int) -> list[str]:
    """Canonical SMILES of molecules of these sizes, drawn with a fixed seed."""
    from rdkit import Chem, RDLogger

    RDLogger.DisableLog("rdApp.*")
    with gzip.open(TABLE, "rt") as file:
        read = [Chem.MolFromSmiles(row["smiles"]) for row in csv.DictReader(file)]
    elements = {*map(Chem.GetPeriodicTable().GetAtomicNumber, ELEMENTS)}
    large = [
        Chem.MolToSmiles(mol)
        for mol in read
        if mol
        and mol.GetNumHeavyAtoms() in SIZES
        and elements >= {atom.GetAtomicNum() for atom in mol.GetAtoms()}
    ]
    return random.Random(0).sample(large, min(count, len(large)))


def unimol_tools(folder: Path, precision: str) -> Callable[[list[str]], np.ndarray]:
    """UniMolRepr as its readers use it: its pool of processes, batches of 32, fp32."""
    from unimol_tools import UniMolRepr

    tool = UniMolRepr(
        use_cuda=False, remove_hs=True, batch_size=BATCH,
        pretrained_model_path=str(folder / "unimol_tools.pt"),
        pretrained_dict_path=str(folder / "dict.txt"),
    )  # fmt: skip
    return lambda smiles: np.stack(tool.get_repr(smiles))


def molsieve(folder: Path, precision: str) -> Callable[[list[str]], np.ndarray]:
    """`encode_smiles`."""
    from pipeline.encoders import load_encoder

    weights = str(folder / "official.pt")
    return load_encoder("unimol", weights=weights, device="cpu", precision=precision).encode_smiles


def conformers_on_one_core(folder: Path, precision: str) -> Callable[[list[str]], np.ndarray]:
    """As `molsieve`, all conformers made in this process before the first forward pass."""
    from pipeline.conformers import on_all_cores

    on_all_cores.WORTH_SECONDS = float("inf")
    return molsieve(folder, precision)


SIDES = {
    "unimol_tools": unimol_tools,
    "encode_smiles": molsieve,
    "conformers on one core": conformers_on_one_core,
}


def side(name: str, folder: Path, precision: str) -> dict[str, float]:
    """Wall-clock and CPU seconds of one side, children's included; its features are kept."""
    smiles = (folder / "some.smi").read_text().split()
    encode = SIDES[name](folder, precision)
    encode(FEW)
    before, started = cpu_seconds(), time.perf_counter()
    features = encode(smiles)
    seconds = time.perf_counter() - started
    np.save(folder / f"{name}-{precision}.npy", features)
    return {"seconds": seconds, "cpu": cpu_seconds() - before}


def cpu_seconds() -> float:
    """Of this process and of its children that have ended."""
    used = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in used)


def in_a_process(name: str, folder: Path, precision: str) -> dict[str, float]:
    """`side` in a process of its own."""
    command = [sys.executable, "-m", "bench.encode_smiles", "--side", name, str(folder), precision]
    done = subprocess.run(command, capture_output=True, text=True, cwd=HERE.parent)
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stderr[-3000:]}")
    found = json.loads(done.stdout.strip().splitlines()[-1])
    print(name, precision, found, f"load {os.getloadavg()[0]:.1f}", flush=True)
    return found


def pool_pays() -> None:
    """Print seconds for conformers of few molecules in this process and in child processes."""
    import pyarrow as pa

    from pipeline.conformers import on_all_cores
    from pipeline.conformers.expected_cost import conformer_seconds
    from pipeline.runtime.nodes.machine import usable_cores

    every = molecules(64)
    print("molecules, expected seconds of a core, seconds here, seconds in child processes")
    for count in (4, 8, 16, 32, 64):
        some = every[:count]
        seconds = conformer_seconds(pa.array(some))
        here = partial(on_all_cores.embed_here, some, hydrogens=False)
        shared = partial(on_all_cores.embed_all, some, seconds, usable_cores(), hydrogens=False)
        both = [(seconds_of(here), seconds_of(lambda made=shared: list(made()))) for _ in range(2)]
        print(count, f"{seconds.sum():.2f}", *(f"{min(each):.2f}" for each in zip(*both)))


def main() -> None:
    """Measure every side in turn and write encode_smiles.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--molecules", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--pool", action="store_true")
    parser.add_argument("--side", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side:
        name, folder, precision = given.side
        print(json.dumps(side(name, Path(folder), precision)))
    elif given.pool:
        pool_pays()
    else:
        text = report(given, *measured(given))
        (HERE / "encode_smiles.md").write_text(text)
        print(text)


def measured(given: argparse.Namespace) -> tuple[dict[tuple[str, str], dict[str, Any]], float]:
    """The best of the rounds of each side and precision, and the largest relative error."""
    from pipeline.encoders.unimol.precision import default_precision
    from tests.reference import write_checkpoints

    precision = default_precision("cpu")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_checkpoints(folder)
        (folder / "some.smi").write_text("\n".join(molecules(given.molecules)) + "\n")
        best: dict[tuple[str, str], dict[str, Any]] = {}
        for _ in range(given.rounds):
            for key in [("unimol_tools", "fp32"), ("encode_smiles", precision)]:
                found = in_a_process(*key[:1], folder, key[1])
                kept = best.setdefault(key, found)
                best[key] = {n: min(value, kept[n]) for n, value in found.items()}
        key = ("conformers on one core", precision)
        best[key] = in_a_process(key[0], folder, precision)
        theirs = np.load(folder / "unimol_tools-fp32.npy")
        ours = np.load(folder / f"encode_smiles-{precision}.npy")
    errors = np.linalg.norm(ours - theirs, axis=1) / np.linalg.norm(theirs, axis=1)
    return best, float(errors.max())


def report(given: argparse.Namespace, best: dict[tuple[str, str], dict], error: float) -> str:
    """encode_smiles.md."""
    import torch

    theirs = best["unimol_tools", "fp32"]
    rows = [
        [name, precision, f"{found['seconds']:.1f}", f"{found['cpu']:.1f}",
         f"{theirs['seconds'] / found['seconds']:.2f}", f"{theirs['cpu'] / found['cpu']:.2f}"]
        for (name, precision), found in best.items()
    ]  # fmt: skip
    return "\n".join([
        "# encode_smiles without Ray against unimol_tools",
        "",
        f"`python -m bench.encode_smiles --molecules {given.molecules} --rounds {given.rounds}` on "
        f"{os.cpu_count()} cores of {cpu_name()}, torch {torch.__version__}: organic molecules of "
        f"{SIZES[0]} to {SIZES[-1]} heavy atoms of the shipped sample (HIV), random weights of the "
        "published shape. Each side in a process of its own, taking turns, models loaded before; "
        f"the best of {given.rounds} rounds, but conformers on one core, which ran once. Load at "
        f"the end: {', '.join(f'{load:.1f}' for load in os.getloadavg())}. CPU seconds include "
        "those of child processes; others' work on the machine disturbs them less.",
        "",
        *markdown(
            ("side", "precision", "seconds", "CPU seconds", "times unimol_tools",
             "times unimol_tools, CPU"), rows,
        ),
        "",
        f"Largest relative error of a feature against unimol_tools: {error:.1e}.",
        "",
    ])  # fmt: skip


if __name__ == "__main__":
    main()
