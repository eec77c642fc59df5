"""Modularity and explicitness."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from sandglass.core import Model
from sandglass.errors import ConfigError
from sandglass.metrics._bootstrap import bootstrap, halves
from sandglass.metrics._factors import Factored, binned, by_chance, factored, information
from sandglass.metrics._linear import Linear
from sandglass.metrics.evaluation import Better, Evaluation
from sandglass.registry import register
from sandglass.runs.result import Result

_NOTHING = 1e-9  # nats; mutual information below this is rounding error


def modularity(mutual: np.ndarray) -> float:
    """Modularity of ``(D, F)`` mutual information: 1 if each dimension informs about one factor, 0 if about all alike.

    Uninformative dimensions are ignored; 0 if all are uninformative.

    Example:
        >>> modularity(np.array([[2.0, 0.0, 0.0], [0.0, 0.5, 0.0], [0.0, 0.0, 0.0]])), modularity(np.ones((2, 3)))
        (1.0, 0.0)
    """
    square = mutual[mutual.max(1) > _NOTHING] ** 2
    best = square.max(1, initial=0)
    return float(1 - np.mean((square.sum(1) - best) / (best * (square.shape[1] - 1)))) if len(square) else 0.0


class Ranking:
    """The area under the ROC curve of scores, for any example weights.

    Args:
        scores: ``(N,)``.
        positive: ``(N,)`` True for positive examples.

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
        """Probability that a positive scores above a negative, ties counting half; 1/2 without any of either."""
        weights = weights[self.order]
        up = np.add.reduceat(weights * self.positive, self.starts)
        down = np.add.reduceat(weights * ~self.positive, self.starts)
        pairs = up.sum() * down.sum()
        return float((up * (down.cumsum() - down / 2)).sum() / pairs) if pairs else 0.5


@register("modularity", kind="metric")
class Modularity:
    """Modularity (each dimension encodes at most one factor) and explicitness (factors are linearly decodable).

    Ridgeway and Mozer 2018, "Learning Deep Disentangled Embeddings with the F-Statistic Loss" (arXiv 1802.05312).

    Args:
        bins: number of bins per latent dimension, for the mutual information.

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
        """Modularity over all examples, explicitness over the half held out from the classifier."""
        data = factored(model, evaluation, "modularity", least=2)
        cells = binned(data.codes, self.bins)
        value, error = bootstrap(
            lambda w: np.array([modularity(information(cells, self.bins, data, w))]),
            len(cells),
            evaluation.seed,
            "modularity",
        )
        modular = Result(
            "modularity_score", float(value[0]), float(error[0]), len(cells), "1", data.note(by_chance(cells, data))
        )
        fit, test = halves(len(cells), evaluation.seed, "modularity")
        areas = [self.areas(data, k, fit, test) for k in range(len(data.names))]
        values, errors = bootstrap(
            lambda w: np.array([np.mean([np.mean([area(w) for area in each]) for each in areas])]),
            len(test), evaluation.seed, "explicitness",
        )  # fmt: skip
        by_factor = data.each(np.array([np.mean([area(np.ones(len(test))) for area in each]) for each in areas]))
        note = data.note(by_factor, "area under the ROC curve, 0.50 by chance")
        return [modular, Result("explicitness", float(values[0]), float(errors[0]), len(test), "1", note)]

    @staticmethod
    def areas(data: Factored, k: int, fit: np.ndarray, test: np.ndarray) -> list[Ranking]:
        """One ranking per factor value, by its predicted probability; a value absent from the fit gets 1/2."""
        y = data.factors[:, k]
        scores = Linear(data.codes[fit], y[fit], data.values[k]).probabilities(data.codes[test])
        return [Ranking(scores[:, value], y[test] == value) for value in range(data.values[k])]
