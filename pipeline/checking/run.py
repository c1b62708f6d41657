"""What jobs.check calls: a data file to what MolSieve understands of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import fields
from itertools import chain

import pyarrow as pa
import ray

from pipeline.checking.report import Understood
from pipeline.checking.settings import CheckSettings
from pipeline.checking.structures import sample_structures
from pipeline.checking.tally import Tally, tally_of
from pipeline.molecules.folders import DataFile, data_files
from pipeline.molecules.formats import check_files, opened, stream_rows
from pipeline.molecules.kinds import SMILES
from pipeline.molecules.parsers import Parser, parser_of
from pipeline.molecules.settings import SourceSettings
from pipeline.molecules.sources import BLOCK_ROWS, check_first_rows
from pipeline.runtime.errors import InputError
from pipeline.runtime.files import json_bytes, write_atomically
from pipeline.runtime.nodes.cluster import cluster_cores, start_ray

AT_ONCE = 2  # blocks of rows under way for each core
DRAWN = 2000  # molecules from which those are taken that the store lacks


def run_check(settings: CheckSettings) -> Understood:
    """Read a whole data file, and say what its rows are.

    Nothing is written but the report, and what an encoder that is named makes of the sample.

    Raises
    ------
    InputError
        As the run would: if the file has no rows, if it or a column cannot be read, or if the
        encoder cannot be had or does not take the file's structures.
    """
    source = {each.name: getattr(settings, each.name) for each in fields(SourceSettings)}
    notes = check_files(SourceSettings(**source))  # which names no folder, so none is made
    files = data_files(settings.data_file, settings.sequence_column)
    check_first_rows(files[0], settings)
    plan = None
    if settings.foundation_model or settings.checkpoint:
        from pipeline.checking.cost import cost_of, plan_of  # import torch

        plan = plan_of(settings)
    tally, parser = Tally(), parser_of(settings)
    for part in _tallies(files, settings, parser):
        tally.add(part, DRAWN)
    if tally.rows == 0:
        raise InputError(f"{settings.data_file}: the file has no rows")
    content, chosen, _ = opened(files[0], settings)
    cost = None if plan is None else cost_of(tally, settings, plan)
    structures: dict[str, int] = {}
    if cost is not None:
        structures = cost.structures
    elif parser.kind is SMILES:
        structures = sample_structures(tally.sample.slice(0, settings.sample))
    found = Understood(
        settings, len(files), content, chosen, parser.kind, notes, tally, structures, cost
    )
    if settings.report is not None:
        write_atomically(settings.report, json_bytes(found.summary()))
    return found


def _tallies(files: list[DataFile], settings: CheckSettings, parser: Parser) -> Iterator[Tally]:
    """Tallies of blocks of rows: of a few rows here, of many on all cores."""
    blocks = _blocks(files, settings)
    first = next(blocks, None)
    second = next(blocks, None) if first else None
    if first is None:
        return
    if second is None:
        yield tally_of(*first, parser, DRAWN)
        return
    start_ray()
    remote = ray.remote(tally_of)
    underway: deque[ray.ObjectRef] = deque()
    for block in chain([first, second], blocks):
        underway.append(remote.remote(*block, parser, DRAWN))
        if len(underway) > AT_ONCE * cluster_cores():
            yield ray.get(underway.popleft())
    while underway:
        yield ray.get(underway.popleft())


def _blocks(files: list[DataFile], settings: CheckSettings) -> Iterator[tuple[pa.Table, str]]:
    for file in files:
        for rows in stream_rows(file, settings, BLOCK_ROWS):
            yield rows, file.stem
