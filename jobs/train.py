"""A split file, or a training set of your own, to a trained detector of OOD molecules."""

import sys
from typing import Any

from jobs.cli import main, say
from pipeline.training.settings import TrainSettings


def train(settings: TrainSettings) -> None:
    """Train a detector and say how it went."""
    from pipeline.trust.training import train_and_audit

    tell_training(train_and_audit(settings), settings.output_dir)


def tell_training(stats: dict[str, Any], output_dir: str) -> None:
    """Say how a training went."""
    from pipeline.evaluation.audit import audit_lines

    seconds = stats["train_time_seconds"]
    say(
        f"encoder     {stats['encoder']} (weights: {stats['weights']})",
        *_parameters(stats),
        f"detector    {stats['detector']} on {', '.join(stats['views'])}",
        *_synthetic(stats.get("synthetic_ood")),
        *_chosen(stats.get("chosen_by_validation_auroc", {})),
        f"trained     {stats['epochs']} epochs in {seconds:.2f} s "
        f"({1000 * stats['avg_epoch_time_seconds']:.1f} ms an epoch)"
        if "epochs" in stats
        else f"fitted      in {seconds:.2f} s",
        f"validation  AUROC {stats['best_val_auroc']:.4f}"
        + (f" at epoch {stats['best_epoch']}" if "best_epoch" in stats else ""),
        *audit_lines(stats["audit"]),
        *_errors(stats.get("errors")),
        f"checkpoint  {output_dir}/checkpoint",
    )


def _chosen(aurocs: dict[str, float]) -> list[str]:
    if not aurocs:
        return []
    ranked = sorted(aurocs, key=aurocs.get, reverse=True)
    told = ", ".join(f"{name} {aurocs[name]:.3f}" for name in ranked)
    return [f"chosen      by validation AUROC of: {told}"]


def _synthetic(made: dict[str, Any] | None) -> list[str]:
    if made is None:
        return []
    shell = made["shell"]
    told = [
        f"synthetic   OOD features: {made['train']:,} to train, {made['validation']:,} to "
        f"validate; p-value {shell['least_p']:.3f} to {shell['most_p']:g} by "
        f"{shell['held_out']:,} ID validation molecules",
        "            validation says how far these lie, not how well real OOD molecules are found",
    ]
    if made["shortfall"]:
        told.append(
            f"            WARNING: {made['shortfall']:,} of {made['asked']:,} are missing: too few "
            f"of {made['candidates']:,} candidates lie there"
        )
    if not made["generator"]["better_than_linear"]:
        told.append("            WARNING: the generator is no better than a Gaussian")
    return told


def _errors(errors: dict[str, Any] | None) -> list[str]:
    if errors is None:
        return []
    return [
        f"errors      of {errors['predictions']}, told from {errors['fitted']:,} labelled "
        f"molecules; {errors['calibrate']:,} others calibrate intervals",
    ]


def _parameters(stats: dict[str, Any]) -> list[str]:
    if "cut" not in stats:
        return []
    trained, frozen = stats["encoder_parameters_trained"], stats["encoder_parameters_frozen"]
    trunk = "in the store" if stats["trunk_kept"] else "computed in every epoch"
    return [
        f"finetuned   {trained:,} encoder parameters, {frozen:,} frozen; trunk below layer "
        f"{stats['cut']} {trunk}"
    ]


if __name__ == "__main__":
    sys.exit(main(TrainSettings, train, "train"))
