"""A checkpoint to OOD metrics and a prediction for each test molecule."""

import sys

from jobs.cli import main, metric_cell, say
from pipeline.evaluation.settings import EvaluateSettings


def evaluate(settings: EvaluateSettings) -> None:
    """Evaluate a checkpoint and print its metrics."""
    from pipeline.conformers.structure import structures_line
    from pipeline.evaluation.audit import audit_lines
    from pipeline.evaluation.metrics import METRICS
    from pipeline.evaluation.run import run_evaluation

    results = run_evaluation(settings)
    line = structures_line(results["structures"])
    say(
        f"encoder     {results['encoder']} (weights: {results['weights']})",
        f"test set    {results['id_molecules']:,} ID and {results['ood_molecules']:,} OOD "
        f"molecules of {results['dataset']}",
        *(f"{name.upper():10}  {metric_cell(results, name)}" for name in METRICS),
        *audit_lines(results["audit"]),
        f"energy      ID mean {results['id_mean_energy']:.3f}, OOD mean "
        f"{results['ood_mean_energy']:.3f}",
        f"outputs     {settings.output_dir}",
        *([f"structures  {line}"] if line else []),
    )


if __name__ == "__main__":
    sys.exit(main(EvaluateSettings, evaluate, "evaluate"))
