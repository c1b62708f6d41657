"""What a section of the page is made of; `templates/page.html` shows each kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from markupsafe import Markup


@dataclass(frozen=True)
class Text:
    """A paragraph; `kind` note, warning and lacks are set apart, verdict is large."""

    text: str
    kind: Literal["text", "note", "warning", "lacks", "verdict"] = "text"


@dataclass(frozen=True)
class Heading:
    """Above a group of blocks."""

    text: str


@dataclass(frozen=True)
class Facts:
    """Names with their values."""

    facts: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes
    ----------
    sort : what the column is sorted by; None: by the text.
    svg : a drawing above the text.
    """

    text: str
    sort: float | None = None
    svg: Markup | None = None


@dataclass(frozen=True)
class Table:
    """A table that sorts by its columns, and filters where it has many rows.

    Attributes
    ----------
    numeric : columns that stand to the right, by their number.
    left_out : rows that it does not show.
    """

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    numeric: frozenset[int] = frozenset()
    left_out: int = 0


@dataclass(frozen=True)
class Swatch:
    """A line of a chart's legend: a colour's name in the style sheet, and a mark's form."""

    color: str
    form: str
    label: str


@dataclass(frozen=True)
class Chart:
    """A figure: drawing, what stands above and below it, and its legend.

    Attributes
    ----------
    wide : over the whole width.
    """

    title: str
    svg: Markup
    legend: Sequence[Swatch] = ()
    note: str = ""
    wide: bool = False


@dataclass(frozen=True)
class Charts:
    """Charts side by side, as many as the screen takes."""

    charts: Sequence[Chart]


@dataclass(frozen=True)
class Drawn:
    """A molecule's drawing (None: it cannot be drawn), its id and what is said of it.

    A sequence stands there as its `letters`.
    """

    svg: Markup | None
    id: str
    told: str
    smiles: str
    letters: str = ""


@dataclass(frozen=True)
class Molecules:
    """Molecules, each alone or beside another one.

    Attributes
    ----------
    groups : of one or two molecules each.
    """

    title: str
    groups: Sequence[Sequence[Drawn]]
    note: str = ""


@dataclass
class Section:
    """A part of the page.

    Attributes
    ----------
    folder : what it tells of, within the folder of the page; "" for that itself.
    lead : lines that stand at the page's top too.
    anchor : what links to it name; set by the page.
    """

    title: str
    folder: str
    blocks: list[Any] = field(default_factory=list)
    lead: list[str] = field(default_factory=list)
    anchor: str = ""

    def add(self, *blocks: Any) -> None:
        """Add blocks; what is None is left out."""
        self.blocks += [block for block in blocks if block is not None]

    def say(self, text: str, kind: str = "text") -> None:
        """Add a paragraph."""
        self.blocks.append(Text(text, kind))

    def lacks(self, text: str) -> None:
        """Say what the folder does not have, and why nothing is shown of it."""
        self.blocks.append(Text(text, "lacks"))


def number(value: float | None, digits: int = 3) -> Cell:
    """A number as a cell, – where there is none."""
    if value is None or value != value:
        return Cell("–", None)
    return Cell(f"{value:,.{digits}f}", float(value))


def count(value: int) -> Cell:
    """A count as a cell."""
    return Cell(f"{value:,}", float(value))
