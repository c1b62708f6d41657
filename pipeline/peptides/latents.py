"""What the store knows of peptides' residues, as the generator takes it: scaled, end to end.

It is held in the memory of Ray's object store, once a node, so that no step waits for a disk.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import numpy as np
import ray

from pipeline.encoding.in_store.residue_table import residue_features
from pipeline.generation.diffusion.scaling import Scaling
from pipeline.peptides.diffusion.residues import Peptides, tokens_of
from pipeline.peptides.holdout import Cut
from pipeline.peptides.source import PeptideSource
from pipeline.runtime.errors import InputError
from pipeline.runtime.telemetry import GIB
from pipeline.store.keyed_table import KeyedTable

AT_ONCE = 2048  # peptides that are read at a time
SCALED_BY = 65_536  # residues whose means and deviations latents are scaled by
SHARE_OF_MEMORY = 0.7  # of Ray's object store, that latents may take

log = logging.getLogger(__name__)

Read = Callable[[Sequence[str]], Sequence[np.ndarray]]


def parts_of(
    source: PeptideSource, cut: Cut, structures: list[np.ndarray | None] | None, seed: int
) -> tuple[Peptides, Peptides, Scaling]:
    """Peptides to train on and held-out ones, and the scaling, which is that of the former.

    Parameters
    ----------
    structures : of each of the source's peptides what is known, scaled; None for a model without.
    """
    index = source.residues.index()

    def read(keys: Sequence[str]) -> Sequence[np.ndarray]:
        return residue_features(source.residues, keys, index)

    width = read(source.keys[:1])[0].shape[1]
    seen = next((each.shape[1] for each in structures or () if each is not None), 0)
    check_room(sum(map(len, source.sequences)), width + seen)
    made, scaling = [], None
    for rows in cut:
        sequences = [source.sequences[row] for row in rows]
        tokens, starts = tokens_of(sequences)
        latents = end_to_end(read, [source.keys[row] for row in rows], starts, width)
        if scaling is None:
            rng = np.random.default_rng([seed, len(latents)])
            some = np.sort(rng.permutation(len(latents))[:SCALED_BY])
            scaling = Scaling.fit(latents[some].astype(np.float32), "off")
        scale_in_place(latents, scaling)
        of = None if structures is None else [structures[row] for row in rows]
        known = joined(of, starts, seen)
        made.append(Peptides(latents, tokens, starts, source.classes[rows], *known))
    return made[0], made[1], scaling


def check_room(residues: int, width: int) -> None:
    """InputError if so many residues with so many columns do not fit Ray's object store."""
    needed = residues * width * np.dtype(np.float16).itemsize
    nodes = sum(node["Alive"] for node in ray.nodes())
    there = ray.cluster_resources().get("object_store_memory", np.inf) / max(1, nodes)
    if needed > SHARE_OF_MEMORY * there:
        raise InputError(
            f"{residues:,} residues of {width:,} columns take {needed / GIB:.3g} GiB, and of Ray's "
            f"object store's {there / GIB:.3g} GiB they may take {SHARE_OF_MEMORY:.0%}; give fewer "
            "or shorter peptides (--max_length), an encoder of a smaller --model_size, or start "
            "Ray with a larger --object-store-memory"
        )


def end_to_end(read: Read, keys: Sequence[str], starts: np.ndarray, width: int) -> np.ndarray:
    """Latents (r, width) float16 of peptides, as they are in the store.

    Parameters
    ----------
    starts : (n + 1,) where each begins.

    Raises
    ------
    RuntimeError
        If the store has as many residues of one as it does not have.
    """
    latents = np.empty((starts[-1], width), np.float16)
    for start in range(0, len(keys), AT_ONCE):
        for place, found in enumerate(read(keys[start : start + AT_ONCE]), start):
            if len(found) != starts[place + 1] - starts[place]:
                raise RuntimeError(
                    f"the store has {len(found)} residues of a peptide of "
                    f"{starts[place + 1] - starts[place]}; this is a fault of MolSieve, report it"
                )
            latents[starts[place] : starts[place + 1]] = found
    return latents


