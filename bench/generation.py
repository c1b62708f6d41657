"""What synthetic OOD features are worth to a detector, beside other OOD data and none.

`python -m bench.generation [--seeds 0 1 2] --out FOLDER` writes generation.md. Results lie in
FOLDER, and a run that was stopped goes on. Features are MiniMol's of the two shipped samples; all
is trained without their OOD molecules, but for the ceiling, and tested on their test molecules.
Needs the extra `generation`.
"""

from __future__ import annotations

import argparse
import json
import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from bench.generation_report import DIFFUSION, HEADER, table
from bench.report import cpu_name
from pipeline.detectors.base import Inputs
from pipeline.detectors.distance.feature_distances import nearest_features
from pipeline.detectors.feature_space import FeatureSpace
from pipeline.detectors.heads.energy_head import energies_of
from pipeline.detectors.registry import detector_class
from pipeline.encoding.views import EncodedViews, encode_views, open_views
from pipeline.evaluation.audit import find_rivals
from pipeline.evaluation.metrics import auroc
from pipeline.generation.measures import gaussian, noise
from pipeline.generation.settings import ShellSettings
from pipeline.generation.shell import Candidates, Shell, Synthetic, in_shell
from pipeline.generation.synthetic import synthetic_ood
from pipeline.molecules.roles import assign_roles
from pipeline.runtime.telemetry import configure_logging
from pipeline.training.checkpoints.checkpoint import head_of
from pipeline.training.checkpoints.references import References
from pipeline.training.run import fit_space
from pipeline.training.settings import TrainSettings
from pipeline.training.synthetic_ood import SyntheticOod
from pipeline.training.trainer import train_head

SAMPLES = ("hiv_scaffold_sample", "hiv_size_sample")
LOSSES = ("bce", "dpo")
ALONE = ("mahalanobis", "knn", "tanimoto")
DESCRIPTOR = "best descriptor"
BACKGROUND = Path("pipeline/molecules/background/background.smi.gz")
BOUNDARY_SHARE, STEP = 0.2, 0.25  # of NPOS: rows that are farthest out; the noise's deviation


class Pair(NamedTuple):
    """OOD features to train and to validate with, standardised."""

    train: np.ndarray
    validation: np.ndarray


@dataclass(frozen=True)
class Data:
    """One sample: its molecules, encoded, and their features by role, standardised."""

    settings: TrainSettings
    encoded: EncodedViews
    space: FeatureSpace
    inputs: dict[str, Inputs]

    @property
    def tests(self) -> tuple[np.ndarray, np.ndarray]:
        """Standardised test features, and which are OOD."""
        kinds = [self.inputs[role].features for role in ("id_test", "ood_test")]
        return np.concatenate(kinds), np.repeat([False, True], [len(kind) for kind in kinds])


