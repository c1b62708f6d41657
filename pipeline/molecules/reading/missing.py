"""What a cell says that holds nothing, as pandas, R, SQL and Excel write it."""

from __future__ import annotations

import pyarrow.csv

_WORDS = (*pyarrow.csv.ConvertOptions().null_values, "none", "<na>", "nat")
MISSING = frozenset(word.strip().casefold() for word in _WORDS)


def is_missing(text: str | None) -> bool:
    """Whether a cell holds nothing: empty, or a word such as NA, nan or null."""
    return text is None or text.strip().casefold() in MISSING
