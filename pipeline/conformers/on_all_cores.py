"""Conformers of many molecules on all cores, without Ray.

RDKit runs in child processes, a thread waits for each. A child is a fresh interpreter that knows
nothing of the program that started it: a notebook, a script without `if __name__ == "__main__"`
and a process with threads may start one alike, and it imports no torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from queue import SimpleQueue

import numpy as np
from rdkit import Chem, rdBase

from pipeline.conformers import rdkit_embedder
from pipeline.conformers.child_process import IsolatedEmbedder
from pipeline.conformers.conformer import Conformer
from pipeline.conformers.rdkit_embedder import DEFAULT_SEED
from pipeline.conformers.settings import ConformerSettings
from pipeline.runtime.errors import RowRejected
from pipeline.runtime.nodes.machine import usable_cores

ADVICE = (
    "standard error says why. If it is memory, there must be {:g} GiB for each core that this "
    "process may use"
)
# Ten times the jobs' limit: one such molecule fails the whole call, and on a busy machine a sound
# one may well take a minute.
LIMIT_SECONDS = 10 * ConformerSettings.conformer_seconds
# Expected seconds of one core that are worth a child process, which takes half of one to start
# (`python -m bench.encode_smiles --pool` compares).
WORTH_SECONDS = 1.0


def children_for(seconds: np.ndarray) -> int:
    """Child processes that make conformers soonest; below 2 this process does it alone.

    Parameters
    ----------
    seconds : (n,) of one core that each molecule is expected to take, see `expected_cost`.
    """
    return min(usable_cores(), len(seconds), int(seconds.sum() / WORTH_SECONDS))


def embed_here(smiles: Sequence[str], *, hydrogens: bool) -> list[Conformer]:
    """A conformer of each SMILES, made in this process and without a limit.

    Raises
    ------
    RowRejected
        At the first molecule that has none; a note names it.
    """
    return [_embed(place, text, hydrogens) for place, text in enumerate(smiles)]


def embed_all(
    smiles: Sequence[str],
    seconds: np.ndarray,
    children: int,
    *,
    hydrogens: bool,
    limit_seconds: float = LIMIT_SECONDS,
) -> Iterator[tuple[int, Conformer]]:
    """Each molecule's place in `smiles` and its conformer, in the order in which they are made.

    Those that are expected to take longest begin.

    Parameters
    ----------
    seconds : (n,) as of `children_for`.
    children : processes that RDKit works in.
    hydrogens : keep hydrogens in the result.
    limit_seconds : wall-clock time that one molecule may take.

    Raises
    ------
    RowRejected
        If a molecule has no conformer: the first such one in the order given; a note names it.
        That a SMILES does not parse is told before anything is made.
    InputError
        If the child processes do not start.
    """
    _check_parsing(smiles)
    embedders = [
        IsolatedEmbedder(
            seed=DEFAULT_SEED,
            hydrogens=hydrogens,
            limit_seconds=limit_seconds,
            nice=0,
            advice=ADVICE,
        )
        for _ in range(children)
    ]
    yield from _shared_out(smiles, np.argsort(-seconds, kind="stable").tolist(), embedders)


def _shared_out(
    smiles: Sequence[str], order: Sequence[int], embedders: Sequence[IsolatedEmbedder]
) -> Iterator[tuple[int, Conformer]]:
    """Conformers as they are made; whoever is free takes the next molecule in the order."""
    idle: SimpleQueue[IsolatedEmbedder] = SimpleQueue()
    for embedder in embedders:
        idle.put(embedder)
    refused: dict[int, RowRejected] = {}

    def work(place: int) -> Conformer | None:
        if refused and place > min(refused):  # it would not be told
            return None
        embedder = idle.get()
        try:
            return embedder.embed(smiles[place])
        except RowRejected as rejection:
            refused[place] = rejection
            return None
        finally:
            idle.put(embedder)

    threads = ThreadPoolExecutor(len(embedders), thread_name_prefix="conformers")
    try:
        places = {threads.submit(work, place): place for place in order}
        for future in as_completed(places):
            place = places.pop(future)  # or all conformers would stay until the end
            if (made := future.result()) is not None:
                yield place, made
    finally:  # also where the caller stops half way, or is interrupted
        threads.shutdown(wait=False, cancel_futures=True)
        for embedder in embedders:
            embedder.end()
        threads.shutdown()
        for embedder in embedders:
            embedder.close()
    if refused:
        first = min(refused)
        raise _named(refused[first], first, smiles[first])


def _check_parsing(smiles: Sequence[str]) -> None:
    """RowRejected if one does not parse, which is seen a thousand times as fast as embedded."""
    with rdBase.BlockLogs():
        for place, text in enumerate(smiles):
            if Chem.MolFromSmiles(text) is None:
                _embed(place, text, hydrogens=False)


def _embed(place: int, text: str, hydrogens: bool) -> Conformer:
    try:
        return rdkit_embedder.embed(text, hydrogens=hydrogens)
    except RowRejected as rejection:
        raise _named(rejection, place, text) from None


def _named(rejection: RowRejected, place: int, text: str) -> RowRejected:
    """The rejection with a line below it that says whose it is."""
    rejection.add_note(f"SMILES {place} of those given: {text}")
    return rejection
