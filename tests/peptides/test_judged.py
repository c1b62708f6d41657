"""Measures, controls, what is nearest and held out, and the files that are written."""

import sys
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rapidfuzz.distance import Levenshtein
from scipy.spatial.distance import jensenshannon

from pipeline.molecules.reading.fasta import open_fasta
from pipeline.molecules.sequences import STANDARD
from pipeline.peptides import activity
from pipeline.peptides.controls import (
    GENERATED,
    HELD_OUT,
    RANDOM,
    SHUFFLED,
    controls_of,
    told_verdict,
    verdict,
)
from pipeline.peptides.holdout import cut
from pipeline.peptides.judged import (
    Judged,
    composition_counts,
    counted,
    jensen_shannon,
    length_counts,
    measured,
    pair_counts,
)
from pipeline.peptides.nearest import Nearest, clusters, nearest
from pipeline.peptides.output import described_in, repeats_of, write_peptides
from pipeline.runtime.errors import InputError
from tests.peptides.conftest import sequences_of

MAGAININ, MELITTIN = "GIGKFLHSAKKFGKAFVGEIMNS", "GIGAVLKVLTTGLPALISWIKRKRQQ"


def test_divergences_are_scipys_distances_squared_in_bits():
    rng = np.random.default_rng(0)
    for sparse in (0.0, 0.6):
        p, q = rng.integers(1, 30, size=(2, 40)) * (rng.random((2, 40)) >= sparse)
        assert jensen_shannon(p, q) == pytest.approx(jensenshannon(p, q, base=2) ** 2)
    assert jensen_shannon(np.array([1, 0]), np.array([0, 5])) == 1
    assert jensen_shannon(np.array([2, 4]), np.array([1, 2])) == 0


def test_counts_are_those_of_a_plain_loop():
    texts = sequences_of(30, 5)[0] + ["AA", "C"]
    pairs = pair_counts(texts)
    for place, text in enumerate(texts):
        assert composition_counts(texts)[place].tolist() == [text.count(a) for a in STANDARD]
        found = Counter(a + b for a, b in zip(text, text[1:]))
        assert pairs[place].tolist() == [found[a + b] for a in STANDARD for b in STANDARD]
        assert length_counts(texts, 30)[place].nonzero()[0].tolist() == [len(text)]


def test_measures_tell_the_class_from_another_and_have_intervals_of_their_means():
    training, classes = sequences_of(200, 1)
    mine = [text for text, c in zip(training, classes) if c == 1]
    others, kinds = sequences_of(200, 2)
    found = {}
    for number in (0, 1):
        texts = [text for text, c in zip(others, kinds) if c == number]
        near = Nearest(np.linspace(0.2, 0.9, len(texts), dtype=np.float32), np.zeros(100, int))
        judged = Judged(texts, near, activity.Activity(*np.full((2, 100), 0.25, np.float32)))
        found[number] = measured(judged, mine, seed=0)
    for name in ("residue_jsd", "pair_jsd"):
        assert found[1][name] < 0.15 < 0.9 < found[0][name]
    low, high = found[1]["nearest_identity_ci95"]
    identity = np.linspace(0.2, 0.9, 100)
    half = 1.96 * identity.std() / 10  # of a mean of 100
    assert (low, high) == pytest.approx((0.55 - half, 0.55 + half), abs=0.015)
    assert found[1]["nearly_training"] == pytest.approx((identity >= 0.8).mean())
    assert found[1]["amp_probability_ci95"] == [0.25, 0.25]


def test_collapse_and_copies_are_counted_not_hidden():
    made = ["KLKL", "KLKL", "AAAA", "G", "KXKK"]
    assert counted(made, ["AAAA", "LLLL"], 2, 10) == {
        "peptides": 5, "valid": 3, "different": 4, "uniqueness": 0.8,
        "copies_of_training": 1, "novelty": 0.8,
    }  # fmt: skip
    assert repeats_of(made) == [False, True, False, False, False]


