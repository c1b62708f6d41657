"""Counters that lose no count however many names there are."""

from collections import Counter

from pipeline.runtime.counts import OTHERS, add_counts, named


def test_many_names_lose_no_count_and_the_common_ones_stay():
    counts: Counter = Counter()
    for start in range(0, 1000, 50):
        rare = [f"name {i}" for i in range(start, start + 50)]
        add_counts(counts, [*rare, "common", "common", None], most=100)
        assert len(counts) <= 100
    assert counts.total() == 1060
    assert (counts["common"], counts[None]) == (40, 20)
    assert counts[OTHERS] == 1000 - sum(n for name, n in named(counts).items() if name != "common")
    assert OTHERS not in named(counts) and None not in named(counts)


def test_few_names_are_all_counted():
    counts = Counter({"a": 1})
    add_counts(counts, {"a": 2, "b": 3}, most=2)
    assert counts == {"a": 3, "b": 3}
