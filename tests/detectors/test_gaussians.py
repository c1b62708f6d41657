"""Mahalanobis distances against formulas in float64."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from pipeline.detectors.classical.gaussians import Mahalanobis, MahalanobisWithExposure
from pipeline.runtime.errors import InputError
from tests.detectors.made_inputs import made, settings, taken, with_features

ID, OOD, NEW = made(90, 0, own=True), made(70, 1, shift=1.5), made(50, 2)


def shrunk_covariance(x: np.ndarray) -> np.ndarray:
    """Ledoit and Wolf, A well-conditioned estimator, 2004, section 3.3, molecule by molecule."""
    n, width = x.shape
    centred = x.astype(np.float64) - x.mean(axis=0, dtype=np.float64)
    sample = centred.T @ centred / n
    target = np.trace(sample) / width * np.eye(width)
    d2 = ((sample - target) ** 2).sum()
    b2 = sum(((np.outer(row, row) - sample) ** 2).sum() for row in centred) / n**2
    share = min(b2, d2) / d2
    return share * target + (1 - share) * sample


def squared(x: np.ndarray, training: np.ndarray) -> list[float]:
    inverse = np.linalg.inv(shrunk_covariance(training))
    centre = training.mean(axis=0, dtype=np.float64)
    return [(row - centre) @ inverse @ (row - centre) for row in x.astype(np.float64)]


@pytest.mark.parametrize("molecules", [90, 8])  # 8 molecules have fewer than the 12 features
def test_mahalanobis_equals_its_formula(molecules):
    training = taken(ID, slice(0, molecules))
    mine = Mahalanobis.fit(training, None, None, settings(), 0)
    expected = np.sqrt(squared(NEW.features, training.features))
    np.testing.assert_allclose(mine.scores(NEW), expected, rtol=1e-6)


def test_with_exposure_it_is_the_log_ratio_of_two_densities():
    mine = MahalanobisWithExposure.fit(ID, OOD, None, settings(), 0)
    of_id, of_ood = (
        multivariate_normal(
            part.features.mean(axis=0, dtype=np.float64), shrunk_covariance(part.features)
        ).logpdf(NEW.features)
        for part in (ID, OOD)
    )
    np.testing.assert_allclose(mine.scores(NEW), of_ood - of_id, rtol=1e-6, atol=1e-6)


def test_columns_that_are_constant_in_training_leave_scores_finite():
    padded = with_features(ID, np.column_stack([ID.features, np.full(90, 5.0)]))
    mine = Mahalanobis.fit(padded, None, None, settings(), 0)
    usual = mine.scores(with_features(NEW, np.column_stack([NEW.features, np.full(50, 5.0)])))
    moved = mine.scores(with_features(NEW, np.column_stack([NEW.features, np.full(50, 9.0)])))
    assert np.isfinite(moved).all() and (moved > usual).all()


def test_molecules_that_are_all_alike_are_an_error():
    same = with_features(ID, np.ones((90, 4)))
    with pytest.raises(InputError, match="the ID training molecules have no covariance"):
        Mahalanobis.fit(same, None, None, settings(), 0)
    with pytest.raises(InputError, match="the OOD training molecules have no covariance"):
        other = with_features(OOD, np.ones((70, 12)))
        MahalanobisWithExposure.fit(ID, other, None, settings(), 0)
    with pytest.raises(InputError, match="at least 2 OOD"):
        MahalanobisWithExposure.fit(ID, taken(OOD, slice(0, 1)), None, settings(), 0)
