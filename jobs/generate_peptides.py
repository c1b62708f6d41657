"""Peptides with classes to a diffusion model of them, and new peptides of each class."""

import sys
from typing import Any

from jobs.cli import main, metric_cell, say
from pipeline.peptides.controls import MEASURES, told_verdict
from pipeline.peptides.settings import GeneratePeptidesSettings
from pipeline.runtime.text import aligned

COUNTS = ("peptides", "valid", "different", "uniqueness", "copies_of_training", "novelty")


def generate_peptides(settings: GeneratePeptidesSettings) -> None:
    """Train a generator of peptides, draw some, and say what they are worth."""
    from pipeline.peptides.run import run_peptides

    summary = run_peptides(settings)
    made, folder = summary["generator"], settings.output_dir
    best = made["at_best_step"]
    say(
        f"rows        {summary['rows_in']:,} in the file: {summary['rows_used']:,} used, "
        f"{summary['rejected']:,} rejected {_stages(summary['rejected_by_stage'])}",
        *(
            f"            {name}: {parts['train']:,} to train on, {parts['held_out']:,} held out"
            for name, parts in summary["peptides_by_class"].items()
        ),
        f"held out    {summary['held_out']} ({summary['clusters']:,} clusters)",
        f"generator   {made['parameters']:,} parameters on {made['latent_columns']:,} columns a "
        f"residue, {made['train_time_seconds']:.0f} s; waited for data "
        f"{made['waiting_share']:.1%} of the time{_gpu(best)}",
        f"learned     loss on held-out peptides {best['heldout_loss']:.4f} (weights of step "
        f"{made['best_step']:,}); best linear guess {best['linear_loss']:.4f}, zero "
        f"{best['zero_loss']:.4f}",
        *([] if made["better_than_linear"] else [
            "            WARNING: no better than a Gaussian of each class's residues"
        ]),
        *_structures(summary, best),
        f"decoder     tells {best['decoder_right_0']:.1%} of held-out residues right, with noise "
        f"of half a deviation {best['decoder_right_0.5']:.1%}",
        "",
        *_counts(summary["peptides"]),
        *(line for each in summary["measures"].items() for line in _measures(*each)),
        "",
        *map(told_verdict, *zip(*summary["nearer_than_controls"].items())),
        *([] if summary["macrel"] == "made" else [
            f"antimicrobial, hemolytic: {summary['macrel']}"
        ]),
        f"peptides    {folder}/generated.fasta, generated.parquet",
        f"generator   {folder}/generator",
        f"figures     {folder}/learning.png, measures.png",
    )  # fmt: skip


def _stages(stages: dict[str, int]) -> str:
    if not stages:
        return ""
    return f"({', '.join(f'{stage} {count:,}' for stage, count in stages.items())})"


def _gpu(best: dict[str, float]) -> str:
    if "gpu_utilisation" not in best:
        return ""
    return f", GPU {best['gpu_utilisation']:.0f} % busy, {best['gpu_power_watts']:.0f} W"


def _structures(summary: dict[str, Any], best: dict[str, float]) -> list[str]:
    if "heldout_loss_with_structures" not in best:
        return []
    whose = "those of others" if summary["structures_shuffled"] else "their own"
    return [
        f"structures  {summary['with_structure']:,} peptides have one; loss on the "
        f"{best['heldout_structures']:,} held-out ones of them with {whose} "
        f"{best['heldout_loss_with_structures']:.4f}, without "
        f"{best['heldout_loss_structures_hidden']:.4f}"
    ]


def _counts(classes: dict[str, dict[str, Any]]) -> list[str]:
    header = ("class", *(name.replace("_", " ") for name in COUNTS))
    rows = [
        [name, *(f"{found[each]:.3f}" if isinstance(found[each], float) else f"{found[each]:,}"
                 for each in COUNTS)]
        for name, found in classes.items()
    ]  # fmt: skip
    return aligned(header, rows)


def _measures(name: str, samples: dict[str, dict[str, Any]]) -> list[str]:
    """Of one class: generated peptides beside the controls, of equally many each."""
    first = next(iter(samples.values()))
    shown = [each for each in MEASURES if each in first]
    header = (f"class {name}, {first['rows']:,} each", "uniqueness", "novelty",
              *(MEASURES[each] for each in shown))  # fmt: skip
    rows = [
        [sample, f"{found['uniqueness']:.3f}", f"{found['novelty']:.3f}",
         *(metric_cell(found, each) for each in shown)]
        for sample, found in samples.items()
    ]  # fmt: skip
    return ["", *aligned(header, rows)]


if __name__ == "__main__":
    sys.exit(main(GeneratePeptidesSettings, generate_peptides, "generate_peptides"))
