"""Encoding MOSES molecules end to end: MolSieve against unimol_tools' UniMolRepr.

Same molecules, same random weights of the published shape, same machine, runs taking turns.
MolSieve's time spans reading the file to features in the store, with the start of worker
processes and the loading of the model but without the start of Ray; unimol_tools' time spans
its import to its features. `make bench` writes encode.md.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import importlib.util
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
PLAIN_LOOP = 200  # molecules of the measurements on one core


def moses(count: int) -> list[str]:
    """The first canonical SMILES of MOSES' scaffold test set, from the wheel `molsets`."""
    from pipeline.molecules import canonicalize

    spec = importlib.util.find_spec("moses")
    if spec is None:
        raise SystemExit("the package molsets is not installed; run `make bench`")
    path = Path(spec.submodule_search_locations[0]) / "dataset" / "data" / "test_scaffolds.csv.gz"
    with gzip.open(path, "rt") as file:
        rows = [row["SMILES"] for _, row in zip(range(count), csv.DictReader(file))]
    return [canonicalize(smiles) for smiles in rows]


def run_unimol_tools(folder: Path) -> None:
    """Child process: time UniMolRepr over the molecules in the folder."""
    smiles = (folder / "moses.smi").read_text().split()
    started = time.perf_counter()
    from tests.reference import unimol_tools_features

    features = unimol_tools_features(folder / "unimol_tools.pt", smiles)
    seconds = time.perf_counter() - started
    np.save(folder / "unimol_tools.npy", features)
    print(json.dumps({"seconds": seconds}))


def run_molsieve(folder: Path) -> None:
    """Child process: time `run_encoding` over the molecules in the folder, cold store."""
    from pipeline.cluster import start_ray
    from pipeline.config import EncodeSettings
    from pipeline.experiment import run_encoding
    from pipeline.molecules import molecule_key
    from pipeline.tables import Tables

    with tempfile.TemporaryDirectory() as output:
        settings = EncodeSettings(
            data_file=str(folder / "moses.smi"),
            weights=str(folder / "official.pt"),
            cache_root=f"{output}/store",
            output_dir=output,
        )
        start_ray()
        started = time.perf_counter()
        summary = run_encoding(settings)
        seconds = time.perf_counter() - started
        keys = [molecule_key(s) for s in (folder / "moses.smi").read_text().split()]
        np.save(folder / "molsieve.npy", Tables.of(settings).features.read_features(keys))
    print(json.dumps({"seconds": seconds, "encoded": summary["encoded"]}))


def plain_loops(folder: Path) -> dict[str, float]:
    """Milliseconds a molecule on one core: conformers alone, and the forward alone."""
    import torch

    from pipeline.conformers import embed
    from pipeline.encoders import load_encoder

    torch.set_num_threads(1)
    smiles = (folder / "moses.smi").read_text().split()[:PLAIN_LOOP]
    started = time.perf_counter()
    made = [embed(s) for s in smiles]
    conformers = time.perf_counter() - started
    encoder = load_encoder("unimol", weights=str(folder / "official.pt"), device="cpu")
    inputs = [(c.atoms, c.coords) for c in made]
    encoder.encode_conformers(inputs[:32])
    started = time.perf_counter()
    encoder.encode_conformers(inputs)
    forward = time.perf_counter() - started
    return {"conformers": 1e3 * conformers / PLAIN_LOOP, "forward": 1e3 * forward / PLAIN_LOOP}


def _child(side: str, folder: Path) -> float:
    command = [sys.executable, "-m", "bench.encode", "--side", side, "--folder", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=HERE.parent)
    if done.returncode:
        raise SystemExit(f"{side} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])["seconds"]


def _cpu_name() -> str:
    names = [
        line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    return names[0].split(":")[1].strip() if names else platform.processor()


def main() -> None:
    """Measure both sides in turn and write encode.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--molecules", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--side", choices=["unimol_tools", "molsieve"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    sides = {"unimol_tools": run_unimol_tools, "molsieve": run_molsieve}
    if arguments.side:
        sides[arguments.side](arguments.folder)
        return

    import torch

    from tests.reference import write_checkpoints

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_checkpoints(folder)
        (folder / "moses.smi").write_text("\n".join(moses(arguments.molecules)) + "\n")
        seconds: dict[str, list[float]] = {side: [] for side in sides}
        for _ in range(arguments.repeats):
            for side in sides:
                seconds[side].append(_child(side, folder))
                print(f"{side}: {seconds[side][-1]:.1f} s", flush=True)
        ours, theirs = (np.load(folder / f"{side}.npy") for side in ("molsieve", "unimol_tools"))
        error = (np.linalg.norm(ours - theirs, axis=1) / np.linalg.norm(theirs, axis=1)).max()
        loops = plain_loops(folder)

    best = {side: min(times) for side, times in seconds.items()}
    rate = {side: arguments.molecules / best[side] for side in sides}
    cores = os.cpu_count()
    floor = arguments.molecules * sum(loops.values()) / 1e3 / cores
    lines = [
        "# Encoding MOSES molecules end to end",
        "",
        f"`make bench` on {cores} cores of {_cpu_name()}, torch {torch.__version__}, fp32, "
        f"{arguments.molecules:,} molecules of MOSES' scaffold test set, random weights of the "
        f"published shape, best of {arguments.repeats} runs taking turns.",
        "",
        "| | seconds | molecules/s | all runs, s |",
        "| --- | --- | --- | --- |",
        *(
            f"| {side} | {best[side]:.1f} | {rate[side]:.1f} | "
            f"{', '.join(f'{t:.1f}' for t in seconds[side])} |"
            for side in sides
        ),
        "",
        f"Ratio: **{best['unimol_tools'] / best['molsieve']:.2f}** times unimol_tools. "
        f"Largest relative difference of a molecule's feature: {error:.1e}.",
        "",
        "What bounds it: on one core a molecule takes "
        f"{loops['conformers']:.1f} ms for its conformer (RDKit) and {loops['forward']:.1f} ms "
        f"for the forward pass, so {cores} cores cannot need less than {floor:.1f} s; the run "
        f"reaches {100 * floor / best['molsieve']:.0f} % of that. The rest is the start of "
        "worker processes (each imports its libraries, encoders load the weights) and the tail, "
        "when the last batches are encoded and no conformers are left to make.",
        "",
    ]
    (HERE / "encode.md").write_text("\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