def test_controls_have_the_lengths_and_compositions_that_they_should():
    held_out, _ = sequences_of(80, 3)
    composition = np.linspace(1, 3, 20) / np.linspace(1, 3, 20).sum()
    lengths = [3 + len(text) for text in held_out]
    made = controls_of(held_out, lengths, composition, (1, 2))
    assert made[HELD_OUT] == held_out
    assert made == controls_of(held_out, lengths, composition, (1, 2))
    assert [len(text) for text in made[SHUFFLED]] == [len(text) for text in held_out]
    assert [len(text) for text in made[RANDOM]] == lengths
    for control in (SHUFFLED, RANDOM):
        assert sum(a == b for a, b in zip(made[control], held_out)) < 10
    assert [Counter(text) for text in made[SHUFFLED]] == [Counter(text) for text in held_out]
    long = controls_of(["A"], [20_000], composition, (1,))[RANDOM][0]
    assert [long.count(a) / 20_000 for a in STANDARD] == pytest.approx(composition, abs=0.007)


def test_intervals_hold_their_values_and_are_of_whole_clusters():
    training, texts = sequences_of(200, 1)[0], sequences_of(40, 2)[0]
    identity = np.repeat(np.linspace(0.1, 0.9, 10), 4).astype(np.float32)
    judged = Judged(texts, Nearest(identity, np.zeros(40, int)), None)
    alone = measured(judged, training, seed=0)
    joint = measured(judged, training, seed=0, clusters=np.repeat(np.arange(10) + 70, 4))
    for found in (alone, joint):
        for name in ("residue_jsd", "pair_jsd", "length_jsd", "nearest_identity"):
            low, high = found[f"{name}_ci95"]
            assert 0 <= low <= found[name] <= high <= 1 and high - low > 1e-3, name
    assert joint["pair_jsd"] == alone["pair_jsd"]
    wide, narrow = (np.ptp(found["nearest_identity_ci95"]) for found in (joint, alone))
    # of 10 means instead of 40 the deviation is twice as large
    assert wide / narrow == pytest.approx(2, rel=0.25)
    assert wide == pytest.approx(2 * 1.96 * identity.std() / 10**0.5, rel=0.25)


def test_a_verdict_is_by_the_whole_interval_and_both_controls():
    def of(pairs, likely, ends=(0.0, 0.0)):
        return {"pair_jsd": pairs, "pair_jsd_ci95": [pairs - 0.001, pairs + 0.001],
                "amp_probability": likely, "residue_jsd": 0.0,
                "amp_probability_ci95": [likely + end for end in ends]}  # fmt: skip

    def found(generated):
        return verdict({GENERATED: generated, HELD_OUT: of(0.04, 0.8),
                        SHUFFLED: of(0.05, 0.5), RANDOM: of(0.03, 0.3)})  # fmt: skip

    assert found(of(0.042, 0.7)) == {"pair_jsd": True, "amp_probability": True}
    assert found(of(0.0495, 0.7, (-0.21, 0.1))) == {"pair_jsd": False, "amp_probability": False}
    assert found(of(0.042, 0.4)) == {"pair_jsd": True, "amp_probability": False}
    told = told_verdict("a", found(of(0.042, 0.4)))
    assert told.startswith("class a: ") and "are by pairs (JSD, bits); they are not by anti" in told
    assert "by none of the measures; they" in told_verdict("a", found(of(0.01, 0.4)))


def test_the_nearest_is_that_of_all_pairs():
    texts, others = sequences_of(25, 1)[0], sequences_of(600, 2)[0]
    found = nearest(texts, others)
    for place, text in enumerate(texts):
        every = [
            1 - Levenshtein.distance(text, other) / max(len(text), len(other)) for other in others
        ]
        assert found.identity[place] == pytest.approx(max(every))
        assert every[found.place[place]] == pytest.approx(max(every))
    assert nearest(["KLKL"], ["KLKL"]).identity[0] == 1 and len(nearest([], others).identity) == 0


