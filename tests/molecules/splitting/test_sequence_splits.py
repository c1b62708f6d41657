"""Splits of sequences: clusters by identity or by k-mers, and lengths."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from pipeline.molecules.formats import read_rows
from pipeline.molecules.settings import SplitSettings
from pipeline.molecules.sources import parse_rows
from pipeline.molecules.splitting import mmseqs
from pipeline.molecules.splitting.run import run_splitting
from pipeline.runtime.errors import InputError
from tests.conftest import DATA

needs_mmseqs = pytest.mark.skipif(not mmseqs.is_there(), reason="MMseqs2 is not on the PATH")
FASTA = str(DATA / "peptides.fasta")


def split(path: Path, **changes) -> tuple[dict, dict[str, list[dict]]]:
    settings = SplitSettings(data_file=FASTA, output=str(path / "split.json"), **changes)
    made = run_splitting(settings)
    return made, json.loads((path / "split.json").read_text())["split"]


@pytest.fixture
def families(peptides) -> list[list[str]]:
    """Eight families of four: a peptide, and copies with a residue or two changed."""
    rng, letters = np.random.default_rng(3), list("ACDEFGHIKLMNPQRSTVWY")
    found = []
    for text in [text for text in peptides.values() if 25 <= len(text) <= 40][:8]:
        members = [text]
        for _ in range(3):
            changed = list(text)
            for place in rng.choice(len(text), 2, replace=False):
                changed[place] = str(rng.choice(letters))
            members.append("".join(changed))
        found.append(members)
    return found


@needs_mmseqs
def test_families_are_clusters_by_identity(families):
    texts = [text for family in families for text in family]
    order = np.random.default_rng(0).permutation(len(texts))
    found = mmseqs.identity_clusters([texts[i] for i in order] + ["GK", "WW"], 0.5, 0.8)
    of_family = defaultdict(set)
    for place, cluster in zip(order, found):
        of_family[place // 4].add(cluster)
    assert all(len(clusters) == 1 for clusters in of_family.values())
    assert len({min(clusters) for clusters in of_family.values()}) == len(families)
    assert len(set(found)) == len(families) + 2  # too short to align, so alone
    first = [np.flatnonzero(found == cluster)[0] for cluster in range(found.max() + 1)]
    assert first == sorted(first)


def test_without_mmseqs_clusters_are_of_kmers_which_is_said(tmp_path, ray_session, monkeypatch):
    monkeypatch.setattr(mmseqs, "is_there", lambda: False)
    made, items = split(tmp_path, by="cluster", clusters=12)
    assert made["order"] == "12 clusters of k-mers, in random order"
    every = [item for part in items.values() for item in part]
    assert len(every) == 60 and all(item["sequence"] and "smiles" not in item for item in every)
    with pytest.raises(InputError, match="mmseqs is not on the PATH; install"):
        split(tmp_path, by="cluster", cluster_method="mmseqs2")


@needs_mmseqs
def test_no_cluster_by_identity_is_cut_into_in_and_out(tmp_path, ray_session):
    made, items = split(tmp_path, by="cluster", identity=0.3)
    assert "clusters of sequences (MMseqs2, identity 0.3, coverage 0.8)" in made["order"]
    parts = defaultdict(set)
    for name, some in items.items():
        for item in some:
            parts[item["domain_id"]].add("ID" if name[:3] in ("tra", "iid") else name)
    assert all(len(found) == 1 for found in parts.values())


def test_sizes_are_lengths_and_the_split_is_read_again(tmp_path, ray_session):
    made, items = split(tmp_path, by="size")
    assert made["order"] == "lengths, longest first"
    shortest = min(len(item["sequence"]) for item in items["train"])
    assert shortest >= max(len(item["sequence"]) for item in items["ood_test"])
    from pipeline.molecules.settings import SourceSettings

    again = SourceSettings(data_file=str(tmp_path / "split.json"), sequence_column="sequence")
    molecules = parse_rows(read_rows(again), again).molecules
    assert molecules.num_rows == 60 and set(molecules["split"].to_pylist()) == set(items)


@pytest.mark.parametrize(
    ("data", "changes", "told"),
    [
        (FASTA, {"by": "scaffold"}, "sequences have no scaffolds; take --by cluster"),
        (FASTA, {}, "sequences have no scaffolds"),
        (
            str(DATA / "hiv.smi"), {"by": "cluster", "cluster_method": "mmseqs2"},
            "--cluster_method mmseqs2 is for sequences",
        ),
    ],
)  # fmt: skip
def test_what_a_kind_has_not_is_refused(tmp_path, ray_session, data, changes, told):
    settings = SplitSettings(data_file=data, output=str(tmp_path / "s.json"), **changes)
    with pytest.raises(InputError, match=told):
        run_splitting(settings)
