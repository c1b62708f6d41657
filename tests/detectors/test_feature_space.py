"""The views side by side: standardised, projected, measured, against numpy and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from rdkit import DataStructs
from rdkit.Chem import MolFromSmiles
from rdkit.Chem.rdFingerprintGenerator import GetMorganGenerator
from sklearn.decomposition import PCA

from pipeline.detectors.feature_space import LEAST_DEVIATION, Described, FeatureSpace
from pipeline.molecules.features.fingerprints import ecfp4
from tests.made_sets import hiv, moses

SEED = 3


def described(smiles: list[str], seed: int, own: np.ndarray | None = None) -> Described:
    """Molecules whose minimol is random and whose ecfp is RDKit's."""
    rng = np.random.default_rng(seed)
    minimol = rng.normal(5, [0.5, 3, 1000], (len(smiles), 3)).astype(np.float32)
    return Described({"minimol": minimol, "ecfp": ecfp4(smiles).astype(np.float32)}, smiles, own)


@pytest.fixture(scope="module")
def training() -> Described:
    return described(moses()[:60], 0)


@pytest.fixture(scope="module")
def new() -> Described:
    return described([*moses()[100:110], *hiv()[:10]], 1)


def exactly(block: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Standardised in float64, deviations with their floor."""
    block, reference = block.astype(np.float64), reference.astype(np.float64)
    floor = LEAST_DEVIATION * np.maximum(1, np.abs(reference).max(axis=0))
    return (block - reference.mean(axis=0)) / np.maximum(reference.std(axis=0), floor)


def test_a_view_is_standardised_by_training_molecules_alone(training, new):
    space = FeatureSpace.fit(["minimol"], training, SEED)
    for molecules in (training, new):
        expected = exactly(molecules.blocks["minimol"], training.blocks["minimol"])
        found = space.inputs(molecules).features
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    mean, scale = space.plain
    ours = (new.blocks["minimol"] - mean) / scale  # what a head does itself
    np.testing.assert_array_equal(ours, space.inputs(new).features)


def test_what_is_constant_in_training_does_not_explode(training, new):
    """Rounding of a constant must not become thousands, nor a rare flag millions."""
    constant = np.tile(np.float32([0, 0.1, 1e6]), (60, 1))
    constant[::2] *= 1 + 1e-7
    space = FeatureSpace.fit(["minimol"], Described({"minimol": constant}, training.smiles), SEED)
    other = Described({"minimol": constant[:20] * np.float32(1 + 2e-7)}, new.smiles)
    assert np.abs(space.inputs(other).features).max() < 0.01
    flag = Described({"minimol": np.ones((20, 3), np.float32)}, new.smiles)
    assert np.abs(space.inputs(flag).features).max() == pytest.approx(1 / LEAST_DEVIATION, rel=1e-4)


def test_a_rare_value_weighs_no_more_than_ten_usual_deviations(training, new):
    rng = np.random.default_rng(0)
    varying = rng.normal(0, 2, (60, 3)).astype(np.float32)
    varying[:, 1] = 0
    space = FeatureSpace.fit(["minimol"], Described({"minimol": varying}, training.smiles), SEED)
    usual = np.median(varying.std(axis=0))
    flag = Described({"minimol": np.full((20, 3), usual, np.float32)}, new.smiles)
    assert space.inputs(flag).features[:, 1] == pytest.approx(10, rel=1e-5)


def test_fingerprints_are_projected_as_by_scikit_learn(training, new):
    space = FeatureSpace.fit(["ecfp"], training, SEED)
    bits = training.blocks["ecfp"].astype(np.float64)
    reference = PCA(50, svd_solver="full").fit(bits)
    known, found = (space.inputs(molecules).features for molecules in (training, new))
    assert known.shape == (60, 50) and space.plain is None
    # Signs are free, and the last components those of a randomised solver: to the first ten.
    expected = exactly(reference.transform(new.blocks["ecfp"]), reference.transform(bits))
    sign = np.sign((exactly(reference.transform(bits), reference.transform(bits)) * known).sum(0))
    np.testing.assert_allclose(found[:, :10], (expected * sign)[:, :10], atol=0.05)
    np.testing.assert_allclose(known.std(axis=0), 1, rtol=1e-3)
    np.testing.assert_allclose(known.mean(axis=0), 0, atol=1e-4)
    again = FeatureSpace.fit(["ecfp"], training, SEED).inputs(new).features
    np.testing.assert_array_equal(found, again)


def test_few_molecules_have_fewer_components_and_equal_ones_none(training):
    few = described(moses()[:5], 2)
    assert FeatureSpace.fit(["ecfp"], few, SEED).inputs(few).features.shape == (5, 4)
    same = described(["CCO"] * 5, 2)
    assert np.isfinite(FeatureSpace.fit(["ecfp"], same, SEED).inputs(few).features).all()


def tanimotos(smiles: list[str], references: list[str]) -> np.ndarray:
    maker = GetMorganGenerator(radius=2, fpSize=2048)
    known, asked = (
        [maker.GetFingerprint(MolFromSmiles(text)) for text in texts]
        for texts in (references, smiles)
    )
    return np.array([DataStructs.BulkTanimotoSimilarity(each, known) for each in asked])


def nearest_and_mean(distance: np.ndarray) -> list[np.ndarray]:
    """The nearest, and the mean of the 5 nearest, of rows."""
    nearest = np.sort(distance, axis=1)[:, :5]
    return [nearest[:, 0], nearest.mean(axis=1)]


def test_distances_leave_a_training_molecule_itself_out(training, new):
    """Its twin stays: the first molecule is there twice, in other rows."""
    twice = [*training.smiles, training.smiles[0]]
    blocks = {"minimol": np.vstack([training.blocks["minimol"], training.blocks["minimol"][:1]])}
    known = Described(blocks, twice, np.arange(61))
    space = FeatureSpace.fit(["minimol", "distances"], known, SEED)
    reference = exactly(blocks["minimol"], blocks["minimol"])

    def distances(features: np.ndarray, similar: np.ndarray, own: float) -> np.ndarray:
        left_out = own * np.eye(len(features), 61)
        apart = np.linalg.norm(features[:, None] - reference, axis=2)
        found = (nearest_and_mean(d + left_out) for d in (1 - similar, apart))
        return np.column_stack([column for columns in found for column in columns])

    raw = distances(reference, tanimotos(twice, twice), 1e9)
    found = space.inputs(known)
    assert found.blocks == {"minimol": slice(0, 3), "distances": slice(3, 7)}
    np.testing.assert_allclose(found.features[:, 3:], exactly(raw, raw), atol=2e-3)
    others = Described({"minimol": new.blocks["minimol"]}, new.smiles)
    mine = exactly(new.blocks["minimol"], blocks["minimol"])
    expected = exactly(distances(mine, tanimotos(new.smiles, twice), 0), raw)
    np.testing.assert_allclose(space.inputs(others).features[:, 3:], expected, atol=2e-3)


def test_a_training_molecule_is_measured_as_new_only_if_it_is_said_to_be_one(training):
    space = FeatureSpace.fit(["ecfp", "distances"], training, SEED)
    unknown = space.inputs(Described(training.blocks, training.smiles)).features[:, 50]
    own = space.inputs(
        Described(training.blocks, training.smiles, np.arange(60))
    ).features[:, 50]  # fmt: skip
    assert (own > unknown).all()
    assert np.ptp(unknown) < 1e-5  # all are at distance 0


@pytest.mark.parametrize(
    "views",
    [["minimol"], ["ecfp"], ["minimol", "ecfp", "distances"], ["distances", "ecfp", "minimol"]],
)
def test_saved_and_loaded_spaces_are_equal_and_keep_the_order_of_views(training, new, views):
    space = FeatureSpace.fit(views, training, SEED)
    files = space.save()
    assert all(name.endswith((".safetensors", ".json")) for name in files)
    loaded = FeatureSpace.load(views, files)
    ours, theirs = space.inputs(new), loaded.inputs(new)
    np.testing.assert_array_equal(ours.features, theirs.features)
    assert list(ours.blocks) == list(theirs.blocks) == list(loaded.views) == views
    assert [part.start for part in ours.blocks.values()][0] == 0
    assert ours.blocks[views[-1]].stop == ours.features.shape[1]
    assert (loaded.plain is None) == (views != ["minimol"])
    for view, part in ours.blocks.items():  # whatever stands beside it
        if view != "distances":
            alone = FeatureSpace.fit([view], training, SEED).inputs(new).features
            np.testing.assert_array_equal(ours.features[:, part], alone)


def test_a_molecule_is_the_same_in_any_company(training, new):
    space = FeatureSpace.fit(["minimol", "ecfp", "distances"], training, SEED)
    mask = np.arange(20) % 3 == 0
    np.testing.assert_allclose(
        space.inputs(new.take(mask)).features, space.inputs(new).features[mask], atol=1e-5
    )
    none = space.inputs(new.take(np.zeros(20, bool)))
    assert none.features.shape == (0, 57) and none.bits.shape == (0, 256)


def test_features_of_earlier_versions_are_taken_as_they_are(new):
    space = FeatureSpace.unchanged("minimol")
    np.testing.assert_array_equal(space.inputs(new).features, new.blocks["minimol"])
    assert space.plain is not None and space.views == ("minimol",)
