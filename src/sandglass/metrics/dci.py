"""Disentanglement, completeness and informativeness."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from sandglass.core import Model
from sandglass.errors import ConfigError
from sandglass.metrics._bootstrap import bootstrap, halves, sklearn_seed
from sandglass.metrics._factors import Factored, factored
from sandglass.metrics._information import entropy
from sandglass.metrics.evaluation import Better, Evaluation
from sandglass.registry import register
from sandglass.runs.result import Result

_RESAMPLES = 10


def disentanglement(importance: np.ndarray) -> float:
    """Disentanglement of ``(D, F)`` importances: 1 if each dimension matters to one factor only, 0 if to all alike.

    Dimensions are weighted by their share of the total importance. 0 if all importances are 0.

    Example:
        >>> disentanglement(np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])), disentanglement(np.ones((2, 2)))
        (1.0, 0.0)
    """
    if importance.sum() == 0:
        return 0.0
    concentration = 1 - entropy(importance) / max(np.log(importance.shape[1]), 1e-12)
    return max(0.0, float(np.average(concentration, weights=importance.sum(1))))  # rounding can make it negative


def completeness(importance: np.ndarray) -> float:
    """Completeness of ``(D, F)`` importances: 1 if each factor is predicted by one dimension only.

    Factors are weighted by their share of the total importance.

    Example:
        >>> completeness(np.array([[0.5, 0.0], [0.5, 0.0]])), completeness(np.array([[0.5, 0.0], [0.0, 0.5]]))
        (0.0, 1.0)
    """
    return disentanglement(importance.T)


@register("dci", kind="metric")
class DCI:
    """Disentanglement, completeness and informativeness, from feature importances of predicting each factor.

    Eastwood and Williams 2018, "A Framework for the Quantitative Evaluation of Disentangled Representations" (ICLR
    2018), with random forests.

    Args:
        trees: number of trees per forest.

    Raises:
        ConfigError: ``trees`` is below 1.
    """

    needs = ("encode", "codes")
    requires = ("factors",)
    figures = ("dci_disentanglement", "dci_completeness", "dci_informativeness")
    better: Mapping[str, Better] = {
        "dci_disentanglement": "higher",
        "dci_completeness": "higher",
        "dci_informativeness": "higher",
    }
    by_default = False

    def __init__(self, *, trees: int = 50) -> None:
        if trees < 1:
            raise ConfigError(f"dci needs trees >= 1, not {trees}.")
        self.trees = trees

    def __call__(self, model: Model, evaluation: Evaluation) -> Sequence[Result]:
        """The three scores on half of the examples; forests are fitted to the other half, again for each resample."""
        data = factored(model, evaluation, "dci", least=2)
        fit, test = halves(len(data.codes), evaluation.seed, "dci")

        def three(weights: np.ndarray) -> np.ndarray:
            importance, accuracy = self.grow(data, fit, test, weights, sklearn_seed(evaluation.seed, "dci", "forest"))
            return np.array([disentanglement(importance), completeness(importance), accuracy.mean()])

        values, errors = bootstrap(three, len(data.codes), evaluation.seed, "dci", times=_RESAMPLES)
        majority = np.mean([np.bincount(column).max() / len(column) for column in data.factors[test].T])
        notes = (
            data.note(f"forests of {self.trees} trees"),
            data.note("only one active dimension" if data.codes.shape[1] == 1 else ""),
            data.note(f"accuracy; the majority value gets {majority:.2f}"),
        )
        return [
            Result(name, float(value), float(error), len(test), "1", note)
            for name, value, error, note in zip(self.figures, values, errors, notes, strict=True)
        ]

    def grow(
        self, data: Factored, fit: np.ndarray, test: np.ndarray, weights: np.ndarray, seed: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """``(D, F)`` importances and ``(F,)`` accuracies."""
        from sklearn.ensemble import RandomForestClassifier

        importance, accuracy = [], []
        for y in data.factors.T:
            # Consider all dimensions at every node, so that trees never have to split on an uninformative one.
            forest = RandomForestClassifier(self.trees, max_features=None, random_state=seed)
            forest.fit(data.codes[fit], y[fit], sample_weight=weights[fit])
            importance.append(forest.feature_importances_)
            correct = forest.predict(data.codes[test]) == y[test]
            accuracy.append(np.average(correct, weights=weights[test]) if weights[test].any() else 0.0)
        return np.stack(importance, 1), np.array(accuracy)
