"""SMILES to features by an encoder that takes conformers: both are made at the same time.

The conformers come from all cores, those that take longest first; as soon as some molecules of
like size are there, the encoder takes them, while RDKit goes on. On a CPU it works in as many
threads as there are cores, of one core each: a product over several cores that RDKit works on waits
for its slowest part, and the waiting takes cores too.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing, nullcontext
from typing import TYPE_CHECKING

import numpy as np

from pipeline.runtime.threads import in_threads, one_core_a_thread, torch_on_one_core

if TYPE_CHECKING:
    from pipeline.conformers.conformer import Conformer

Encode = Callable[[Sequence[int], "Sequence[Conformer]"], np.ndarray]
TOGETHER = {"cpu": 16, "cuda": 512}  # molecules of like size that are encoded at once
WAITING = 4  # groups that wait for each thread of the encoder, at most


def features_of_smiles(
    smiles: Sequence[str], encode: Encode, dim: int, *, hydrogens: bool, device: str, what: str
) -> np.ndarray:
    """Features (n, dim) float32, in the order given, each SMILES embedded as it is written.

    Which molecules are encoded together, and in which order, depends on the SMILES alone, so on
    machines of several cores the same features come out each time. On a terminal a bar shows how
    far it is, by the time that molecules take.

    Parameters
    ----------
    encode : features (m, dim) of m molecules, given their places in `smiles` and their conformers;
        called by several threads at once where the device is a CPU.
    hydrogens : whether it wants conformers with hydrogens.
    device : type of its device, "cpu" or "cuda".
    what : name of the features.

    Raises
    ------
    pipeline.runtime.errors.RowRejected
        If a molecule has no conformer.
    """
    import pyarrow as pa
    from tqdm import tqdm

    from pipeline.conformers.expected_cost import conformer_seconds
    from pipeline.conformers.on_all_cores import children_for, embed_all, embed_here  # need RDKit

    smiles = list(smiles)
    seconds = conformer_seconds(pa.array(smiles, pa.string()))
    children = children_for(seconds)
    if children < 2:
        return encode(range(len(smiles)), embed_here(smiles, hydrogens=hydrogens))
    features = np.empty((len(smiles), dim), dtype=np.float32)

    def fill(places: list[int], made: list[Conformer]) -> None:
        features[places] = encode(places, made)
        with tqdm.get_lock():
            bar.update(min(seconds[places].sum(), bar.total - bar.n))  # sums round

    bar = tqdm(
        desc=f"{what} of {len(smiles):,} molecules", total=float(seconds.sum()),
        bar_format="{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}",
        disable=None,  # which means: unless it is on a terminal
    )  # fmt: skip
    conformers = embed_all(smiles, seconds, children, hydrogens=hydrogens)
    threads = children if device == "cpu" else 1
    groups = _groups(conformers, np.argsort(-seconds, kind="stable"), TOGETHER[device])
    on_cpu = device == "cpu"
    start = torch_on_one_core if on_cpu else None
    with bar, one_core_a_thread() if on_cpu else nullcontext():
        for _ in in_threads(
            lambda group: fill(*group), groups, threads, ahead=WAITING, start=start
        ):
            pass
    return features


def _groups(
    conformers: Generator[tuple[int, Conformer]], order: np.ndarray, together: int
) -> Generator[tuple[list[int], list[Conformer]]]:
    """Places, rising, and conformers of molecules that stand together in an order.

    They come once all of a group are there; the conformers end with them.
    """
    group = np.empty(len(order), dtype=np.int64)
    group[order] = np.arange(len(order)) // together
    lacking, there = np.bincount(group), {}
    with closing(conformers):
        for place, conformer in conformers:
            mine = int(group[place])
            there.setdefault(mine, {})[place] = conformer
            lacking[mine] -= 1
            if lacking[mine] == 0:
                made = there.pop(mine)
                places = sorted(made)
                yield places, [made[place] for place in places]
