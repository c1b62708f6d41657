"""Features of residues: equal to plain definitions, and the same however a structure lies."""

from __future__ import annotations

import gemmi
import numpy as np
import pytest
from scipy.spatial.distance import cdist
from scipy.spatial.transform import Rotation

from pipeline.folding.features import (
    ALONG,
    COLUMNS,
    CONTACT,
    MOST_RESIDUES,
    NEAREST,
    RANGES,
    STORED,
    WIDTH,
    ResidueFeatures,
    backbone_features,
    torsion_angles,
)
from pipeline.folding.files.reading import protein_chains, read_bytes

WITH_BACKBONES = ("1orc.pdb.gz", "5e5z.pdb.gz", "5i55.cif.gz")


def chains_of(folder, name):
    return protein_chains(read_bytes(str(folder / name))[0], name)[0]


def column(features: np.ndarray, name: str) -> np.ndarray:
    return features[:, COLUMNS.index(name)]


@pytest.mark.parametrize("name", WITH_BACKBONES)
def test_torsions_are_those_of_gemmi(name, structure_folder):
    (chain,) = chains_of(structure_folder, name)
    structure = gemmi.read_structure(str(structure_folder / name))
    structure.setup_entities()
    structure.remove_alternative_conformations()
    structure.assign_label_seq_id()
    polymer = list(structure[0][0].get_polymer())
    phi, psi = torsion_angles(chain.backbone)
    for number, residue in enumerate(polymer):
        before = polymer[number - 1] if number else None
        after = polymer[number + 1] if number + 1 < len(polymer) else None
        expected = gemmi.calculate_phi_psi(before, residue, after)
        found = phi[residue.label_seq - 1], psi[residue.label_seq - 1]
        np.testing.assert_allclose(found, expected, atol=1e-4)
    observed = {residue.label_seq - 1 for residue in polymer}
    unobserved = [i for i in range(len(phi)) if i not in observed]
    assert np.isnan(phi[unobserved]).all() and np.isnan(psi[unobserved]).all()


def test_distances_and_contacts_are_those_of_all_pairs(structure_folder):
    chain = chains_of(structure_folder, "1lzh.pdb.gz")[0]
    pairs = cdist(chain.backbone[:, 1], chain.backbone[:, 1])
    features = backbone_features(chain.backbone)
    n = len(pairs)
    for i in (0, 3, 64, n - 1):
        for offset in ALONG:
            expected = pairs[i, i + offset] if 0 <= i + offset < n else np.nan
            np.testing.assert_allclose(column(features, f"distance_{offset:+d}")[i], expected)
        far = sorted((pairs[i, j], j - i) for j in range(n) if abs(j - i) > 4)[:NEAREST]
        for rank, (distance, offset) in enumerate(far, 1):
            assert column(features, f"near_distance_{rank}")[i] == pytest.approx(distance)
            assert column(features, f"near_offset_{rank}")[i] == offset
        for name, (least, below) in RANGES.items():
            js = [j for j in range(n) if least <= abs(j - i) < (below or n)]
            assert column(features, f"contacts_{name}")[i] == (pairs[i, js] <= CONTACT).sum()


def test_turning_and_moving_changes_nothing(structure_folder):
    (chain,) = chains_of(structure_folder, "1orc.pdb.gz")
    turn = Rotation.from_euler("xyz", [0.3, -1.2, 2.0]).as_matrix()
    moved = chain.backbone @ turn.T + [10.0, -20.0, 5.0]
    plddt = np.linspace(0, 1, len(moved))
    before, after = backbone_features(chain.backbone, plddt), backbone_features(moved, plddt)
    np.testing.assert_allclose(after, before, atol=1e-4)
    mirrored = backbone_features(chain.backbone * [1, 1, -1], plddt)
    assert np.nanmax(abs(column(mirrored, "sin_phi") - column(before, "sin_phi"))) > 1


def test_what_was_not_observed_is_missing(structure_folder):
    (chain,) = chains_of(structure_folder, "1orc.pdb.gz")
    features = backbone_features(chain.backbone)
    missing = np.isnan(chain.backbone[:, 1, 0])
    assert missing.sum() == 71 - 64
    assert np.isnan(features[missing]).all()
    assert np.isfinite(column(features, "contacts_long")[~missing]).all()
    first = int(np.flatnonzero(~missing)[0])
    assert np.isnan(column(features, "sin_phi")[first])  # the bond to what is missing
    assert np.isnan(column(features, "distance_-1")[first])
    values, mask = ResidueFeatures.of(features)
    assert values.shape == mask.shape == (71, WIDTH) and np.isfinite(values).all()
    assert not mask[missing].any() and not values[~mask].any()


def test_a_chain_break_has_no_torsions(structure_folder):
    (chain,) = chains_of(structure_folder, "5e5z.pdb.gz")
    broken = chain.backbone.copy()
    broken[3:] += [4.0, 0, 0]  # the residues after the third lie 4 Å further off
    phi, psi = torsion_angles(broken)
    assert np.isnan(phi[[0, 3]]).all() and np.isfinite(phi[[1, 2, 4, 5]]).all()
    assert np.isnan(psi[[2, 5]]).all() and np.isfinite(psi[[0, 1, 3, 4]]).all()


@pytest.mark.parametrize("residues", [1, 2, 5, 9])
def test_few_residues_have_few_neighbours(residues):
    backbone = np.random.default_rng(0).normal(size=(residues, 3, 3)) * 3
    features = backbone_features(backbone)
    assert features.shape == (residues, WIDTH)
    expected = [sum(abs(j - i) > 4 for j in range(residues)) for i in range(residues)]
    near = [COLUMNS.index(f"near_distance_{rank}") for rank in range(1, NEAREST + 1)]
    assert np.isfinite(features[:, near]).sum(axis=1).tolist() == expected


def test_the_store_keeps_offsets_exactly_and_distances_well():
    offsets = np.arange(-MOST_RESIDUES, MOST_RESIDUES + 1)
    np.testing.assert_array_equal(offsets.astype(STORED).astype(int), offsets)
    distances = np.linspace(2, 64, 1000)
    assert abs(distances.astype(STORED) - distances).max() <= 2**-5
