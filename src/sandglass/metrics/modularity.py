"""Modularity and explicitness."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from sandglass.core import Model
from sandglass.errors import ConfigError
from sandglass.metrics._bootstrap import bootstrap, halves
from sandglass.metrics._factors import Known, binned, by_chance, information, known
from sandglass.metrics._linear import Linear
from sandglass.metrics.evaluation import Better, Evaluation
from sandglass.registry import register
from sandglass.runs.result import Result

_NOTHING = 1e-9  # nats that rounding can leave of a dimension and a factor that are independent


def modularity(mutual: np.ndarray) -> float:
    """Of ``(D, F)`` mutual information: 1 when every dimension knows of one factor alone, 0 when of all alike.

    A dimension that knows nothing of any is passed over; 0 when none is left.

    Example:
        >>> modularity(np.array([[2.0, 0.0, 0.0], [0.0, 0.5, 0.0], [0.0, 0.0, 0.0]])), modularity(np.ones((2, 3)))
        (1.0, 0.0)
    """
    square = mutual[mutual.max(1) > _NOTHING] ** 2
    best = square.max(1, initial=0)
    return float(1 - np.mean((square.sum(1) - best) / (best * (square.shape[1] - 1)))) if len(square) else 0.0


class Ranking:
    """The area under the ROC curve of scores, for any weights of the examples.

    Args:
        scores: ``(N,)``.
        positive: ``(N,)`` which ones should have the higher scores.

    Example:
        >>> area = Ranking(np.array([0.1, 0.4, 0.4, 0.9]), np.array([False, False, True, True]))
        >>> area(np.ones(4))
        0.875
    """

    def __init__(self, scores: np.ndarray, positive: np.ndarray) -> None:
        self.order = scores.argsort(kind="stable")
        self.positive = positive[self.order]
        self.starts = np.flatnonzero(np.diff(scores[self.order], prepend=np.nan) != 0)  # of each run of equal scores

    def __call__(self, weights: np.ndarray) -> float:
        """Chance that a positive one is above a negative one, ties counting half; 1/2 when one kind is not there."""
        weights = weights[self.order]
        up = np.add.reduceat(weights * self.positive, self.starts)
        down = np.add.reduceat(weights * ~self.positive, self.starts)
        pairs = up.sum() * down.sum()
        return float((up * (down.cumsum() - down / 2)).sum() / pairs) if pairs else 0.5


@register("modularity", kind="metric")
class Modularity:
    """Modularity (each dimension knows of one factor at most) and explicitness (a linear classifier finds each value).

    Ridgeway and Mozer 2018, "Learning Deep Disentangled Embeddings with the F-Statistic Loss" (arXiv 1802.05312).

    Args:
        bins: of each latent dimension, for its mutual information.

    Raises:
        ConfigError: fewer than 2 bins.
    """

    needs = ("encode", "codes")
    requires = ("factors",)
    figures = ("modularity_score", "explicitness")
    better: Mapping[str, Better] = {"modularity_score": "higher", "explicitness": "higher"}

    def __init__(self, *, bins: int = 20) -> None:
        if bins < 2:
            raise ConfigError(f"modularity needs bins >= 2, not {bins}.")
        self.bins = bins

    def __call__(self, model: Model, evaluation: Evaluation) -> Sequence[Result]:
        """Modularity over all examples, explicitness over the half that the classifier was not fitted to."""
        seen = known(model, evaluation, "modularity", least=2)
        cells = binned(seen.codes, self.bins)
        value, error = bootstrap(
            lambda w: np.array([modularity(information(cells, self.bins, seen, w))]),
            len(cells),
            evaluation.seed,
            "modularity",
        )
        modular = Result(
            "modularity_score", float(value[0]), float(error[0]), len(cells), "1", seen.note(by_chance(cells, seen))
        )
        fit, test = halves(len(cells), evaluation.seed, "modularity")
        areas = [self.areas(seen, k, fit, test) for k in range(len(seen.names))]
        values, errors = bootstrap(
            lambda w: np.array([np.mean([np.mean([area(w) for area in each]) for each in areas])]),
            len(test), evaluation.seed, "explicitness",
        )  # fmt: skip
        by_factor = seen.each(np.array([np.mean([area(np.ones(len(test))) for area in each]) for each in areas]))
        note = seen.note(by_factor, "area under the ROC curve, by chance 0.50")
        return [modular, Result("explicitness", float(values[0]), float(errors[0]), len(test), "1", note)]

    @staticmethod
    def areas(seen: Known, k: int, fit: np.ndarray, test: np.ndarray) -> list[Ranking]:
        """One for every value of a factor, by the probability of that value; a value never fitted has 1/2."""
        y = seen.factors[:, k]
        scores = Linear(seen.codes[fit], y[fit], seen.values[k]).probabilities(seen.codes[test])
        return [Ranking(scores[:, value], y[test] == value) for value in range(seen.values[k])]