def scale_in_place(latents: np.ndarray, scaling: Scaling) -> None:
    """Scale rows (r, d), a part at a time."""
    for start in range(0, len(latents), SCALED_BY):
        part = slice(start, start + SCALED_BY)
        latents[part] = scaling.inward(latents[part].astype(np.float32))


def structures_of(
    table: KeyedTable | None, source: PeptideSource, cut: Cut, shuffle: bool, seed: int
) -> list[np.ndarray | None] | None:
    """What is known of each peptide's residues (n_i, s) float16, scaled by training peptides.

    Of s columns, the second half says which of the first was measured.

    Parameters
    ----------
    shuffle : give each the structure of another, see `exchanged`.

    Raises
    ------
    InputError
        If no peptide that is trained on, or no held-out one, has a structure.
    """
    if table is None:
        return None
    from pipeline.folding.tables import structure_features

    found = structure_features(table, source.keys)
    for rows, which in zip(cut, ("that is trained on", "that is held out")):
        if all(found[row] is None for row in rows):
            raise InputError(
                f"--structure_table: it has no structure of a peptide {which}; run jobs.fold on "
                "this file, or leave it out"
            )
    known = [found[row] for row in cut.train if found[row] is not None]
    values = np.concatenate([each.values for each in known]).astype(np.float64)
    measured = np.concatenate([each.mask for each in known])
    count = measured.sum(axis=0).clip(min=1)
    mean = (values * measured).sum(axis=0) / count
    deviation = np.sqrt((np.square(values - mean) * measured).sum(axis=0) / count)
    deviation[deviation == 0] = 1
    made = [
        None if each is None else np.concatenate(
            [(each.values - mean) / deviation * each.mask, each.mask], axis=1
        ).astype(np.float16)
        for each in found
    ]  # fmt: skip
    return exchanged(made, source, cut, seed) if shuffle else made


def exchanged(
    structures: list[np.ndarray | None], source: PeptideSource, cut: Cut, seed: int
) -> list[np.ndarray | None]:
    """To each peptide the structure of the next longer one of its class and part, of its length.

    It is cut, or its last residue repeated, where that one has another length; the longest takes
    that of the shortest. Where a class and part has but one, that keeps its own, which is logged.
    """
    made, rng = list(structures), np.random.default_rng([seed, len(structures)])
    for rows in cut:
        for number in range(len(source.names)):
            mine = [r for r in rows if source.classes[r] == number and structures[r] is not None]
            if len(mine) == 1:
                log.warning(
                    "--shuffle_structures: of class %s a part of the data has one structure alone, "
                    "which stays with its peptide", source.names[number],
                )  # fmt: skip
            order = sorted(rng.permutation(mine), key=lambda r: len(structures[r]))
            for row, other in zip(order, [*order[1:], *order[:1]]):
                length, of = len(structures[row]), structures[other]
                made[row] = of[np.minimum(np.arange(length), len(of) - 1)]
    return made


def joined(
    structures: list[np.ndarray | None] | None, starts: np.ndarray, width: int
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Structures end to end (r, width) float16, and of which peptides there are any.

    Parameters
    ----------
    starts : (n + 1,) where each peptide begins.

    Raises
    ------
    RuntimeError
        If a structure has as many residues as its peptide does not have.
    """
    if structures is None:
        return None, None
    made = np.zeros((starts[-1], width), np.float16)
    for start, end, each in zip(starts, starts[1:], structures):
        if each is not None:
            if len(each) != end - start:
                raise RuntimeError(
                    f"a structure has {len(each)} residues, its peptide {end - start}; this is a "
                    "fault of MolSieve, report it"
                )
            made[start:end] = each
    return made, np.array([each is not None for each in structures])
