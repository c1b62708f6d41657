"""What ESM-2's features tell of sequences, beside what is cheap: writes sequences.md.

`python -m bench.sequences --peptides ../shared/data/peptides_amp_vs_uniprot.csv.gz
--dna ../shared/data/dna_sites.parquet --ppi ../shared/data/ppi_sites.parquet --out FOLDER`

A task whose file is not named is left out. `--weights mini-protein untrained` are the models, the
latter Mini-Protein's shape with random values; the first is what all else is compared with on
sites. `--proteins 60` takes so many chains of each split, `--seeds 0` one cut of the peptides. What
was found is kept in the folder, so that the command goes on where it stopped; the page has only
what is there, and found.json all of it.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import sklearn
import torch
import transformers

from bench.report import cpu_name, markdown, with_interval
from bench.residue_sites import SEED, WIDE, sites_of
from bench.sequence_energies import (
    COVERAGE,
    IDENTITY,
    LARGE,
    SEEDS,
    energies_of,
    learns_from,
    read_peptides,
    spread,
)
from pipeline.augmentation.scores import METRICS
from pipeline.encoders.esm.weights import MINI_FOLDER
from pipeline.runtime.telemetry import configure_logging

TITLES = {
    "dna": "Residues that bind DNA",
    "ppi": "Residues that bind another protein",
}
SAID = {
    "dna": "The labels are GraphBind's (Xia et al., 2021), which were transferred between similar "
    "chains: more sites than the chain's own structure shows.",
    "ppi": "Train_335, Test_60 and Test_315 as of GraphPPIS (Yuan et al., 2022).",
}


def main() -> None:
    """Measure what is missing, and write sequences.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("peptides", "dna", "ppi"):
        parser.add_argument(f"--{name}", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--weights", nargs="+", default=["mini-protein", "untrained"])
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--proteins", type=int, help="chains of each split; default: all")
    parser.add_argument("--classifier", choices=("mlp", "logistic"), default="mlp")
    parser.add_argument("--classifier_seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--store", type=Path, default=Path(".molsieve"), help="store of features")
    given = parser.parse_args()
    configure_logging()
    given.out.mkdir(parents=True, exist_ok=True)
    given.models = {name: model_of(name, given.out) for name in given.weights}
    page = Path(__file__).with_name("sequences.md")
    lines, found = _head(given), {}
    if given.peptides:
        found["peptides"] = {
            name: energies_of(given, model, given.out / name.replace("/", "_"))
            for name, model in given.models.items()
        }
        lines += _of_peptides(found["peptides"], given)
    for task in TITLES:
        if path := getattr(given, task):
            found[task] = sites_of(task, path, given)
            lines += _of_sites(task, found[task], given)
    (given.out / "found.json").write_text(json.dumps(found, indent=1))
    page.write_text("\n".join([*lines, ""]))
    print(page.read_text())


def model_of(name: str, out: Path) -> str:
    """What --weights takes of a model; of "untrained" a folder of Mini-Protein's own shape."""
    folder = out / "untrained_model"
    if name == "untrained" and not folder.exists():
        torch.manual_seed(0)
        made = transformers.EsmForMaskedLM(transformers.EsmConfig.from_pretrained(MINI_FOLDER))
        made.save_pretrained(folder)
        shutil.copy(MINI_FOLDER / "vocab.txt", folder)
    return str(folder) if name == "untrained" else name


def _head(given: argparse.Namespace) -> list[str]:
    return [
        "# Sequences: what ESM-2's features add to what is cheap",
        "",
        f"Made by `python -m bench.sequences`, ESM-2 weights {', '.join(given.weights)}; "
        f"{cpu_name()}, torch {torch.__version__}, transformers {transformers.__version__}, "
        f"scikit-learn {sklearn.__version__}. `untrained` is of Mini-Protein's shape, with random "
        "values.",
    ]


def _of_peptides(found: dict[str, list[dict[str, Any]]], given: argparse.Namespace) -> list[str]:
    peptides = read_peptides(given.peptides, given.out / "clusters.json")
    first = next(iter(found.values()))
    roles = ", ".join(f"{role} {count:,}" for role, count in first[0]["roles"].items())
    best = " and ".join(sorted({each["best_descriptor"] for each in first}))
    lines = [
        "",
        "## Antimicrobial peptides against fragments of UniProt",
        "",
        f"`{given.peptides.name}`: {peptides.rows:,} rows, {peptides.distinct:,} different "
        f"sequences. {peptides.both:,} of these are in both classes and left out of what follows. "
        f"{int((~peptides.is_ood).sum()):,} antimicrobial ones are ID, "
        f"{int(peptides.is_ood.sum()):,} of UniProt OOD.",
        "",
        f"MMseqs2 links sequences of at least {IDENTITY:g} identity over {COVERAGE:g} of both: "
        f"{int(peptides.clusters.max()) + 1:,} clusters. Whole clusters train, validate or test; "
        f"those of more than {100 * LARGE:g} % of all train. "
        f"Sequences of the first cut: {roles}. AUROC on the test; the interval is over its "
        f"clusters ({first[0]['test_clusters']:,} of the first cut), the range over "
        f"{len(first)} cuts. The best descriptor in training was {best}.",
        "",
    ]
    rows = []
    for weights, seeds in found.items():
        for name in seeds[0]["auroc"]:
            is_model = " | " in name
            if is_model or weights == given.weights[0]:
                rows.append((name, weights if is_model else "–", [s["auroc"][name] for s in seeds]))
    rows.sort(key=lambda row: -row[2][0][0])
    table = [
        [
            name.replace(" | ", ", "), weights, learns_from(name), with_interval(areas[0]),
            spread(area for area, _, _ in areas),
        ]
        for name, weights, areas in rows
    ]  # fmt: skip
    header = ["score", "ESM-2", "learns from", "AUROC, first cut [95 %]", "all cuts"]
    return [*lines, *markdown(header, table)]


def _of_sites(task: str, found: dict[str, Any], given: argparse.Namespace) -> list[str]:
    counts = "; ".join(
        f"{split}: {chains:,} chains, {residues:,} residues, {sites:,} sites"
        for split, (chains, residues, sites) in found["counts"].items()
    )
    part = "" if given.proteins is None else f", {given.proteins} chains of each split at most"
    lines = [
        "",
        f"## {TITLES[task]}",
        "",
        f"{SAID[task]} Here{part}: {counts}.",
        "",
        f"The classifier is that of jobs.augment ({given.classifier}), seeds "
        f"{', '.join(map(str, given.classifier_seeds))}; a fifth of the training proteins (drawn "
        f"with seed {SEED}) stop it and set the threshold, by MCC. Composition: shares of letters "
        f"within {WIDE} residues, and of the chain. Means over seeds, 95 % intervals over test "
        "proteins.",
    ]
    for test, of_test in found["tests"].items():
        rows = []
        for name, made in of_test.items():
            gain = made["esm less this"]
            cells = [with_interval(made[metric]) for metric in METRICS]
            rows.append([name, *cells, with_interval(gain["aupr"], "+") if gain else "–"])
        header = [
            test,
            *(name.upper() for name in METRICS),
            f"AUPR of {given.weights[0]} less this",
        ]
        lines += ["", *markdown(header, rows)]
    return lines


if __name__ == "__main__":
    main()
