"""The molecules at both ends of a library's scores, as a table and as drawings."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.molecules.kinds import SMILES, Kind, named_for
from pipeline.molecules.rejected import kind_of
from pipeline.runtime.counts import add_counts
from pipeline.runtime.errors import DamagedFile
from pipeline.runtime.files import read_all, write_atomically
from pipeline.runtime.text import records_csv
from pipeline.scoring.levels import SCORES
from pipeline.scoring.output.beside import Trusted, end_of
from pipeline.scoring.output.output_folder import part_files, read_part
from pipeline.scoring.steps import REJECTED_FOLDER, SCORES_FOLDER

log = logging.getLogger(__name__)
MOST_DRAWN = 100


class Extremes(NamedTuple):
    """Counts of a scored library: rows, those scored, rejected, OOD, and by structure.

    `in_training` are molecules of the training set. `reasons` counts the rejected ones by the kind
    of the reason (`rejected.kind_of`). A structure that nobody knows has the name None.
    """

    rows: int
    scored: int
    rejected: int
    reasons: Counter[str]
    ood: int
    in_training: int
    structures: Counter[str | None]


def write_extremes(output_dir: str, top: int, kind: Kind = SMILES) -> Extremes:
    """Write top.csv, most_ood.png and least_ood.png beside a library's scores, in one pass.

    And beside_nearest.png, see `Trusted`.

    Parameters
    ----------
    top : molecules at either end, the first MOST_DRAWN of them drawn; with 0 nothing is written.
    kind : of the molecules.

    Raises
    ------
    DamagedFile
        If parts are damaged; they were set aside, and the next run makes their chunks anew.
    """
    most = least = SCORES.empty_table()
    scored = rejected = ood = in_training = 0
    structures: Counter[str | None] = Counter()
    damage, trusted = None, Trusted()
    try:
        for table in _tables(output_dir, SCORES_FOLDER, SCORES.names):
            scored += table.num_rows
            ood += pc.sum(table["is_ood"]).as_py() or 0
            in_training += pc.sum(table["in_training"]).as_py() or 0
            structures.update(table["structure"].to_pylist())
            most = end_of(pa.concat_tables([most, table]), top, "energy", "descending")
            least = end_of(pa.concat_tables([least, table]), top, "energy", "ascending")
            trusted.add(table)
    except DamagedFile as error:  # so may rejected rows be
        damage = error
    reasons: Counter[str] = Counter()
    for table in _tables(output_dir, REJECTED_FOLDER, ["reason"]):
        rejected += table.num_rows
        add_counts(reasons, map(kind_of, table["reason"].to_pylist()))
    if damage:
        raise damage
    if top and scored:
        records = [
            {"end": end, "rank": rank, **row}
            for end, table in (("most OOD", most), ("least OOD", least))
            for rank, row in enumerate(named_for(table, kind).to_pylist(), start=1)
        ]
        write_atomically(f"{output_dir}/top.csv", records_csv(records))
        _draw(most, least, trusted, output_dir, kind)
    return Extremes(scored + rejected, scored, rejected, reasons, ood, in_training, structures)


def _draw(most: pa.Table, least: pa.Table, trusted: Trusted, output_dir: str, kind: Kind) -> None:
    """The pictures; a machine that cannot draw goes without, and says so."""
    try:
        from pipeline.molecules.drawing.drawings import molecules_figure  # imports matplotlib
    except ImportError as error:
        log.warning(
            "no pictures are drawn in %s: %s. RDKit draws with X11's libraries, which slim images "
            "lack: on Debian and Ubuntu, apt-get install libxrender1 libxext6", output_dir, error,
        )  # fmt: skip
        return
    for name, title, table in (
        ("most_ood", "Highest energies: the most OOD", most),
        ("least_ood", "Lowest energies: the least OOD", least),
    ):
        drawn = table.slice(0, MOST_DRAWN).to_pylist()
        molecules_figure(drawn, title, f"{output_dir}/{name}.png", kind)
    trusted.draw(output_dir, kind)


def _tables(output_dir: str, folder: str, columns: list[str]) -> Iterator[pa.Table]:
    """A folder's parts; damaged ones are set aside, and their chunks no longer done."""
    parts = part_files(output_dir, folder)
    yield from read_all(parts, lambda part: read_part(output_dir, part, columns))
