"""Every detector on an assay-like split: whole targets of a table are ID, others OOD.

`python -m bench.detection --table FILE [--sampling drugood] [--seeds 0 1 2] --out FOLDER` writes
detection.md. FILE has the columns `smiles`, `target` and `y`; results lie in FOLDER, and a run that
was stopped goes on.

The split is that of `jobs.split --by column --column target`: the largest targets, 60 % of the
molecules, are ID; of the next ones detectors may learn, and the last are the test. Seeds decide
the sample and the training; every detector sees the same molecules.
"""

from __future__ import annotations

import argparse
import json
import statistics
from dataclasses import replace
from pathlib import Path

import pyarrow.compute as pc
import sklearn
import torch

from bench.report import cpu_name, markdown
from pipeline.encoding.views import encode_views, open_views
from pipeline.evaluation.metrics import auroc, compare_aurocs
from pipeline.molecules.features.fingerprints import packed_ecfp4
from pipeline.molecules.features.neighbours import nearest
from pipeline.molecules.roles import assign_roles
from pipeline.molecules.settings import SplitSettings
from pipeline.molecules.splitting.run import run_splitting
from pipeline.runtime.telemetry import configure_logging
from pipeline.training.checkpoints.checkpoint import load_checkpoint
from pipeline.training.checkpoints.references import References
from pipeline.training.fitting import fit_detector
from pipeline.training.outputs import write_checkpoint
from pipeline.training.run import fit_space
from pipeline.training.settings import TrainSettings
from pipeline.training.trainer import train_head

ENCODERS = "minimol,ecfp,descriptors"
FULL = f"{ENCODERS},distances"
ALONE = ("tanimoto", "knn", "mahalanobis", "lof", "isolation_forest")
EXPOSED = ("distance_lr", "oe_knn", "oe_mahalanobis")
LABELLED = ("msp", "odin", "energy", "mc_dropout", "ensemble", "energy_oe")
HEADS = ("dpo", "bce", "mse", "hinge", "bce with group DRO")
ACTIVE = 7.0  # p values from which a molecule counts as active, for detectors that learn labels
# What is tried: detectors by views.
PLAN = {
    "minimol": (*ALONE, *EXPOSED, *LABELLED, "dpo", "bce"),
    ENCODERS: ("knn", "mahalanobis", "oe_mahalanobis", "dpo", "bce"),
    FULL: ("dpo", "bce", "mse", "hinge", "bce with group DRO"),
}
REFERENCE = "tanimoto"


