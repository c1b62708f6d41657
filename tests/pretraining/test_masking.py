"""Sequences' masks, parts, clusters and baselines, each against what it stands for."""

from __future__ import annotations

from collections import Counter
from math import exp, log

import numpy as np
import pytest

from pipeline.encoders.esm.tokens import CLS, EOS, MASK, SPECIAL, token_ids
from pipeline.molecules.sequences import STANDARD
from pipeline.pretraining.sequences.baselines import asked_of, fit_baselines
from pipeline.pretraining.sequences.crops import Corpus, Proteins
from pipeline.pretraining.sequences.masking import RESIDUES, Shares, mask_tokens
from pipeline.pretraining.sequences.similar import clusters_of, held_out


def made(lengths: list[int], seed: int = 0) -> list[str]:
    rng = np.random.default_rng(seed)
    return ["".join(rng.choice(list(STANDARD), length)) for length in lengths]


def test_shares_of_masks_are_those_asked_for():
    tokens = token_ids("X" * 1000 + made([200_000])[0])
    seen, masked = mask_tokens(tokens, Shares(), np.random.default_rng(0))
    assert masked.sum() == pytest.approx(0.15 * 200_000, abs=1)
    assert not masked[:1001].any() and not masked[-1]  # <cls>, the unknown, <eos>
    np.testing.assert_array_equal(seen[~masked], tokens[~masked])
    share = (seen[masked] == MASK).mean()
    same = (seen[masked] == tokens[masked]).mean()
    assert share == pytest.approx(0.8, abs=0.01)
    assert same == pytest.approx(0.1 + 0.1 / 20, abs=0.01)  # one in twenty swaps changes nothing
    swapped = seen[masked & (seen != MASK) & (seen != tokens)]
    counts = np.bincount(swapped, minlength=33)
    assert counts.sum() == counts[RESIDUES].sum() and counts[RESIDUES].min() > 80


def test_few_residues_are_told_as_often_as_many():
    told = [mask_tokens(token_ids("ACDE"), Shares(), np.random.default_rng(i))[1].sum()
            for i in range(4000)]  # fmt: skip
    assert np.mean(told) == pytest.approx(0.6, abs=0.03) and max(told) == 1


def test_an_epochs_parts_hold_every_protein_and_its_steps_every_part():
    lengths = [5, 50, 51, 120, 300, 7]
    corpus = Corpus(Proteins(made(lengths)), 50, Shares(), seed=3)
    parts = corpus.parts(0)
    assert Counter(parts.protein.tolist()) == {0: 1, 1: 1, 2: 2, 3: 3, 4: 6, 5: 1}
    whole = np.array(lengths)[parts.protein]
    assert ((parts.start >= 0) & (parts.start + parts.length <= whole)).all()
    np.testing.assert_array_equal(parts.length, np.minimum(whole, 50))
    later = corpus.parts(1)
    assert (later.start[4:] != parts.start[4:]).any()
    counts = set()
    for epoch in range(4):
        steps = corpus.steps(corpus.parts(epoch), epoch, tokens=160)
        counts.add(len(steps))
        assert sorted(np.concatenate(steps)) == list(range(14))
        for rows in steps:
            assert len(rows) * (parts.length[rows].max() + SPECIAL) <= 160
    assert len(counts) == 1


def test_a_mask_depends_on_the_part_alone():
    corpus = Corpus(Proteins(made([40, 40, 40])), 50, Shares(), seed=3)
    parts = corpus.parts(0)
    (together,) = corpus.masked(parts, np.arange(3), 0, 1000)
    (alone,) = corpus.masked(parts, np.array([2]), 0, 1000)
    assert (alone.tokens[0] == together.tokens[2]).all()
    assert (alone.masked[0] == together.masked[2]).all()
    (later,) = corpus.masked(parts, np.array([2]), 1, 1000)
    assert (later.masked != alone.masked).any()


def test_baselines_are_what_their_formula_says():
    texts = [text.replace("W", "A").replace("Y", "C") for text in made([300] * 8)]
    corpus = Corpus(Proteins(made([60, 200, 5], seed=1)), 100, Shares(), seed=0)
    fitted = fit_baselines(Proteins(texts))
    batches = list(corpus.masked(corpus.one_part_each(), np.arange(3), 7, 1000))
    told = fitted.told(asked_of(batches))
    triples, pairs, single = Counter(), Counter(), Counter()
    for text in texts:
        ids = [CLS, *token_ids(text), EOS]
        for left, residue, right in zip(ids[1:], ids[2:-2], ids[3:]):
            triples[left, residue, right] += 1
            pairs[left, right] += 1
            single[residue] += 1
    total = sum(single.values())
    unigram = {r: (single[r] + 1) / (total + 20) for r in RESIDUES.tolist()}
    strength, losses, hits = fitted.strength, Counter(), Counter()
    asked = 0
    for batch in batches:
        for true, masked in zip(batch.true_tokens.tolist(), batch.masked.tolist()):
            ids = [CLS, *true, EOS]
            for place in np.flatnonzero(masked) + 1:
                left, residue, right = ids[place - 1 : place + 2]
                by_both = {
                    r: (triples[left, r, right] + strength * p) / (pairs[left, right] + strength)
                    for r, p in unigram.items()
                }
                asked += 1
                for name, p in (("unigram", unigram), ("neighbours", by_both)):
                    losses[name] -= log(p[residue])
                    hits[name] += max(p, key=p.get) == residue
    assert asked > 20
    for name, each in told.items():
        assert each.cross_entropy == pytest.approx(losses[name] / asked)
        assert each.perplexity == pytest.approx(exp(losses[name] / asked))
        assert each.accuracy == pytest.approx(hits[name] / asked, abs=1.5 / asked)  # ties


def test_what_neighbours_say_is_trusted_as_far_as_it_holds():
    pattern = Proteins(["".join("ACDEFGHIKL"[(i * i) % 10] for i in range(k, k + 200))
                        for k in range(20)])  # fmt: skip
    assert fit_baselines(pattern).strength < 1
    assert fit_baselines(Proteins(made([300] * 20))).strength > 100


def test_proteins_that_share_a_word_are_held_out_together():
    one, other, third, fourth = made([80] * 4)
    chimera = one[:20] + other[30:50]  # has words of both
    repeats = ["AKAKAKAKAKAKAK" * 3, "CAKAKAKAKAKAKAKC"]  # no word of five kinds of residues
    texts = [one, chimera, third, other, fourth, *repeats]
    clusters = clusters_of(Proteins(texts))
    assert clusters[0] == clusters[1] == clusters[3]
    assert len({clusters[i] for i in (0, 2, 4, 5, 6)}) == 5
    for few in range(1, 6):
        chosen = held_out(Proteins(texts), few * 10, seed=0)
        assert len({*chosen[[0, 1, 3]]}) == 1
    assert clusters_of(Proteins(texts), most=10).max() >= 4  # fewer words, fewer links: no error


def test_the_draw_of_held_out_proteins_is_by_the_seed():
    proteins = Proteins(made([60] * 40))
    draws = [held_out(proteins, 10, seed) for seed in (0, 0, 1)]
    assert draws[0].sum() == 10
    np.testing.assert_array_equal(draws[0], draws[1])
    assert (draws[0] != draws[2]).any()
