"""The methods of a suite compared with a reference, block by block."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
import ray

from pipeline.runtime.errors import InputError
from pipeline.suite.cells import Energies, read_energies
from pipeline.suite.grid import Encoder, variant_names
from pipeline.suite.results.statistics import (
    ALPHA,
    aligned,
    holm,
    mean_aurocs,
    method_of,
    paired_differences,
    ranks,
    signed_rank,
)
from pipeline.suite.results.table import DONE
from pipeline.suite.settings import SuiteSettings

Group = Mapping[str, Any]
LEAST_BLOCKS = 6  # with fewer, no signed-rank test reaches 5 %


def compared(
    settings: SuiteSettings,
    output_dir: str,
    groups: Sequence[Group],
    rows: Sequence[Mapping[str, Any]],
    detectors: Sequence[str],
) -> dict[str, Any]:
    """Differences to the reference, their tests, and average ranks; on own test sets alone.

    All of a block are of the same molecules: those that all its methods were tested on.

    Parameters
    ----------
    groups : as `statistics.groups_of` gives them, of `rows`.

    Returns
    -------
    dict
        `reference`, `blocks` (what one is), `molecules` (by block, those compared on), `ranks`,
        `left_out` (methods that lack a block), `versus_reference`: of each other method its mean
        `difference` in AUROC, `blocks`, `better` and `worse` (of their 95 % intervals),
        `wilcoxon_p`, `holm_p`, and `by_block`; `notes`.

    Raises
    ------
    InputError
        If no method is called as --reference says.
    """
    own = [group for group in groups if group["data"] == group["test_data"]]
    with_encoder = _names_encoder(settings.reference)
    methods: dict[str, dict[str, Group]] = {}
    for group in own:
        block = group["data"] if with_encoder else f"{group['data']} on {group['encoder']}"
        methods.setdefault(method_of(group, with_encoder), {})[block] = group
    reference = reference_of(settings.reference, list(methods), detectors)
    done = {
        name: {block: group for block, group in found.items() if group["num_seeds"]}
        for name, found in methods.items()
    }
    blocks = list(dict.fromkeys(block for found in methods.values() for block in found))
    complete = [name for name, found in done.items() if len(found) == len(blocks)]
    found = _in_blocks(settings, output_dir, done, reference, blocks, rows)
    fine = [block for block, each in found.items() if "fault" not in each]
    versus = _versus({block: found[block]["differences"] for block in fine})
    notes = [
        f"{name} is not ranked: it lacks {len(blocks) - len(done[name])} of {len(blocks)} blocks"
        for name in done if name not in complete
    ]  # fmt: skip
    if len(done[reference]) < len(blocks):
        notes.append(
            f"differences are over the {len(done[reference])} of {len(blocks)} blocks that "
            f"{reference} has"
        )
    notes += _molecule_notes(found)
    if len(blocks) > len({group["data"] for group in own}):
        notes.append(
            "blocks of one data set have its molecules in common, and tests take them as "
            "independent: name the reference as ENCODER/DETECTOR to have a block a data set"
        )
    notes += reach_notes(len(versus), max((each["blocks"] for each in versus.values()), default=0))
    scores = [[found[block]["aurocs"][name] for name in complete] for block in fine]
    return {
        "reference": reference,
        "block": "a data set" if with_encoder else "a data set on an encoder's features",
        "blocks": blocks,
        "molecules": {block: found[block]["molecules"] for block in fine},
        "ranks": ranks(np.array(scores), complete) if complete and fine else None,
        "left_out": [name for name in done if name not in complete],
        "versus_reference": versus,
        "notes": notes,
    }


def check_reference(
    settings: SuiteSettings, encoders: Sequence[Encoder], detectors: Sequence[str]
) -> None:
    """Tell a --reference that no method of the grid will be called, before any is trained.

    Raises
    ------
    InputError
        As `reference_of`.
    """
    with_encoder = _names_encoder(settings.reference)
    methods = [
        method_of({"encoder": encoder.name, "detector": name, "variant": variant}, with_encoder)
        for encoder, name in product(encoders, detectors)
        for variant in variant_names(settings, name)
    ]
    reference_of(settings.reference, list(dict.fromkeys(methods)), detectors)


def _names_encoder(reference: str | None) -> bool:
    return reference is not None and "/" in reference.partition(" (")[0]


def _molecule_notes(found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Of blocks whose methods were tested on different molecules, how many they have in common."""
    faults = [f"{block} is not compared: {each['fault']}" for block, each in found.items()
              if "fault" in each]  # fmt: skip
    fewer = [
        f"{block} ({each['molecules']:,} of {each['tested']:,})" for block, each in found.items()
        if "fault" not in each and each["molecules"] < each["tested"]
    ]  # fmt: skip
    told = "ranks and differences are of the test molecules that all methods of a block have: in "
    return [*faults, *([told + ", ".join(fewer)] if fewer else [])]


