"""What needs no training, on each test set of a suite: once for each, kept as a file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.evaluation.audit import find_rivals
from pipeline.evaluation.metrics import auroc
from pipeline.molecules.kinds import Kind
from pipeline.runtime.files import json_bytes, write_atomically
from pipeline.suite.data.roles import LEAST_TESTS, training_of, unseen

FOLDER = "audits"


def audit_file(output_dir: str, molecules: str, tests: str) -> str:
    """Where the audit of a training and a test sample lies, by their digests."""
    return f"{output_dir}/{FOLDER}/{molecules}-{tests}.json"


def make_audits(
    molecules: pa.Table, tests: Mapping[str, pa.Table], seed: int, kind: Kind
) -> dict[str, dict[str, Any]]:
    """Audit the test sets of what is trained on one sample, and write each.

    Parameters
    ----------
    molecules : the sample, with roles.
    tests : by the file to write, test molecules with roles; those that training saw are left out.
    seed, kind : as of `find_rivals`.

    Returns
    -------
    dict
        By file: `best_descriptor` and which of its ends is OOD, its AUROC and that of Tanimoto;
        nothing where too few molecules are left.
    """
    training = training_of(molecules)
    made = {}
    for uri, table in tests.items():
        table = unseen(table, training)
        is_ood = pc.equal(table["role"], "ood_test").to_numpy(zero_copy_only=False)
        found: dict[str, Any] = {}
        if min((~is_ood).sum(), is_ood.sum()) >= LEAST_TESTS:
            smiles = table["smiles"].to_pylist()
            rivals = find_rivals(training, smiles, is_ood, seed=seed, kind=kind)
            descriptor, tanimoto = rivals.scores
            found = {
                "best_descriptor": rivals.name,
                "best_descriptor_ood_is": rivals.descriptors[rivals.name]["ood_is"],
                "best_descriptor_auroc": auroc(is_ood, descriptor),
                "tanimoto_auroc": auroc(is_ood, tanimoto),
            }
        write_atomically(uri, json_bytes(found))
        made[uri] = found
    return made
