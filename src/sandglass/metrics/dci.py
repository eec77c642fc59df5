"""Disentanglement, completeness and informativeness."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from sandglass.core import Model
from sandglass.errors import ConfigError
from sandglass.metrics._bootstrap import bootstrap, halves, sklearn_seed
from sandglass.metrics._factors import Known, known
from sandglass.metrics._information import entropy
from sandglass.metrics.evaluation import Better, Evaluation
from sandglass.registry import register
from sandglass.runs.result import Result

_RESAMPLES = 10


def disentanglement(importance: np.ndarray) -> float:
    """Of ``(D, F)`` importances: 1 when every dimension matters to one factor alone, 0 when to all alike.

    Dimensions count by their share of all importance. 0 when nothing matters to anything.

    Example:
        >>> disentanglement(np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])), disentanglement(np.ones((2, 2)))
        (1.0, 0.0)
    """
    if importance.sum() == 0:
        return 0.0
    concentration = 1 - entropy(importance) / max(np.log(importance.shape[1]), 1e-12)
    return max(0.0, float(np.average(concentration, weights=importance.sum(1))))  # rounding can leave it a little below


def completeness(importance: np.ndarray) -> float:
    """Of ``(D, F)`` importances: 1 when every factor is predicted by one dimension alone; factors count by their share.

    Example:
        >>> completeness(np.array([[0.5, 0.0], [0.5, 0.0]])), completeness(np.array([[0.5, 0.0], [0.0, 0.5]]))
        (0.0, 1.0)
    """
    return disentanglement(importance.T)


@register("dci", kind="metric")
class DCI:
    """Disentanglement, completeness and informativeness, from how much each dimension matters to predict each factor.

    Eastwood and Williams 2018, "A Framework for the Quantitative Evaluation of Disentangled Representations" (ICLR
    2018), with random forests.

    Args:
        trees: of each forest.

    Raises:
        ConfigError: no trees.
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
        """The three, over half of the examples; forests are grown on the other half, anew on each resample."""
        seen = known(model, evaluation, "dci", least=2)
        fit, test = halves(len(seen.codes), evaluation.seed, "dci")

        def three(weights: np.ndarray) -> np.ndarray:
            importance, accuracy = self.grow(seen, fit, test, weights, sklearn_seed(evaluation.seed, "dci", "forest"))
            return np.array([disentanglement(importance), completeness(importance), accuracy.mean()])

        values, errors = bootstrap(three, len(seen.codes), evaluation.seed, "dci", times=_RESAMPLES)
        majority = np.mean([np.bincount(column).max() / len(column) for column in seen.factors[test].T])
        notes = (
            seen.note(f"forests of {self.trees} trees"),
            seen.note("of one active dimension" if seen.codes.shape[1] == 1 else ""),
            seen.note(f"accuracy; the commonest value has {majority:.2f}"),
        )
        return [
            Result(name, float(value), float(error), len(test), "1", note)
            for name, value, error, note in zip(self.figures, values, errors, notes, strict=True)
        ]

    def grow(
        self, seen: Known, fit: np.ndarray, test: np.ndarray, weights: np.ndarray, seed: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """``(D, F)`` importances and ``(F,)`` accuracies."""
        from sklearn.ensemble import RandomForestClassifier

        importance, accuracy = [], []
        for y in seen.factors.T:
            # All dimensions are looked at in every node: else one that knows nothing is split on for want of another.
            forest = RandomForestClassifier(self.trees, max_features=None, random_state=seed)
            forest.fit(seen.codes[fit], y[fit], sample_weight=weights[fit])
            importance.append(forest.feature_importances_)
            right = forest.predict(seen.codes[test]) == y[test]
            accuracy.append(np.average(right, weights=weights[test]) if weights[test].any() else 0.0)
        return np.stack(importance, 1), np.array(accuracy)