def reach_notes(methods: int, blocks: int) -> list[str]:
    """What tests of so many methods against the reference cannot find over so few blocks."""
    if not methods:
        return []
    if blocks < LEAST_BLOCKS:
        return [
            f"no signed-rank test over {blocks} of them can reach p = 0.05: that needs "
            f"{LEAST_BLOCKS} blocks"
        ]
    least = methods * 2.0 ** (1 - blocks)  # all differences of one sign, two-sided; Holm's factor
    if least <= ALPHA:
        return []
    needed = int(np.ceil(1 + np.log2(methods / ALPHA)))
    return [
        f"p (Holm) of {methods} methods over {blocks} of them cannot be below {min(1, least):.3g}: "
        f"to reach 0.05 that needs {needed} blocks, or fewer methods"
    ]


def reference_of(asked: str | None, methods: Sequence[str], detectors: Sequence[str]) -> str:
    """The method that --reference names, or the first detector's first variant.

    Raises
    ------
    InputError
        If none is called so, or several are.
    """
    name = asked or detectors[0]
    if name in methods:
        return name
    variants = [method for method in methods if method.startswith(f"{name} (")]
    if variants and (asked is None or len(variants) == 1):
        return variants[0]
    told = "is several methods" if variants else "is no method"
    raise InputError(
        f"--reference {name}: {told} of this suite; there are: {', '.join(variants or methods)}"
    )


def _in_blocks(
    settings: SuiteSettings,
    output_dir: str,
    done: Mapping[str, Mapping[str, Group]],
    reference: str,
    blocks: Sequence[str],
    rows: Sequence[Mapping[str, Any]],
) -> dict[str, dict[str, Any]]:
    """`_in_block` of each block that any method has."""
    keys: dict[tuple[str, ...], list[str]] = {}
    for row in rows:
        if row["status"] == DONE:
            keys.setdefault(_labels(row), []).append(row["cell"])
    of_block = {
        block: {name: keys[_labels(found[block])] for name, found in done.items() if block in found}
        for block in blocks
    }
    of_block = {block: cells for block, cells in of_block.items() if cells}
    remote = ray.remote(num_cpus=1)(_in_block)
    refs = [
        remote.remote(output_dir, cells, reference, settings.bootstrap_samples, settings.data_seed)
        for cells in of_block.values()
    ]
    return dict(zip(of_block, ray.get(refs)))


def _versus(found: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Of each method with blocks in common with the reference, how it differs from it.

    Parameters
    ----------
    found : by block and method.
    """
    versus = {}
    for name in dict.fromkeys(name for each in found.values() for name in each):
        versus[name] = _summed_up({b: each[name] for b, each in found.items() if name in each})
    for each, p in zip(versus.values(), holm([v["wilcoxon_p"] for v in versus.values()])):
        each["holm_p"] = p
    return versus


def _labels(row: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(row[name] for name in ("data", "test_data", "encoder", "detector", "variant"))


def _in_block(
    output_dir: str, cells: Mapping[str, Sequence[str]], reference: str, samples: int, seed: int
) -> dict[str, Any]:
    """A block's methods on the molecules that all of them have, read from their cells' files.

    Returns
    -------
    dict
        `aurocs` by method, `differences` as `paired_differences` (none without the reference),
        `molecules`, and `tested`, the most that any method has; or the `fault` that there are too
        few.
    """
    energies: dict[str, list[Energies]] = {
        name: [read_energies(output_dir, key) for key in keys] for name, keys in cells.items()
    }
    try:
        common, is_ood = aligned(energies)
    except InputError as error:
        return {"fault": str(error)}
    versus = {}
    if reference in energies:
        versus = paired_differences(energies, reference, samples=samples, seed=seed)
    return {
        "aurocs": mean_aurocs(common, is_ood),
        "differences": versus,
        "molecules": len(is_ood),
        "tested": max(len(each.ids) for found in energies.values() for each in found),
    }


def _summed_up(by_block: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    differences = np.array([each["difference"] for each in by_block.values()])
    return {
        "difference": float(differences.mean()),
        "blocks": len(by_block),
        "better": sum(each["ci95"][0] > 0 for each in by_block.values()),
        "worse": sum(each["ci95"][1] < 0 for each in by_block.values()),
        "wilcoxon_p": signed_rank(differences),
        "by_block": dict(by_block),
    }
