"""What rows of a data file are, counted piece by piece: a tally adds up to that of the whole."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.molecules.parsers import Parser
from pipeline.molecules.reading.raw_rows import SPLITS, STRUCTURES
from pipeline.molecules.rejected import kind_of
from pipeline.molecules.sources import parse_block
from pipeline.runtime.counts import add_counts
from pipeline.runtime.text import hashes_of

COUNTED_ROWS = 10_000_000  # whose keys, ids, labels and splits are held, 49 bytes each
SUMS = ("rows", "rejected", "fragmented", "made_ids", "empty_ids")
COUNTERS = ("reasons", "splits", "domains")
COLUMNS = ("keys", "label", "split", "ids")
SAMPLE = pa.schema([("key", pa.string()), ("smiles", pa.string())])


@dataclass
class Tally:
    """Counts of rows.

    Attributes
    ----------
    rows, rejected : rows, and those of them that are no molecules.
    fragmented : molecules of several fragments.
    shortest, longest : letters of the molecules' canonical texts, 0 without any.
    made_ids, empty_ids : rows whose id was made, and those of them that could be read.
    reasons, splits, domains : rejected rows by kind of reason, molecules by split and by domain,
        None for those without; see `add_counts`.
    keys, ids : (n,) keys of molecules as S32, hashes of ids as uint64, of the first COUNTED_ROWS.
    label, split : (n,) beside `keys`: NaN for none; a number in SPLITS, −1 for none.
    sample : some molecules drawn at random, the same at each call: SAMPLE in the order of keys,
        with STRUCTURES where the file gives them.
    """

    rows: int = 0
    rejected: int = 0
    fragmented: int = 0
    made_ids: int = 0
    empty_ids: int = 0
    shortest: int = 0
    longest: int = 0
    reasons: Counter = field(default_factory=Counter)
    splits: Counter = field(default_factory=Counter)
    domains: Counter = field(default_factory=Counter)
    keys: list[np.ndarray] = field(default_factory=list)
    label: list[np.ndarray] = field(default_factory=list)
    split: list[np.ndarray] = field(default_factory=list)
    ids: list[np.ndarray] = field(default_factory=list)
    sample: pa.Table = field(default_factory=SAMPLE.empty_table)

    def add(self, other: Tally, sample: int) -> None:
        """Add the tally of further rows; keep so many molecules as a sample."""
        room = self.rows < COUNTED_ROWS
        for name in SUMS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        if other.longest:
            self.shortest = min(self.shortest or other.shortest, other.shortest)
            self.longest = max(self.longest, other.longest)
        for name in COUNTERS:
            add_counts(getattr(self, name), getattr(other, name))
        if room:
            for name in COLUMNS:
                getattr(self, name).extend(getattr(other, name))
        both = pa.concat_tables([self.sample, other.sample], promote_options="default")
        self.sample = _drawn(both, sample)

    @property
    def molecules(self) -> int:
        """Rows that are molecules."""
        return self.rows - self.rejected

    @property
    def counted(self) -> int:
        """Molecules whose keys are held."""
        return sum(map(len, self.keys))

    def distinct(self) -> np.ndarray:
        """The molecules' keys (m,), each once, in order."""
        return np.unique(self._all_keys())

    def conflicts(self) -> int:
        """Molecules that have several rows with different labels."""
        label = np.concatenate([np.empty(0), *self.label])
        return _with_several(self._all_keys(), label, ~np.isnan(label))

    def overlap(self) -> int:
        """Molecules that are in more than one split."""
        split = np.concatenate([np.empty(0, np.int8), *self.split])
        return _with_several(self._all_keys(), split, split >= 0)

    def repeated_ids(self) -> int:
        """Ids that several rows have."""
        every = np.concatenate([np.empty(0, np.uint64), *self.ids])
        return int((np.unique(every, return_counts=True)[1] > 1).sum())

    def _all_keys(self) -> np.ndarray:
        return np.concatenate([np.empty(0, "S32"), *self.keys])


def _with_several(keys: np.ndarray, values: np.ndarray, known: np.ndarray) -> int:
    """Keys that have different values among those known."""
    pairs = np.unique(np.rec.fromarrays([keys[known], values[known]], names="key,value"))
    return int((np.unique(pairs["key"], return_counts=True)[1] > 1).sum())


def _drawn(molecules: pa.Table, most: int) -> pa.Table:
    """The molecules of the smallest keys, each once: keys are hashes, so they are a sample."""
    keys = np.array(molecules["key"].to_pylist(), dtype="S32")
    return molecules.take(np.unique(keys, return_index=True)[1][:most])


def tally_of(rows: pa.Table, stem: str, parser: Parser, sample: int) -> Tally:
    """The tally of raw rows.

    Parameters
    ----------
    rows : of `formats.stream_rows`.
    stem : what made ids begin with.
    parser : as of `parse_block`.
    """
    parsed = parse_block(rows, parser)
    molecules = parsed.filter(parsed["reason"].is_null())
    ids = rows["id"].to_pylist()
    is_made = re.compile(f"{re.escape(stem)}:[0-9]+#?").fullmatch
    made = np.array([is_made(each) is not None for each in ids], dtype=bool)
    readable = rows["reason"].is_null().to_numpy()
    splits = molecules["split"].to_pylist()
    lengths = pc.utf8_length(molecules["smiles"])
    drawn = [*SAMPLE.names, *(n for n in STRUCTURES.names if n in molecules.column_names)]
    return Tally(
        rows=rows.num_rows,
        rejected=rows.num_rows - molecules.num_rows,
        fragmented=sum("." in each for each in molecules["smiles"].to_pylist()),
        shortest=pc.min(lengths).as_py() or 0,
        longest=pc.max(lengths).as_py() or 0,
        made_ids=int(made.sum()),
        empty_ids=int((made & readable).sum()),
        reasons=Counter(map(kind_of, parsed["reason"].drop_null().to_pylist())),
        splits=Counter(splits),
        domains=Counter(molecules["domain"].to_pylist()),
        keys=[np.array(molecules["key"].to_pylist(), dtype="S32")],
        label=[pc.fill_null(molecules["label"], np.nan).to_numpy()],
        split=[np.array([-1 if s is None else SPLITS.index(s) for s in splits], np.int8)],
        ids=[hashes_of(ids)],
        sample=_drawn(molecules.select(drawn), sample),
    )
