"""What kind of structure an encoder gets: the worst that is true of it."""

import numpy as np
import pytest

from pipeline.conformers.structure import structure_counts, structure_of, structures_line


def structure(atoms, coords, kind="3d", hydrogens=False, max_atoms=256):
    return structure_of(
        np.array(atoms, np.uint8), np.array(coords, np.float32).ravel(), kind,
        hydrogens=hydrogens, max_atoms=max_atoms,
    )  # fmt: skip


def line_of(distance: float, atoms: int) -> list[list[float]]:
    return [[distance * i, 0, 0] for i in range(atoms)]


@pytest.mark.parametrize(
    ("atoms", "coords", "expected"),
    [
        ([6, 6], line_of(1.0, 2), "3d"),
        ([6, 6], line_of(0.999, 2), "clashing"),
        ([11, 17], line_of(0, 2), "clashing"),
        ([6, 1, 1], [[0, 0, 0], [0.7, 0, 0], [0.7, 0, 0]], "3d"),  # hydrogens may be close
        ([6], [[0, 0, 0]], "3d"),
        ([6, 6, 6], [[1000, 1000, 1000], [0, 0, 0], [1000, 1000.5, 1000.8]], "clashing"),
        ([6, 6, 6], [[1000, 1000, 1000], [0, 0, 0], [1000, 1000.75, 1000.75]], "3d"),
    ],
)
def test_atoms_clash_below_one_angstrom(atoms, coords, expected):
    assert structure(atoms, coords) == expected


def test_closest_atoms_are_found_as_by_a_plain_loop():
    rng = np.random.default_rng(0)
    for _ in range(50):
        atoms = rng.choice([1, 6, 8], 20)
        coords = rng.normal(0, 2, (20, 3)).astype(np.float32)
        heavy = [tuple(map(float, xyz)) for xyz, atom in zip(coords, atoms) if atom != 1]
        pairs = [(a, b) for i, a in enumerate(heavy) for b in heavy[:i]]
        close = any(sum((p - q) ** 2 for p, q in zip(a, b)) < 1 for a, b in pairs)
        assert structure(atoms, coords) == ("clashing" if close else "3d")


def test_what_is_cropped_depends_on_the_atoms_that_the_encoder_sees():
    atoms, coords = [6] * 4 + [1] * 4, line_of(1.5, 8)
    assert structure(atoms, coords, max_atoms=4) == "3d"
    assert structure(atoms, coords, max_atoms=3) == "cropped"
    assert structure(atoms, coords, max_atoms=4, hydrogens=True) == "cropped"
    assert structure(atoms, coords, max_atoms=8, hydrogens=True) == "3d"
    assert structure(atoms, coords, max_atoms=None) == "3d"


def test_the_worst_is_told_and_what_nobody_knows_is_none():
    atoms, coords = [6, 6], line_of(0, 2)
    assert structure(atoms, coords, max_atoms=1) == "cropped"
    assert structure(atoms, coords, "2d", max_atoms=1) == "2d"
    assert structure(atoms, coords, None) is None


def test_counts_are_told_unless_all_is_3d():
    counts = structure_counts(["3d", "2d", "3d", None])
    assert counts == {"3d": 2, "clashing": 0, "cropped": 0, "2d": 1, "unknown": 1}
    assert structures_line(counts) == "3d 2, 2d 1, unknown 1 (column structure)"
    assert structures_line(structure_counts(["3d", "3d"])) is None
    assert structures_line({}) is None