def test_clusters_are_those_that_links_join(monkeypatch):
    monkeypatch.setattr("pipeline.peptides.nearest.AT_ONCE", 7)  # blocks that must meet
    texts = sequences_of(60, 4)[0]
    found = clusters(texts, 0.5)
    parent = list(range(len(texts)))
    for a, one in enumerate(texts):
        for b, other in enumerate(texts[:a]):
            if 1 - Levenshtein.distance(one, other) / max(len(one), len(other)) >= 0.5:
                old, new = parent[a], parent[b]
                parent = [new if p == old else p for p in parent]
    same = np.equal.outer(found, found)
    assert (same == np.equal.outer(parent, parent)).all()
    assert 1 < len(set(parent)) < 60


def test_whole_clusters_are_held_out_and_every_class_has_its_share():
    rng = np.random.default_rng(0)
    classes = np.repeat([0, 1], [400, 100])
    groups = np.where(np.arange(500) < 60, 0, 1 + rng.permutation(500) // 3)  # one large cluster
    parts = cut(classes, groups, ("a", "b"), 0.2, seed=1)
    assert sorted([*parts.train, *parts.held_out]) == list(range(500))
    assert not set(groups[parts.train]) & set(groups[parts.held_out])
    held = np.bincount(classes[parts.held_out])
    assert 75 <= held[0] <= 80 and held[1] == 20
    again = cut(classes, groups, ("a", "b"), 0.2, seed=1)
    assert (again.held_out == parts.held_out).all()
    assert (cut(classes, groups, ("a", "b"), 0.2, seed=2).held_out[:9] != parts.held_out[:9]).any()


def test_a_class_with_too_few_peptides_or_in_one_cluster_is_told():
    with pytest.raises(InputError, match="class 'b' has 30 different peptides, too few"):
        cut(np.repeat([0, 1], [200, 30]), np.arange(230), ("a", "b"), 0.15, seed=0)
    groups = np.where(np.arange(400) < 200, np.arange(400), 200)
    with pytest.raises(InputError, match="class 'b': only 0 of its 200.*--holdout_identity"):
        cut(np.repeat([0, 1], 200), groups, ("a", "b"), 0.15, seed=0)


def test_macrel_tells_known_antimicrobial_peptides_from_others():
    pytest.importorskip("macrel")
    made = activity.activity([MAGAININ, MELITTIN, "DEDEDEDEDEDEGSGSGS"])
    assert made.antimicrobial[:2].min() > 0.7 > 0.3 > made.antimicrobial[2]
    assert made.hemolytic[1] > 0.5 and made.antimicrobial.dtype == np.float32
    assert len(activity.activity([]).antimicrobial) == 0


def test_without_macrel_nothing_is_put_in_its_place(monkeypatch):
    monkeypatch.setattr(activity, "has_macrel", lambda: False)
    monkeypatch.setitem(sys.modules, "macrel", None)
    assert activity.activity([MAGAININ]) is None
    near = Nearest(np.full(1, 0.5, np.float32), np.zeros(1, int))
    found = measured(Judged([MAGAININ], near, None), [MELITTIN], seed=0)
    assert not any("amp" in name or "hemolytic" in name for name in found)


def test_fasta_and_table_are_read_back_with_class_and_scores(tmp_path):
    rows = pa.table(
        {
            "id": ["generated_1", "generated_2"],
            "sequence": [MAGAININ, MELITTIN],
            "class": ["AMP", "UniProt's own fragment"],
            "confidence": pa.array([0.9876, 1.0], pa.float32()),
            "copy_of_training": [False, True],
            "amp_probability": pa.nulls(2, pa.float32()),
        }
    )
    write_peptides(rows, str(tmp_path))
    assert pq.read_table(tmp_path / "generated.parquet").equals(rows)
    content = open_fasta(str(tmp_path / "generated.fasta"))
    piece = next(content.pieces(["(name)", "(sequence)", "(description)"]))
    names, sequences, told = (piece.columns[name] for name in content.columns)
    assert (list(names), list(sequences)) == (rows["id"].to_pylist(), [MAGAININ, MELITTIN])
    assert [described_in(text) for text in told] == [
        {"class": "AMP", "confidence": "0.9876", "copy_of_training": "False"},
        {"class": "UniProt's own fragment", "confidence": "1", "copy_of_training": "True"},
    ]
