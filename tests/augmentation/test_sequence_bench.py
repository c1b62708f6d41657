"""What bench.sequences measures with: letters around residues, and cuts by whole clusters."""

from __future__ import annotations

import gzip
import json
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import roc_auc_score

from bench.residue_sites import WIDE, compositions, one_hot_windows
from bench.sequence_energies import interval, read_peptides, roles_of
from pipeline.molecules.sequences import STANDARD


def test_compositions_and_windows_are_counts_of_letters(peptides):
    texts = list(peptides.values())[:6]
    chains = pa.table({"sequence": texts})
    for text, made, letters in zip(texts, compositions(chains), one_hot_windows(chains)):
        for place, row in enumerate(made):
            around = text[max(0, place - WIDE) : place + WIDE + 1]
            expected = [part.count(a) / len(part) for part in (around, text) for a in STANDARD]
            assert row == pytest.approx(expected, abs=1e-6)
            near = [text[i : i + 1] if i >= 0 else "" for i in range(place - 3, place + 4)]
            found = letters[place].reshape(7, 20)
            assert ["".join(np.array(list(STANDARD))[each > 0]) for each in found] == near


def test_peptides_of_both_classes_are_left_out_and_clusters_stay_whole(tmp_path):
    rows = ["5,1,UniProt,AMP", "GIGKF, 1", "GIGKF, 0", "KKLLA, 1", "WWRRG, 0", "KKLLA, 1"]
    with gzip.open(tmp_path / "p.csv.gz", "wt") as file:
        file.write("\n".join(rows))
    (tmp_path / "c.json").write_text(json.dumps([0, 1]))
    found = read_peptides(tmp_path / "p.csv.gz", tmp_path / "c.json")
    assert (found.rows, found.distinct, found.both) == (5, 3, 1)
    assert found.texts == ["KKLLA", "WWRRG"] and found.is_ood.tolist() == [False, True]

    clusters = np.repeat(np.arange(60), [4] * 59 + [100])
    size = len(clusters)
    many = found._replace(texts=[""] * size, is_ood=np.arange(size) % 2 == 0, clusters=clusters)
    roles = roles_of(many, 0)
    parts = [role.split("_")[1] for role in roles]
    assert all(len(set(parts[i : i + 4])) == 1 for i in range(0, 236, 4))
    assert set(parts[236:]) == {"train"}  # the large one
    shares = {part: count / size for part, count in Counter(parts).items()}
    assert shares == pytest.approx({"train": 0.6, "val": 0.2, "test": 0.2}, abs=0.02)
    assert roles_of(many, 1) != roles and roles_of(many, 0) == roles


def test_the_interval_is_of_whole_clusters():
    rng = np.random.default_rng(0)
    groups, is_ood = np.repeat(np.arange(30), 5), np.arange(150) % 2 == 0
    scores = rng.normal(size=150) + is_ood
    value, low, high = interval(scores, is_ood, groups)
    assert value == pytest.approx(roc_auc_score(is_ood, scores)) and low < value < high