def main() -> None:
    """Run what is missing, and write detection.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--sampling", default="drugood", choices=("drugood", "good", "all"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--cache_root", default=".molsieve")
    given = parser.parse_args()
    configure_logging()
    given.out.mkdir(parents=True, exist_ok=True)
    split = given.out / "split.json.gz"
    if not split.exists():
        run_splitting(
            SplitSettings(
                data_file=str(given.table), output=str(split), by="column", column="target",
                label_column="y",
            )
        )  # fmt: skip
    for seed in given.seeds:
        path = given.out / f"seed_{seed}.json"
        if not path.exists():
            path.write_text(json.dumps(of_seed(split, seed, given), indent=1))
    found = [json.loads((given.out / f"seed_{seed}.json").read_text()) for seed in given.seeds]
    Path(__file__).with_name("detection.md").write_text(report(found, given))


def of_seed(split: Path, seed: int, given: argparse.Namespace) -> dict:
    """AUROC of every detector with one seed, and its paired lead over Tanimoto."""
    how = TrainSettings(
        data_file=str(split), label_column="reg_label", views=FULL, sampling=given.sampling,
        seed=seed, data_seed=seed,
        cache_root=given.cache_root, output_dir=str(given.out / f"seed_{seed}"), device="cpu",
    ).sized()  # fmt: skip
    plans, source = open_views(how, how.view_names)
    sample = assign_roles(source.molecules, how, how.data_file)
    encoded = encode_views(sample, source, plans)
    molecules = encoded.molecules
    active = pc.cast(pc.greater_equal(molecules["label"], ACTIVE), "float64")
    labelled = molecules.set_column(molecules.column_names.index("label"), "label", active)
    tests = molecules.filter(
        pc.is_in(molecules["role"], pc.cast(["id_test", "ood_test"], "string"))
    )
    is_ood = pc.equal(tests["role"], "ood_test").to_numpy(zero_copy_only=False)
    shown = References(molecules, seed).described(tests, encoded)
    scores, seconds = {}, {}
    for views, names in PLAN.items():
        settings = replace(how, views=views)
        space = fit_space(encoded, settings)
        for name in names:
            folder = f"{how.output_dir}/checkpoint"
            if name in HEADS:
                loss, dro = name.split()[0], "DRO" in name
                one = replace(settings, loss=loss, group_weights="dro" if dro else "none")
                trained = train_head(molecules, encoded, space, one, "cpu")
            else:
                trained = fit_detector(name, labelled, encoded, space, settings)
            write_checkpoint(folder, trained, molecules, encoded, space, settings)
            scores[f"{name} | {views}"] = load_checkpoint(folder).scores(shown)
            seconds[f"{name} | {views}"] = trained.stats["train_time_seconds"]
            print(
                seed, name, views, f"{auroc(is_ood, scores[f'{name} | {views}']):.3f}", flush=True
            )
    every = packed_ecfp4(source.molecules.filter(pc.equal(source.molecules["split"], "train"))
                         ["smiles"].to_pylist())  # fmt: skip
    scores["tanimoto to all ID training molecules"] = (
        1.0 - nearest(shown.bits, every).similarity[:, 0]
    )
    rival = f"{REFERENCE} | minimol"
    leads = {
        name: compare_aurocs(is_ood, score, {rival: scores[rival]}, samples=300)[rival]["lead_ci95"]
        for name, score in scores.items()
    }
    roles = molecules["role"].value_counts().to_pylist()
    return {
        "auroc": {name: auroc(is_ood, score) for name, score in scores.items()},
        "lead_ci95": leads,
        "seconds": seconds,
        "molecules": {row["values"]: row["counts"] for row in roles},
    }


def report(found: list[dict], given: argparse.Namespace) -> str:
    """detection.md: a line for each detector, the best first."""
    mean = {n: statistics.mean(one["auroc"][n] for one in found) for n in found[0]["auroc"]}
    rows = []
    for name in sorted(mean, key=mean.get, reverse=True):
        detector, _, views = name.partition(" | ")
        areas = [one["auroc"][name] for one in found]
        above = sum(one["lead_ci95"][name][0] > 0 for one in found)
        below = sum(one["lead_ci95"][name][1] < 0 for one in found)
        fit = statistics.mean(one["seconds"].get(name, 0.0) for one in found)
        rows.append([
            detector, views or "–", f"{mean[name]:.3f}", f"{min(areas):.3f}–{max(areas):.3f}",
            f"{above} / {below}", f"{fit:.1f}",
        ])  # fmt: skip
    sizes = ", ".join(f"{n:,} {role}" for role, n in found[0]["molecules"].items())
    header = ["detector", "views", "AUROC", "least–most", "above / below Tanimoto", "fit, s"]
    return "\n".join([
        "# Detection on an assay-like split",
        "",
        f"Made by `python -m bench.detection --sampling {given.sampling}` on "
        f"`{given.table.name}`, {len(found)} seeds; {cpu_name()}, torch {torch.__version__}, "
        f"scikit-learn {sklearn.__version__}. Molecules of the first seed: {sizes}.",
        "",
        "ID are the molecules of some targets, OOD those of others. AUROC on test molecules, mean",
        "over seeds. *Above / below Tanimoto*: seeds whose 95 % interval of the paired difference",
        f"to `tanimoto` (nothing trained) lies above or below 0, of {len(found)}. Detectors on",
        f"labels learn whether `y` ≥ {ACTIVE:g}.",
        "",
        *markdown(header, rows),
        "",
    ])  # fmt: skip


if __name__ == "__main__":
    main()
