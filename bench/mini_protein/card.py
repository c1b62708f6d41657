"""The folder of MolSieve-Mini-Protein: weights, curves, and a model card with measured figures.

`python -m bench.mini_protein.card PRETRAINED [FOUND]` takes what jobs.pretrain left in the folder
PRETRAINED, the counts of bench.mini_protein.exclude, and the found.json of bench.sequences where
there is one already, and writes pipeline/encoders/esm/mini/. All figures of the card come from
there.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from dataclasses import fields
from pathlib import Path, PurePosixPath
from typing import Any

import torch

from bench.report import cpu_name, markdown, with_interval
from pipeline.pretraining.settings import PretrainSettings

TARGET = Path(__file__).parents[2] / "pipeline" / "encoders" / "esm" / "mini"
COUNTS = Path(__file__).parent / "counts.json"
CURVES = ("pretraining_curves.csv", "pretraining_curves.png")
NOT_TOLD = ("output_dir", "cache_root", "dataset", "data_file", "exclude_file")
MODELS = ("mini-protein", "untrained")
SITES = {"dna": "residues that bind DNA", "ppi": "residues that bind a protein"}
TOLD = {
    "untrained": "the same model, untrained",
    "unigram": "how often each residue is",
    "neighbours": "both true neighbours, P(x \\| left, right)",
    "model": "MolSieve-Mini-Protein",
}
CARD = """# MolSieve-Mini-Protein: model card

A small ESM-2, pretrained from nothing on public proteins, so that MolSieve works on proteins and
peptides with real pretrained features where the published ESM-2 (30 MB to 11 GB) cannot be had. It
is no substitute for them.

{facts}

## Data

