"""Molecules of a sample by what they are for: training and validation, or tests."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.training.trainer import TRAINING_ROLES

TEST_ROLES = ("id_test", "ood_test")
LEAST_TESTS = 2  # of either kind, as jobs.evaluate asks


def training_of(molecules: pa.Table) -> pa.Table:
    """Those that training and validation see."""
    return _of(molecules, TRAINING_ROLES)


def tests_of(molecules: pa.Table) -> pa.Table:
    """The test molecules."""
    return _of(molecules, TEST_ROLES)


def unseen(tests: pa.Table, seen: pa.Table) -> pa.Table:
    """The test molecules that are not among those that training or validation saw."""
    return tests.filter(pc.invert(pc.is_in(tests["smiles"], seen["smiles"].combine_chunks())))


def _of(molecules: pa.Table, roles: tuple[str, ...]) -> pa.Table:
    return molecules.filter(pc.is_in(molecules["role"], pa.array(roles)))
