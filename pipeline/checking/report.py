"""What was understood of a data file, as lines for the reader and as JSON."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.checking.settings import CheckSettings
from pipeline.checking.tally import COUNTED_ROWS, Tally
from pipeline.molecules.kinds import SEQUENCE, SMILES, Kind
from pipeline.molecules.reading.content import Content
from pipeline.molecules.reading.raw_rows import SPLITS
from pipeline.runtime.counts import MOST, OTHERS, named
from pipeline.runtime.text import some

if TYPE_CHECKING:
    from pipeline.checking.cost import Cost  # would import torch

SHOWN = 5  # names in a line


@dataclass(frozen=True)
class Understood:
    """A data file as MolSieve reads it.

    Attributes
    ----------
    settings : by which it was read.
    files : data files; `content`, `chosen` are of the first.
    chosen : the column that each of id, smiles, split, label, domain is read from.
    kind : of its molecules.
    notes : what was guessed.
    structures : of a sample, how many molecules get each kind of structure.
    cost : of encoding it, if an encoder was named.
    """

    settings: CheckSettings
    files: int
    content: Content
    chosen: dict[str, str]
    kind: Kind
    notes: list[str]
    tally: Tally
    structures: dict[str, int]
    cost: Cost | None

    def lines(self) -> list[tuple[str, str]]:
        """Names and texts, in the order in which a reader wants them."""
        tally, settings = self.tally, self.settings
        many = f" (the first of {self.files:,} files)" if self.files > 1 else ""
        found = [
            ("file", f"{settings.data_file}: {self.content.kind}{many}"),
            ("columns", f"{some(list(self.content.columns))}; {self._roles()}"),
            *(("guessed", note) for note in self.notes),
            ("rows", f"{tally.rows:,} in = {tally.molecules:,} {self.kind.many} + "
                     f"{tally.rejected:,} rejected"),
            *(("rejected", f"{count:,}: {kind}")
              for kind, count in named(tally.reasons).most_common(SHOWN)),
            ("ids", self._ids()),
            ("repeated", self._repeated()),
            ("labels", self._labels()),
            ("splits", _counts(tally.splits, "no split column")),
            *(("splits", told) for told in self._split_faults()),
            ("domains", _counts(tally.domains, "no domain column")),
        ]  # fmt: skip
        found.append(self._of_kind())
        if self.structures:
            told = ", ".join(f"{n:,} {name}" for name, n in self.structures.items() if n)
            found.append(("structures", f"of {sum(self.structures.values()):,} drawn: {told}"))
        return found + self._cost()

    def _of_kind(self) -> tuple[str, str]:
        """What only molecules of this kind have."""
        tally, settings = self.tally, self.settings
        if self.kind == SEQUENCE:
            limits = f"--min_length {settings.min_length}, --max_length {settings.max_length}"
            return "lengths", f"{tally.shortest:,} to {tally.longest:,} residues ({limits})"
        told = f"{tally.fragmented:,} molecules of several fragments"
        return "fragments", f"{told} (--fragments {settings.fragments})"

    def _roles(self) -> str:
        return ", ".join(f"{role} from {column!r}" for role, column in self._read_from().items())

    def _read_from(self) -> dict[str, str]:
        """The column of each role, the molecules' under the name of their kind."""
        return {self.kind.name if role == SMILES.name else role: column
                for role, column in self.chosen.items()}  # fmt: skip

    def _ids(self) -> str:
        tally = self.tally
        made = f", {tally.made_ids:,} of them made" if tally.made_ids else ""
        repeated, empty = tally.repeated_ids(), tally.empty_ids
        faults = [f"{repeated:,} {'occurs' if repeated == 1 else 'occur'} more than once"]
        if self.settings.id_column is not None:
            if empty:
                faults.append(f"{empty:,} {'is' if empty == 1 else 'are'} empty")
            if repeated or empty:
                faults[-1] += ": jobs.encode and jobs.train refuse these, jobs.score takes them"
        return f"{tally.rows:,}{made}; {', '.join(faults)}"

    def _repeated(self) -> str:
        tally = self.tally
        if tally.molecules == 0:
            return "no molecules"
        most = f" (of the first {COUNTED_ROWS:,} rows)" if tally.rows > COUNTED_ROWS else ""
        distinct, conflicts = len(tally.distinct()), tally.conflicts()
        return (
            f"{tally.counted - distinct:,} rows repeat one of {distinct:,} molecules{most}; "
            f"{conflicts:,} molecules have different labels"
        )

    def _labels(self) -> str:
        every = np.concatenate([np.empty(0), *self.tally.label])
        known = every[~np.isnan(every)]
        if "label" not in self.chosen or len(known) == 0:
            return "no label column" if "label" not in self.chosen else "none in its column"
        values = Counter(known.tolist()) if len(np.unique(known)) <= SHOWN else None
        told = (
            ", ".join(f"{n:,} × {value:g}" for value, n in sorted(values.items()))
            if values
            else f"{len(known):,} numbers from {known.min():g} to {known.max():g}"
        )
        return f"{told}; {len(every) - len(known):,} molecules without"

    def _split_faults(self) -> list[str]:
        """For what training would refuse the splits, if there are any."""
        if not named(self.tally.splits):
            return []
        faults = []
        absent = [split for split in SPLITS if not self.tally.splits[split]]
        if absent:
            faults.append(
                f"no {', '.join(absent)}: training needs all of {', '.join(SPLITS)} (those called "
                "test not with --finetune_encoder); jobs.split makes them"
            )
        if overlap := self.tally.overlap():
            told = "1 molecule is" if overlap == 1 else f"{overlap:,} molecules are"
            faults.append(
                f"{told} in more than one split: training refuses them without --allow_overlap"
            )
        return faults

    def _cost(self) -> list[tuple[str, str]]:
        cost = self.cost
        if cost is None:
            return []
        found = [
            ("encoder", f"{cost.encoder['encoder']} (weights: {cost.encoder['weights']})"),
            ("store", f"{cost.stored:,} molecules in {self.settings.cache_root}, "
                      f"{cost.to_make:,} to make"),
        ]  # fmt: skip
        if cost.to_make == 0:
            return found
        if cost.measured_on == 0:
            return [*found, ("cost", "unknown: nothing of the sample was made from the start")]
        gpu = f", {_about(cost.gpu_hours)} GPU hours" if cost.gpu_hours else ""
        how = (
            f"measured now on {cost.measured_on:,} molecules, too few to tell well"
            if cost.now
            else f"as measured on {cost.measured_on:,} molecules"
        )
        found.append(
            ("cost", f"about {_about(cost.core_hours)} core hours{gpu}: {_about(cost.hours)} hours "
                     f"here, {_about(cost.gigabytes)} GB of the store ({how})")
        )  # fmt: skip
        return found

    def summary(self) -> dict[str, Any]:
        """For programs."""
        tally = self.tally
        return {
            "data_file": self.settings.data_file,
            "files": self.files,
            "kind": self.content.kind,
            "columns": list(self.content.columns),
            "molecules_are": self.kind.name,
            "read_from": self._read_from(),
            "guessed": self.notes,
            "rows_in": tally.rows,
            "molecules": tally.molecules,
            "rejected": tally.rejected,
            "reasons": dict(tally.reasons.most_common()),
            "made_ids": tally.made_ids,
            "empty_ids": tally.empty_ids if self.settings.id_column is not None else 0,
            "repeated_ids": tally.repeated_ids(),
            "distinct_molecules": len(tally.distinct()),
            "molecules_with_different_labels": tally.conflicts(),
            "molecules_in_several_splits": tally.overlap(),
            "fragmented": tally.fragmented,
            "shortest_text": tally.shortest,
            "longest_text": tally.longest,
            "splits": {str(name): count for name, count in tally.splits.items()},
            "domains": MOST if OTHERS in tally.domains else len(named(tally.domains)),
            "more_domains": OTHERS in tally.domains,
            "structures_of_sample": self.structures,
            "cost": self.cost and asdict(self.cost),
        }


def _counts(counts: Counter, absent: str) -> str:
    names = named(counts)
    if not names:
        return absent
    told = ", ".join(f"{name} {n:,}" for name, n in names.most_common(SHOWN))
    missing = f"; {counts[None]:,} molecules without" if counts[None] else ""
    if OTHERS in counts:
        return f"at least {MOST:,}: {told} and others{missing}"
    more = f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
    return f"{len(names):,}: {told}{more}{missing}"


def _about(value: float) -> str:
    """Two digits: more are not known."""
    if value == 0:
        return "0"
    digits = max(0, 1 - math.floor(math.log10(abs(value))))
    return f"{value:,.{digits}f}"