{rows:,} proteins of UniProt, as Debian's package mmseqs2-examples has them; © UniProt Consortium
([2023](https://doi.org/10.1093/nar/gkac1052)), CC BY 4.0. {excluded:,} of them are left out since
they resemble a test set (bench/mini_protein/excluded.csv.gz has them, made by `python -m
bench.mini_protein.exclude`); a protein may fall under several rules:

{left_out}

A chain's hit is an alignment by MMseqs2 at 30 % identity or more and an expectation of at most
1e-3, whatever its length; a peptide's covers at least half of it, and its expectation is at most
0.1, since a few residues agree by chance.

{others:,} have letters other than the twenty, {both:,} of those above among them; of equal
sequences one is kept. Held out are {held_out:,} proteins ({residues_held_out:,} residues), drawn as
whole clusters of proteins that share a word of nine residues; {trained_on:,} were trained on
({residues_trained_on:,} residues).

## Recipe

ESM-2's own: 15 % of the residues to be told, 80 % of them as <mask>, 10 % as a random residue, 10 %
as they are; parts of at most {crop:,} residues of longer proteins, at places drawn anew in each
epoch.

```
{command}
```

{steps:,} steps, {seen:,} residues ({epochs:.2f} epochs) in {minutes:.0f} minutes on {machine}, one
thread, which it shared with other work; torch {torch_version}, {precision}.

## Results

{told:,} residues of the held-out proteins, whole, all hidden by <mask>; the same for all.
The neighbours are the true ones, even where the model does not see them; their counts, and the
prior that smooths them ({prior:.1f} counts), are of the proteins that were trained on. The model is
that of the file, in fp16.

{results}

Curves: `pretraining_curves.png`, `.csv`.
{downstream}
## Limits

It has seen few proteins for a short time: do not expect it to know families, let alone structure.
It was trained on parts of at most {crop:,} residues; longer sequences can be encoded, but their far
ends were never seen together.
"""

DOWNSTREAM = """
## Downstream, beside the same model untrained

As in [bench/sequences.md](../../../../bench/sequences.md), which tells how and has cheaper features
beside: {pretrained} and the same model with random weights, each residue's feature into one
classifier, and the mean feature of a peptide into detectors. The whole interval of the difference
is above 0 in {better} of the {tests} tests on residues, and below it in {worse}; of the {detectors}
detectors of peptides {higher} have a higher AUROC with the pretrained model, on the first cut.

{table}
"""


def main() -> None:
    """Copy the files, and write the card."""
    source, counts = Path(sys.argv[1]), json.loads(COUNTS.read_text())
    found = json.loads(Path(sys.argv[2]).read_text()) if len(sys.argv) > 2 else {}
    TARGET.mkdir(exist_ok=True)
    for file in [*(source / "model").iterdir(), *(source / name for name in CURVES)]:
        shutil.copy(file, TARGET / file.name)
    stats = json.loads((source / "pretraining_stats.json").read_text())
    text = card(stats, counts, found, TARGET / "model.safetensors")
    (TARGET / "README.md").write_text(text)


def card(
    stats: dict[str, Any], counts: dict[str, int], found: dict[str, Any], weights: Path
) -> str:
    """The model card.

    Parameters
    ----------
    stats : the content of pretraining_stats.json.
    counts : of `exclude`: proteins that each rule leaves out, "in all", and "of" how many.
    found : of bench.sequences with `--weights mini-protein untrained`; may lack tasks.
    """
    settings = stats["settings"]
    others = stats["rejected"] - stats["excluded"]
    both = counts["in all"] - stats["excluded"]  # left out for their letters already
    if counts["of"] != stats["rows_in"] or not 0 <= both <= others:
        raise SystemExit(f"the counts, {counts}, are not those of this run's proteins")
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    facts = {
        "file": f"`model.safetensors`, {weights.stat().st_size / 1e6:.1f} MB, fp16, with `config."
        f"json` and `vocab.txt`: Hugging Face's layout; SHA-256 {digest}",
        "model": f"ESM-2 with {settings['layers']} layers, width {settings['width']}, feed-forward "
        f"{settings['ffn_width']}, {settings['heads']} heads; {stats['parameters']:,} parameters",
        "licence": "MIT for the weights; data: UniProt, CC BY 4.0",
        "use": "`--foundation_model esm --weights mini-protein`, or transformers' "
        "`EsmModel.from_pretrained` on this folder",
    }
    rules = [[name, f"{n:,}"] for name, n in counts.items() if name != "of"]
    results = [
        [text, *(f"{stats['heldout'][name][key]:.3f}" for key in ("perplexity", "cross_entropy")),
         f"{100 * stats['heldout'][name]['accuracy']:.1f} %"]
        for name, text in TOLD.items()
    ]  # fmt: skip
    return CARD.format(
        facts="\n".join(markdown(("", ""), [list(item) for item in facts.items()])),
        rows=stats["rows_in"], excluded=counts["in all"], others=others, both=both,
        left_out="\n".join(markdown(("rule", "proteins"), rules)),
        held_out=stats["sequences_held_out"],
        residues_held_out=stats["residues_held_out"], trained_on=stats["sequences_trained_on"],
        residues_trained_on=stats["residues_trained_on"], crop=settings["crop_length"],
        command=command(settings), steps=stats["steps"], seen=stats["residues_seen"],
        epochs=stats["residues_seen"] / stats["residues_trained_on"],
        minutes=stats["train_time_seconds"] / 60, machine=f"a core of {cpu_name()}",
        torch_version=torch.__version__.split("+")[0], precision=settings["precision"],
        told=stats["residues_told"], prior=stats["neighbours_prior_counts"],
        results="\n".join(markdown(("told by", "perplexity", "cross entropy", "right"), results)),
        downstream=downstream(found),
    )  # fmt: skip


def downstream(found: dict[str, Any]) -> str:
    """The section on what pretraining is worth; nothing where nothing was found."""
    rows, gains, higher = [], [], []
    for task, what in SITES.items():
        for test, features in found.get(task, {"tests": {}})["tests"].items():
            one, other = (features[f"esm, {weights}"] for weights in MODELS)
            gains.append(other["esm less this"]["aupr"])
            told = [with_interval(each["aupr"]) for each in (one, other)]
            rows.append([f"{what}, {test}: AUPR", *told, with_interval(gains[-1], "+")])
    if "peptides" in found:
        both = [found["peptides"][weights][0]["auroc"] for weights in MODELS]
        for detector in (name for name in both[0] if " | " in name):
            one, other = (of_model[detector] for of_model in both)
            higher.append(one[0] > other[0])
            told = [with_interval(each) for each in (one, other)]
            what = f"antimicrobial peptides, {detector.replace(' | ', ' on ')}: AUROC"
            rows.append([what, *told, f"{one[0] - other[0]:+.3f}"])
    if not rows:
        return ""
    header = ("", "pretrained", "untrained", "difference")
    return DOWNSTREAM.format(
        pretrained=TOLD["model"], table="\n".join(markdown(header, rows)), tests=len(gains),
        better=sum(low > 0 for _, low, _ in gains), worse=sum(high < 0 for _, _, high in gains),
        detectors=len(higher), higher=sum(higher),
    )  # fmt: skip


def command(settings: dict[str, Any]) -> str:
    """The command that pretrains so: all that is not as it is by default."""
    name = PurePosixPath(settings["data_file"]).name
    usual = PretrainSettings(data_file=settings["data_file"])
    words = [
        f"--{field.name} {settings[field.name]}"
        for field in fields(PretrainSettings)
        if field.name not in NOT_TOLD and settings[field.name] != getattr(usual, field.name)
    ]
    lines = [f"python -m jobs.pretrain --data_file {name} --exclude_file excluded.csv.gz"]
    for word in words:
        if len(lines[-1]) + len(word) > 95:
            lines[-1] += " \\"
            lines.append("   ")
        lines[-1] += f" {word}"
    return "\n".join(lines)


if __name__ == "__main__":
    main()