def main() -> None:
    """Run what is missing, and write generation.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--cache_root", default=".molsieve")
    given = parser.parse_args()
    configure_logging()
    tables = []
    for sample in SAMPLES:
        data = opened(sample, given)
        others = without_training(data)
        scores, reports = {}, []
        for seed in given.seeds:
            found = of_seed(data, seed, given.out / f"{sample}_{seed}")
            reports.append({name: found.pop(name) for name in ("report", "far", "near")})
            for name, values in found.items():
                scores.setdefault(name, []).append(np.array(values))
        tables += table(sample, data, {**others, **scores}, reports)
    text = "\n".join([*HEADER.format(cpu=cpu_name(), torch=torch.__version__,
                                     seeds=len(given.seeds)).split("\n"), *tables])  # fmt: skip
    Path(__file__).with_name("generation.md").write_text(text)
    print(text)


def opened(sample: str, given: argparse.Namespace) -> Data:
    """A sample's molecules with features, and the background's."""
    settings = TrainSettings(
        data_file=f"data/{sample}.json.gz", views="minimol", device="cpu",
        cache_root=given.cache_root, output_dir=str(given.out / sample),
    ).sized()  # fmt: skip
    plans, source = open_views(settings, settings.view_names)
    encoded = encode_views(assign_roles(source.molecules, settings, sample), source, plans)
    space = fit_space(encoded, settings)
    public = replace(settings, data_file=str(BACKGROUND), smiles_column="smiles")
    plans, source = open_views(public, settings.view_names)
    known = pc.is_in(source.molecules["smiles"], encoded.molecules["smiles"].combine_chunks())
    background = encode_views(source.molecules.filter(pc.invert(known)), source, plans)
    references = References(encoded.molecules, settings.data_seed)

    def inputs(molecules: pa.Table, made: EncodedViews) -> Inputs:
        return space.inputs(references.described(molecules, made))

    by_role = {
        role: inputs(encoded.molecules.filter(pc.equal(encoded.molecules["role"], role)), encoded)
        for role in pc.unique(encoded.molecules["role"]).to_pylist()
    }
    by_role["background"] = inputs(background.molecules, background)
    return Data(settings, encoded, space, by_role)


def without_training(data: Data) -> dict[str, list[np.ndarray]]:
    """Test scores of what learns from ID molecules alone, and of the best descriptor."""
    tests = [data.inputs[role] for role in ("id_test", "ood_test")]
    known = data.inputs["id_train"]
    scores = {}
    for name in ALONE:
        fitted = detector_class(name).fit(known, None, None, data.settings, 0)
        scores[name] = [np.concatenate([fitted.scores(inputs) for inputs in tests])]
    molecules = data.encoded.molecules
    smiles = [
        molecules.filter(pc.equal(molecules["role"], role))["smiles"].to_pylist()
        for role in ("id_test", "ood_test")
    ]
    found = find_rivals(molecules, sum(smiles, []), data.tests[1], seed=0)
    return {**scores, f"{DESCRIPTOR}: {found.name}": [found.scores[0]]}


def of_seed(data: Data, seed: int, folder: Path) -> dict:
    """Test scores of heads by source of OOD features and loss, and what was synthesised."""
    kept = folder / "scores.json"
    found: dict = json.loads(kept.read_text()) if kept.exists() else {}
    made = synthetic_ood(
        data.inputs["id_train"].features, data.inputs["id_val"].features,
        data.settings.ood_size, ShellSettings(), seed, str(folder), "cpu",
    )  # fmt: skip
    found |= {"report": made.report, **where(data, made)}
    is_ood = data.tests[1]
    for name, pair in {DIFFUSION: _pair(made), **rivals(data, seed)}.items():
        for loss in LOSSES:
            if f"{loss} | {name}" in found:
                continue
            found[f"{loss} | {name}"] = scores = trained(data, pair, loss, seed, folder).tolist()
            print(data.settings.output_dir, seed, loss, name, f"{auroc(is_ood, scores):.3f}",
                  flush=True)  # fmt: skip
            kept.write_text(json.dumps(found))
    return found


def where(data: Data, made: Synthetic) -> dict:
    """Where synthetic features lie, beside real ones of the test.

    Returns
    -------
    dict
        `far`: of ID and OOD test molecules and synthetic features, the median distance to the fifth
        nearest ID training feature; `near`: how well nearness to synthetic ones finds OOD ones.
    """
    features, is_ood = data.tests
    known = data.inputs["id_train"].features
    kinds = (features[~is_ood], features[is_ood], made.train.features)
    far = [float(np.median(nearest_features(kind, known, 5).distance[:, -1])) for kind in kinds]
    nearest = nearest_features(features, made.train.features, 5).distance[:, -1]
    return {"far": far, "near": auroc(is_ood, -nearest)}


def rivals(data: Data, seed: int) -> dict[str, Pair]:
    """OOD features of other sources, by name."""
    known, held_out = (data.inputs[role].features for role in ("id_train", "id_val"))
    shell, count = Shell.fit(known, held_out, ShellSettings()), data.settings.ood_size
    attempts = ShellSettings().max_attempts
    own = np.arange(len(known))
    far = nearest_features(known, known, shell.judge.neighbours, own=own).distance[:, -1]
    boundary = known[far >= np.quantile(far, 1 - BOUNDARY_SHARE)]

    def of_gaussian(sources: np.ndarray, numbers: tuple[int, ...]) -> Candidates:
        mixed = np.random.default_rng([seed, *numbers]).integers(2**31)
        return _candidates(gaussian(known, len(sources), int(mixed)))

    def near_boundary(sources: np.ndarray, numbers: tuple[int, ...]) -> Candidates:
        rng = np.random.default_rng([seed, *numbers])
        return _candidates(sources + rng.normal(0, STEP, sources.shape).astype(np.float32))

    plain = noise(known, count, seed)
    public = data.inputs["background"].features
    public = public[np.random.default_rng(seed).permutation(len(public))]
    fifth = len(public) // 5
    return {
        "Gaussian, in the shell": _pair(in_shell(known, shell, count, of_gaussian, attempts, seed)),
        "boundary, in the shell": _pair(
            in_shell(boundary, shell, count, near_boundary, attempts, seed)
        ),
        "noise": Pair(plain[count // 5 :], plain[: count // 5]),
        "background": Pair(public[fifth:], public[:fifth]),
        "real": Pair(*(data.inputs[role].features for role in ("ood_train", "ood_val"))),
    }


def _candidates(features: np.ndarray) -> Candidates:
    return Candidates(features, np.full(len(features), -1))


def _pair(made: Synthetic) -> Pair:
    return Pair(made.train.features, made.validation.features)


def trained(data: Data, pair: Pair, loss: str, seed: int, folder: Path) -> np.ndarray:
    """Test scores of a head that was trained against some OOD features."""
    settings = replace(data.settings, loss=loss, seed=seed, output_dir=str(folder))
    blocks = data.inputs["id_train"].blocks
    ood = SyntheticOod({"ood_train": pair.train, "ood_val": pair.validation}, blocks, {})
    molecules, standard = data.encoded.molecules, data.space.plain
    logging.disable(logging.INFO)
    made = train_head(molecules, data.encoded, data.space, settings, "cpu", synthetic=ood)
    logging.disable(logging.NOTSET)
    head = head_of(made.config, made.files, data.space)
    return energies_of(head, data.tests[0] * standard.scale + standard.mean)


if __name__ == "__main__":
    main()
