"""Encoding MOSES molecules: MolSieve against unimol_tools, end to end and stage by stage.

Same molecules, same random weights of the published shape, same machine, each side in processes
of its own, taking turns. `make bench` writes encode.md.

End to end, MolSieve's time spans reading the file to features in the store, with the start of
processes and the loading of the model but without the start of Ray; unimol_tools' time
spans its import to its features.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bench.report import cpu_name, markdown, moses, seconds_of

HERE = Path(__file__).parent
FORWARD = 400  # molecules of the forward passes alone
STAGES = 200  # molecules of the stages on one core
BATCH = 32  # unimol_tools' default


def unimol_tools_end_to_end(folder: Path) -> dict[str, Any]:
    """UniMolRepr over all molecules, its import included."""
    smiles = read_smiles(folder)

    def work() -> None:
        from tests.reference import unimol_tools_features

        np.save(folder / "theirs.npy", unimol_tools_features(folder / "unimol_tools.pt", smiles))

    return {"seconds": seconds_of(work)}


def molsieve_end_to_end(folder: Path, precision: str, count: int) -> dict[str, Any]:
    """`run_encoding` with a cold store, then with the conformers stored."""
    from pipeline.encoding.plan import plan_encoding
    from pipeline.encoding.run import run_encoding
    from pipeline.encoding.settings import EncodeSettings
    from pipeline.molecules.identity import molecule_key
    from pipeline.runtime.nodes.cluster import start_ray

    smiles = read_smiles(folder)[:count]
    with tempfile.TemporaryDirectory() as output:
        (Path(output) / "some.smi").write_text("\n".join(smiles) + "\n")
        settings = EncodeSettings(
            data_file=f"{output}/some.smi",
            weights=str(folder / "official.pt"),
            cache_root=f"{output}/store",
            output_dir=output,
            precision=precision,
        )
        start_ray()
        cold = seconds_of(lambda: run_encoding(settings))
        keys = [molecule_key(s) for s in smiles]
        features = plan_encoding(settings).tables.features.read_features(keys)
        np.save(folder / f"ours_{precision}.npy", features)
        shutil.rmtree(f"{output}/store/features")
        return {"seconds": cold, "stored": seconds_of(lambda: run_encoding(settings))}


def forward_alone(folder: Path, threads: int) -> dict[str, float]:
    """Molecules a second of each forward pass on the same conformers and threads."""
    import torch
    from rdkit import Chem

    torch.set_num_threads(threads)
    from unimol_tools import UniMolRepr
    from unimol_tools.data.conformer import coords2unimol

    from pipeline.conformers.rdkit_embedder import embed
    from pipeline.encoders import load_encoder
    from pipeline.encoders.unimol.precision import default_precision
    from pipeline.encoders.unimol.published_format import load_model
    from pipeline.encoders.unimol.weights import resolve_weights

    made = [(c.atoms, c.coords) for c in map(embed, read_smiles(folder)[:FORWARD])]
    symbol = Chem.GetPeriodicTable().GetElementSymbol
    tool = UniMolRepr(
        use_cuda=False, batch_size=BATCH, pretrained_model_path=str(folder / "unimol_tools.pt"),
        pretrained_dict_path=str(folder / "dict.txt"),
    ).model.eval()  # fmt: skip
    inputs = [
        coords2unimol([symbol(int(a)) for a in atoms], xyz, tool.dictionary) for atoms, xyz in made
    ]
    collated = [
        tool.batch_collate_fn([(x, 0) for x in inputs[start : start + BATCH]])[0]
        for start in range(0, len(inputs), BATCH)
    ]

    @torch.inference_mode()
    def theirs() -> None:
        for batch in collated:
            tool(**batch, return_repr=True)

    weights = str(folder / "official.pt")
    runs: dict[str, Callable[[], Any]] = {"unimol_tools, fp32, batches ready": theirs}
    reference = load_encoder("unimol", weights=weights, device="cpu", precision="fp32")
    model = load_model(resolve_weights(weights))[0]
    reference.forward = torch.inference_mode()(model)
    runs["plain model, fp32"] = lambda: reference.encode_conformers(made)
    for precision in dict.fromkeys(("fp32", default_precision("cpu"))):
        encoder = load_encoder("unimol", weights=weights, device="cpu", precision=precision)
        runs[f"engine, {precision}"] = lambda e=encoder: e.encode_conformers(made)
    for run in runs.values():
        run()
    times = {name: [] for name in runs}
    for _ in range(2):
        for name, run in runs.items():
            times[name].append(seconds_of(run))
    return {name: FORWARD / min(taken) for name, taken in times.items()}


def stages_alone(folder: Path, precision: str) -> dict[str, float]:
    """Milliseconds a molecule on one core of each stage, and of RDKit's part of the first."""
    import torch
    from rdkit import Chem
    from rdkit.Chem import rdDistGeom, rdForceFieldHelpers

    from pipeline.conformers.child_process import IsolatedEmbedder
    from pipeline.conformers.rdkit_embedder import DEFAULT_SEED
    from pipeline.encoders import load_encoder

    torch.set_num_threads(1)
    smiles = read_smiles(folder)[:STAGES]
    graphs = [Chem.AddHs(Chem.MolFromSmiles(s)) for s in smiles]

    def rdkit_alone() -> None:
        for graph in graphs:
            molecule = Chem.Mol(graph)
            rdDistGeom.EmbedMolecule(molecule, randomSeed=DEFAULT_SEED)
            rdForceFieldHelpers.MMFFOptimizeMolecule(molecule)

    embedder = IsolatedEmbedder(seed=DEFAULT_SEED, hydrogens=False, limit_seconds=60)
    made = [(c.atoms, c.coords) for c in map(embedder.embed, smiles)]
    encoder = load_encoder(
        "unimol", weights=str(folder / "official.pt"), device="cpu", precision=precision
    )
    encoder.encode_conformers(made)
    works = {
        "rdkit": rdkit_alone,
        "conformers": lambda: [embedder.embed(s) for s in smiles],
        "forward": lambda: encoder.encode_conformers(made),
    }
    times = [{name: seconds_of(work) for name, work in works.items()} for _ in range(2)]
    return {name: 1e3 * min(t[name] for t in times) / STAGES for name in works}


