"""What the encoder's precision does to features and to OOD detection on the shipped sample.

`python -m bench.precision` encodes the sample in each precision that this machine multiplies
natively, trains Energy-DPO on the features over three seeds, and writes precision.md.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from bench import SAMPLES
from bench.report import cpu_name, markdown
from pipeline.encoders.unimol.precision import PRECISIONS, multiplies_natively
from pipeline.encoding.plan import open_run
from pipeline.evaluation.run import train_and_evaluate
from pipeline.training.settings import TrainSettings

SEEDS = (42, 43, 44)


def main() -> None:
    """Train and evaluate on each precision's features; write precision.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache_root", default=".molsieve")
    parser.add_argument("--output_dir", default="outputs/precision")
    parser.add_argument("--weights", default="untrained")
    arguments = parser.parse_args()
    names = [name for name, dtype in PRECISIONS.items() if multiplies_natively(dtype)]
    features, aurocs = {}, {name: [] for name in names}
    for name in names:
        for seed in SEEDS:
            folder = f"{arguments.output_dir}/{name}-{seed}"
            settings = TrainSettings(
                data_file=str(SAMPLES["scaffold"]), weights=arguments.weights, precision=name,
                seed=seed, sampling="all", cache_root=arguments.cache_root, output_dir=folder,
                device="cpu",
            )  # fmt: skip
            aurocs[name].append(train_and_evaluate(settings)["auroc"])
        plan, source = open_run(settings)
        table = plan.tables.features
        index = table.index()
        keys = sorted(set(source.molecules["key"].to_pylist()))
        keys = [key for key in keys if key in index]
        features[name] = table.read_features(keys, index).astype(np.float64)
    exact = features["fp32"]
    norm = np.linalg.norm(exact, axis=1)
    rows = []
    for name in names:
        error = np.linalg.norm(features[name] - exact, axis=1) / norm
        cosine = (features[name] * exact).sum(1) / (norm * np.linalg.norm(features[name], axis=1))
        change = max(abs(a - b) for a, b in zip(aurocs[name], aurocs["fp32"]))
        rows.append(
            (name, f"{error.mean():.1e}", f"{error.max():.1e}", f"{cosine.min():.6f}",
             ", ".join(f"{a:.4f}" for a in aurocs[name]), f"{change:.4f}")
        )  # fmt: skip
    lines = [
        "# What the precision does to features and to OOD detection",
        "",
        f"`python -m bench.precision` on {cpu_name()}, torch {torch.__version__}: "
        f"{len(exact):,} molecules of the shipped sample (HIV, split by scaffold), weights "
        f"{arguments.weights}, test AUROC of Energy-DPO with seeds {', '.join(map(str, SEEDS))}. "
        "Errors are relative to fp32, which equals unimol_tools within 1e-5.",
        "",
        *markdown(
            ("precision", "mean error", "largest error", "least cosine", "test AUROC",
             "largest change of AUROC"), rows,
        ),
        "",
    ]  # fmt: skip
    (Path(__file__).parent / "precision.md").write_text("\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
