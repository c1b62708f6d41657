"""Inputs to expected errors: the mean of the ranks that a forest and a ridge give, in label units.

Ranks are taken among the molecules that it was fitted on, so that a molecule's value does not
depend on which others are scored with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pipeline.trust.models.trees import Trees

TREES, LEAST_IN_LEAF, FEATURES, SAMPLE = 100, 20, 1 / 3, 0.5
RIDGE = 1000.0  # weight of the squared coefficients
QUANTILES, STEPS = 200, 20
FARTHEST = 3.0  # deviations that a quantile is mapped to at most
LEAST_SCALE = 0.1  # of the mean error, below which no interval's scale falls


@dataclass(frozen=True)
class ErrorRanker:
    """What tells large errors from small ones.

    Attributes
    ----------
    trees : the forest, of inputs to errors; what it says is the intervals' scale as well.
    quantiles : (q, inputs), of each input in the molecules fitted on.
    weights, offset : (inputs,), the ridge's, of normal scores to ranks of errors.
    forest_values, ridge_values : (n,) each, rising: what both said of the molecules fitted on (the
        forest by trees that had not seen them).
    ranks, errors : (steps,) each, rising: expected error in label units by mean rank.
    least_scale : in label units.
    """

    trees: Trees
    quantiles: np.ndarray
    weights: np.ndarray
    offset: np.ndarray
    forest_values: np.ndarray
    ridge_values: np.ndarray
    ranks: np.ndarray
    errors: np.ndarray
    least_scale: np.ndarray

    @classmethod
    def fit(
        cls, inputs: np.ndarray, errors: np.ndarray, *, seed: int, jobs: int | None
    ) -> ErrorRanker:
        """Fit to absolute errors (n,) of molecules with inputs (n, inputs)."""
        from scipy.stats import rankdata
        from sklearn.ensemble import RandomForestRegressor
        from sklearn.linear_model import Ridge  # slow to import

        forest = RandomForestRegressor(
            TREES, min_samples_leaf=min(LEAST_IN_LEAF, len(errors) // 4), max_features=FEATURES,
            max_samples=SAMPLE, bootstrap=True, oob_score=True, n_jobs=jobs, random_state=seed,
        ).fit(inputs, errors)  # fmt: skip
        quantiles = np.quantile(inputs, np.linspace(0, 1, QUANTILES), axis=0)
        normal = normal_scores(inputs, quantiles)
        ridge = Ridge(RIDGE).fit(normal, rankdata(errors) / len(errors))
        said = np.sort(forest.oob_prediction_), np.sort(ridge.predict(normal))
        mean = (_rank(forest.oob_prediction_, said[0]) + _rank(ridge.predict(normal), said[1])) / 2
        ranks, expected = rising(mean, errors)
        return cls(
            Trees.of(forest), quantiles, ridge.coef_, np.array(ridge.intercept_), *said,
            ranks, expected, np.array(LEAST_SCALE * errors.mean()),
        )  # fmt: skip

    def expected_and_scale(self, inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Expected absolute error and scale of the interval, in label units, (n,) each."""
        by_forest = self.trees.each(inputs.astype(np.float32)).mean(axis=1)
        by_ridge = normal_scores(inputs, self.quantiles) @ self.weights + self.offset
        mean = (_rank(by_forest, self.forest_values) + _rank(by_ridge, self.ridge_values)) / 2
        expected = np.interp(mean, self.ranks, self.errors)
        return expected, np.maximum(by_forest, self.least_scale)

    def arrays(self) -> dict[str, np.ndarray]:
        """All arrays by name, for safetensors."""
        own = {name: value for name, value in vars(self).items() if name != "trees"}
        return own | {f"trees.{name}": array for name, array in self.trees.arrays().items()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> ErrorRanker:
        """The inverse of `arrays`."""
        own = {name: array for name, array in arrays.items() if not name.startswith("trees.")}
        trees = {name.removeprefix("trees."): arrays[name] for name in arrays.keys() - own.keys()}
        return cls(trees=Trees.from_arrays(trees), **own)


def normal_scores(inputs: np.ndarray, quantiles: np.ndarray) -> np.ndarray:
    """Each input's place among its quantiles as a normal deviate; of equal ones the middle place.

    As scikit-learn's QuantileTransformer, but at the least and the largest value: many molecules
    may have that, and it takes them to the very end.
    """
    from scipy.stats import norm

    places = np.linspace(0, 1, len(quantiles))
    shares = np.empty(inputs.shape)
    for column, (values, known) in enumerate(zip(inputs.T, quantiles.T)):
        below = np.interp(values, known, places)
        above = -np.interp(-values, -known[::-1], -places[::-1])
        shares[:, column] = (below + above) / 2
    return norm.ppf(shares).clip(-FARTHEST, FARTHEST)


def _rank(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Where values stand among known ones (rising), from 0 to 1; between two, in between."""
    places = np.linspace(0, 1, len(known))
    low, high = np.interp(values, known, places), -np.interp(-values, -known[::-1], -places[::-1])
    return (low + high) / 2


def rising(ranks: np.ndarray, errors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Expected error by rank as a line that rises everywhere: means of steps, made to rise."""
    from sklearn.isotonic import IsotonicRegression

    order = np.argsort(ranks, kind="stable")
    steps = np.array_split(order, min(STEPS, max(2, len(order) // 10)))
    centres = np.array([ranks[step].mean() for step in steps])
    means = IsotonicRegression().fit_transform(centres, [errors[step].mean() for step in steps])
    # two molecules of different ranks never share a value: the order is the ranks'
    means = means + 1e-3 * errors.mean() * centres
    low, high = means[0] * 0.9, means[-1] + (means[-1] - means[-2]) + 1e-3 * errors.mean()
    return np.array([-1e-9, *centres, 1 + 1e-9]), np.array([low, *means, high])