def read_smiles(folder: Path) -> list[str]:
    """The molecules of this run."""
    return (folder / "moses.smi").read_text().split()


SIDES = {
    "unimol_tools": unimol_tools_end_to_end,
    "molsieve": molsieve_end_to_end,
    "forward": forward_alone,
    "stages": stages_alone,
}


def child(side: str, folder: Path, *arguments: str | int) -> dict[str, Any]:
    """One side's figures, from a process of its own."""
    words = [side, str(folder), *map(str, arguments)]
    command = [sys.executable, "-m", "bench.encode", "--side", *words]
    done = subprocess.run(command, capture_output=True, text=True, cwd=HERE.parent)
    if done.returncode:
        raise SystemExit(f"{side} failed:\n{done.stderr[-3000:]}")
    found = json.loads(done.stdout.strip().splitlines()[-1])
    print(side, *arguments, found, flush=True)
    return found


def relative_error(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Largest relative difference of a molecule's feature."""
    return float((np.linalg.norm(ours - theirs, axis=1) / np.linalg.norm(theirs, axis=1)).max())


def main() -> None:
    """Measure every side in turn and write encode.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--molecules", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--side", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        side, folder, *rest = arguments.side
        values = [int(word) if word.isdigit() else word for word in rest]
        print(json.dumps(SIDES[side](Path(folder), *values)))
        return

    import torch

    from pipeline.encoders.unimol.precision import default_precision
    from tests.reference import write_checkpoints

    total, few, cores = arguments.molecules, arguments.molecules // 4, os.cpu_count()
    default = default_precision("cpu")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_checkpoints(folder)
        (folder / "moses.smi").write_text("\n".join(moses(total)) + "\n")
        theirs, ours = [], []
        for _ in range(arguments.repeats):
            theirs.append(child("unimol_tools", folder)["seconds"])
            ours.append(child("molsieve", folder, default, total))
        ours_file, theirs_file = (folder / f"{n}.npy" for n in (f"ours_{default}", "theirs"))
        error = relative_error(np.load(ours_file), np.load(theirs_file))
        part = child("molsieve", folder, default, few)
        forward = child("forward", folder, cores)
        stage = child("stages", folder, default)

    cold, stored = (min(run[key] for run in ours) for key in ("seconds", "stored"))
    tool = min(theirs)
    tool_forward = forward["unimol_tools, fp32, batches ready"]
    loop = (stage["conformers"] + stage["forward"]) / 1e3
    steady = (cold - part["seconds"]) * cores / (total - few)
    end_to_end = [
        ["unimol_tools UniMolRepr, fp32", tool, theirs],
        [f"MolSieve, {default}, cold store", cold, [run["seconds"] for run in ours]],
        [f"MolSieve, {default}, conformers stored", stored, [run["stored"] for run in ours]],
    ]
    lines = [
        "# Encoding MOSES molecules",
        "",
        f"`make bench` on {cores} cores of {cpu_name()}, torch {torch.__version__}, the first "
        f"{total:,} molecules of MOSES' scaffold test set, random weights of the published shape, "
        f"best of {arguments.repeats} runs taking turns.",
        "",
        "## End to end",
        "",
        *markdown(
            ("", "seconds", "molecules/s", "times unimol_tools", "all runs, s"),
            [
                [what, f"{best:.1f}", f"{total / best:.1f}", f"{tool / best:.2f}",
                 ", ".join(f"{t:.1f}" for t in runs)]
                for what, best, runs in end_to_end
            ],
        ),  # fmt: skip
        "",
        f"Largest relative difference of a molecule's feature to unimol_tools': {error:.1e}. With "
        f"conformers stored, {total / stored / tool_forward:.2f} times unimol_tools' forward "
        "alone, start of processes included.",
        "",
        f"## Forward pass alone, {FORWARD} molecules, {cores} threads",
        "",
        *markdown(
            ("", "molecules/s", "times unimol_tools"),
            [[k, f"{v:.1f}", f"{v / tool_forward:.2f}"] for k, v in forward.items()],
        ),
        "",
        f"## Where the time goes, one core, {STAGES} molecules",
        "",
        *markdown(
            ("stage", "ms a molecule"),
            [
                ["RDKit's embedding and MMFF alone", f"{stage['rdkit']:.2f}"],
                ["conformer stage", f"{stage['conformers']:.2f} "
                 f"({stage['conformers'] / stage['rdkit']:.3f} times RDKit alone)"],
                [f"forward pass, {default}", f"{stage['forward']:.2f}"],
                ["both in a plain loop", f"{1e3 * loop:.2f}"],
                [f"the Ray flow, from {few:,} to {total:,} molecules", f"{1e3 * steady:.2f} "
                 f"({100 * (steady / loop - 1):+.1f} %)"],
            ],
        ),
        "",
        f"The plain loop's cost is the floor: {total * loop / cores:.1f} s for {total:,} molecules "
        f"on {cores} cores, of which the cold run reaches {100 * total * loop / cores / cold:.0f} "
        f"%. What a run costs besides its molecules, {cold - steady * total / cores:.1f} s, is the "
        "start of processes, which import their libraries, and the loading of the weights.",
        "",
    ]  # fmt: skip
    (HERE / "encode.md").write_text("\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
