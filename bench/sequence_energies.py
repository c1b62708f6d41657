"""Energies of antimicrobial peptides and of fragments of UniProt, beside what needs no model.

ID are antimicrobial peptides, OOD fragments of UniProt. Sequences are cut by clusters of identity,
so that the test has families that nobody learned from: 60 % of the sequences train, 20 % choose the
epoch, 20 % test, by whole clusters, whatever their class. Clusters of more than 2 % of all, which
would be most of a test, train.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pipeline.augmentation.intervals import RANGE, resampled_measures
from pipeline.augmentation.scores import METRICS, Judged, measures
from pipeline.encoding.views import encode_views, open_views
from pipeline.evaluation.audit import distances_to_nearest, find_rivals
from pipeline.molecules.features.descriptors import descriptor_names, descriptor_values
from pipeline.molecules.kinds import SEQUENCE
from pipeline.molecules.splitting.mmseqs import identity_clusters
from pipeline.training.checkpoints.checkpoint import load_checkpoint
from pipeline.training.checkpoints.references import References
from pipeline.training.fitting import fit_detector
from pipeline.training.outputs import write_checkpoint
from pipeline.training.run import fit_space
from pipeline.training.settings import TrainSettings
from pipeline.training.trainer import train_head

IDENTITY, COVERAGE = 0.4, 0.8  # as of jobs.split
PARTS = {"train": 0.6, "val": 0.2, "test": 0.2}
LARGE = 0.02  # share of all sequences
SEEDS = (0, 1, 2)  # of the cut, and of training
SAMPLES = 1000
HEADS = ("dpo", "bce")
PLAN = {
    "esm": ("mahalanobis", "knn", "lof", "oe_mahalanobis", "oe_knn", *HEADS),
    "esm,distances": ("dpo",),
}
ALONE = ("mahalanobis", "knn", "lof")  # learn from ID sequences alone


class Peptides(NamedTuple):
    """Sequences of one class each: texts, whether OOD (n,), clusters (n,); and what was left out.

    `both` are sequences of both classes, which belong to neither.
    """

    texts: list[str]
    is_ood: np.ndarray
    clusters: np.ndarray
    rows: int
    distinct: int
    both: int


def read_peptides(path: Path, kept: Path) -> Peptides:
    """The table: a line of counts and names of classes, then a sequence and its class a row.

    Parameters
    ----------
    kept : JSON file of the clusters, which take minutes; made if it is not there.
    """
    with gzip.open(path, "rt", newline="") as file:
        (_, _, *names), *rows = csv.reader(file, skipinitialspace=True)
    classes: dict[str, set[str]] = {}
    for text, number in rows:
        classes.setdefault(text, set()).add(names[int(number)])
    single = {text: found for text, found in classes.items() if len(found) == 1}
    texts = sorted(single)
    if not kept.exists():
        kept.write_text(json.dumps(identity_clusters(texts, IDENTITY, COVERAGE).tolist()))
    is_ood = np.array([single[text] == {"UniProt"} for text in texts])
    clusters = np.array(json.loads(kept.read_text()))
    both = len(classes) - len(texts)
    return Peptides(texts, is_ood, clusters, len(rows), len(classes), both)


def roles_of(peptides: Peptides, seed: int) -> list[str]:
    """Each sequence's role: whole clusters in random order, each to the part that lacks most.

    Clusters of more than LARGE of all sequences come first, and train.
    """
    rng, sizes = np.random.default_rng(seed), np.bincount(peptides.clusters)
    is_large = sizes > LARGE * sizes.sum()
    lacking = {part: share * len(peptides.texts) for part, share in PARTS.items()}
    order, part_of = rng.permutation(len(sizes)), {}
    for cluster in (*order[is_large[order]], *order[~is_large[order]]):
        part_of[cluster] = "train" if is_large[cluster] else max(lacking, key=lacking.get)
        lacking[part_of[cluster]] -= sizes[cluster]
    kinds = np.where(peptides.is_ood, "ood", "id")
    return [f"{kind}_{part_of[cluster]}" for kind, cluster in zip(kinds, peptides.clusters)]


def energies_of(given: argparse.Namespace, weights: str, folder: Path) -> list[dict[str, Any]]:
    """What each seed found with an ESM-2; kept in the folder."""
    peptides = read_peptides(given.peptides, given.out / "clusters.json")
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for seed in given.seeds:
        path = folder / f"energies_{seed}.json"
        if not path.exists():
            path.write_text(json.dumps(_of_seed(peptides, weights, seed, given, folder), indent=1))
        found.append(json.loads(path.read_text()))
    return found


def _of_seed(
    peptides: Peptides, weights: str, seed: int, given: argparse.Namespace, folder: Path
) -> dict[str, Any]:
    data = given.out / "peptides.csv"
    if not data.exists():
        data.write_text("\n".join(["sequence", *peptides.texts, ""]))
    how = TrainSettings(
        data_file=str(data), sequence_column="sequence", views="esm,distances", weights=weights,
        seed=seed, data_seed=seed, cache_root=str(given.store), output_dir=str(folder),
        device="cpu",
    ).sized()  # fmt: skip
    plans, source = open_views(how, how.view_names)
    role_of = dict(zip(peptides.texts, roles_of(peptides, seed)))
    roles = pa.array([role_of[text] for text in source.molecules["smiles"].to_pylist()])
    encoded = encode_views(source.molecules.append_column("role", roles), source, plans)
    molecules = encoded.molecules
    tests = molecules.filter(pa.array([r.endswith("_test") for r in molecules["role"].to_pylist()]))
    is_ood = np.array([role == "ood_test" for role in tests["role"].to_pylist()])
    shown, scores = References(molecules, seed).described(tests, encoded), {}
    for views, names in PLAN.items():
        settings = replace(how, views=views)
        space = fit_space(encoded, settings)
        for name in names:
            if name in HEADS:
                one = replace(settings, loss=name)
                trained = train_head(molecules, encoded, space, one, "cpu")
            else:
                trained = fit_detector(name, molecules, encoded, space, settings)
            checkpoint = str(folder / "checkpoint")
            write_checkpoint(checkpoint, trained, molecules, encoded, space, settings)
            scores[f"{name} | {views}"] = load_checkpoint(checkpoint).scores(shown)
    texts = tests["smiles"].to_pylist()
    rivals, best = _rivals(molecules, texts, is_ood, seed)
    cluster_of = dict(zip(peptides.texts, peptides.clusters))
    groups = np.unique([cluster_of[text] for text in texts], return_inverse=True)[1]
    counts = {
        role: molecules["role"].to_pylist().count(role) for role in sorted(set(role_of.values()))
    }
    return {
        "roles": counts,
        "test_clusters": int(groups.max()) + 1,
        "best_descriptor": best,
        "auroc": {name: interval(each, is_ood, groups) for name, each in (scores | rivals).items()},
    }


def _rivals(
    molecules: pa.Table, texts: list[str], is_ood: np.ndarray, seed: int
) -> tuple[dict[str, np.ndarray], str]:
    """Scores (n,) of what needs no model, and the name of the best descriptor."""
    found = find_rivals(molecules, texts, is_ood, seed=seed, kind=SEQUENCE)
    descriptor, tanimoto = found.scores
    values = dict(zip(descriptor_names(SEQUENCE), descriptor_values(texts, SEQUENCE).T))
    signed = {
        name: values[name] * (1 if found.descriptors[name]["ood_is"] == "higher" else -1)
        for name in ("length", "net charge at pH 7")
    }
    of_role: Mapping[str, list[str]] = {"id_train": [], "ood_train": []}
    for text, role in zip(molecules["smiles"].to_pylist(), molecules["role"].to_pylist()):
        if role in of_role:
            of_role[role].append(text)
    shares = [name.startswith("share") for name in descriptor_names(SEQUENCE)]
    far = distances_to_nearest(texts, of_role["ood_train"], SEQUENCE)
    return {
        **signed,
        "best descriptor": descriptor,
        "logistic, composition": _logistic(of_role, texts, np.array(shares)),
        "logistic, all descriptors": _logistic(of_role, texts, np.ones(len(shares), bool)),
        "k-mers, nearest ID": tanimoto,
        "k-mers, nearest ID − nearest OOD": tanimoto - far,
    }, found.name


def _logistic(
    of_role: Mapping[str, list[str]], texts: list[str], columns: np.ndarray
) -> np.ndarray:
    """Logistic regression of OOD on descriptors of the training sequences: scores (n,)."""
    x = [descriptor_values(of_role[role], SEQUENCE)[:, columns] for role in of_role]
    y = np.repeat([0, 1], [len(each) for each in x])
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    fitted = model.fit(np.concatenate(x), y)
    return fitted.decision_function(descriptor_values(texts, SEQUENCE)[:, columns])


def interval(scores: np.ndarray, is_ood: np.ndarray, groups: np.ndarray) -> list[float]:
    """AUROC, and its 95 % interval by resamples of whole clusters."""
    place = METRICS.index("auroc")
    judged = Judged(scores, np.zeros(len(scores), bool), is_ood, groups)
    drawn = resampled_measures(judged, SAMPLES, 0)[:, place]
    low, high = np.nanpercentile(drawn, RANGE)
    return [measures(scores, is_ood)["auroc"], float(low), float(high)]


def learns_from(name: str) -> str:
    """Whose training sequences a row of the table has seen."""
    if name.split(" | ")[0] in ALONE or name == "k-mers, nearest ID":
        return "ID"
    return "ID and OOD"


def spread(values: Iterable[float]) -> str:
    """Least to most."""
    values = list(values)
    return f"{min(values):.3f}–{max(values):.3f}"
