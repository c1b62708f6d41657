"""Molecules or sequences without labels to pretrained weights of one's own: Uni-Mol or ESM-2."""

import sys
from typing import Any

from jobs.cli import main, say
from pipeline.pretraining.settings import PretrainSettings
from pipeline.runtime.text import aligned

LOSSES = {
    "loss": "loss",
    "token": "atom types (cross entropy)",
    "accuracy": "atom types (share told)",
    "coord": "coordinates (smooth L1)",
    "distance": "distances (smooth L1)",
}
TOLD = {
    "untrained": "before",
    "unigram": "by how often each residue is",
    "neighbours": "by both true neighbours",
    "model": "the model",
}


def pretrain(settings: PretrainSettings) -> None:
    """Pretrain and say how it went."""
    from pipeline.pretraining.run import run_pretraining

    stats = run_pretraining(settings)
    say(*(_of_sequences if "heldout" in stats else _of_molecules)(stats, settings.output_dir))


def _of_molecules(stats: dict[str, Any], folder: str) -> list[str]:
    rows = [
        [text, *(f"{stats[when][f'heldout_{name}']:.4f}" for when in ("before", "after"))]
        for name, text in LOSSES.items()
    ]
    return [
        *_of_all(stats, "molecules", f"{stats['rejected']:,}"),
        f"trained     {stats['steps']:,} steps in {stats['train_time_seconds']:.0f} s "
        f"({stats['molecules_per_second']:.0f} molecules/s)",
        "",
        *aligned(("held-out molecules", "before", "after"), rows),
        "",
        f"weights     {folder}/model.pt; use them with --weights",
        f"curves      {folder}/pretraining_curves.png, .csv",
    ]


def _of_sequences(stats: dict[str, Any], folder: str) -> list[str]:
    rows = [
        [text, f"{told['perplexity']:.2f}", f"{100 * told['accuracy']:.1f} %"]
        for text, told in ((text, stats["heldout"][name]) for name, text in TOLD.items())
    ]
    rejected = f"{stats['rejected']:,} ({stats['excluded']:,} of them by --exclude_file)"
    return [
        *_of_all(stats, "sequences", rejected),
        f"trained     {stats['steps']:,} steps, {stats['residues_seen']:,} residues in "
        f"{stats['train_time_seconds']:.0f} s ({stats['residues_per_second']:,.0f} residues/s)",
        "",
        *aligned((f"{stats['residues_told']:,} residues told", "perplexity", "right"), rows),
        "",
        f"weights     {folder}/model, in Hugging Face's layout",
        f"metrics     {folder}/metrics.json",
        f"curves      {folder}/pretraining_curves.png, .csv",
    ]


def _of_all(stats: dict[str, Any], what: str, rejected: str) -> list[str]:
    return [
        f"{what:11} {stats[f'{what}_trained_on']:,} trained on, {stats[f'{what}_held_out']:,} "
        f"held out, {rejected} of {stats['rows_in']:,} rows rejected",
        f"model       {stats['parameters']:,} parameters",
    ]


if __name__ == "__main__":
    sys.exit(main(PretrainSettings, pretrain, "pretrain"))
