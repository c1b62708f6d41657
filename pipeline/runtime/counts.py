"""Counters that stay small, however many names a file has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

MOST = 10_000  # names that are counted one by one
OTHERS = "(others)"


def add_counts(counts: Counter, more: Iterable | Mapping[Any, int], most: int = MOST) -> None:
    """Add to a counter in place; beyond `most` names, the rarest are one count, OTHERS.

    No count is lost: the total stays true, and that of None, for what has no name.
    """
    counts.update(more)
    if len(counts) <= most:
        return
    common = dict(named(counts).most_common(most // 2))
    nameless = {None: counts[None]} if counts[None] else {}
    others = counts.total() - sum(common.values()) - counts[None]
    counts.clear()
    counts.update({**common, **nameless, OTHERS: others})


def named(counts: Mapping[Any, int]) -> Counter:
    """The names that are counted one by one: all but None and OTHERS."""
    return Counter({name: n for name, n in counts.items() if name not in (None, OTHERS)})
