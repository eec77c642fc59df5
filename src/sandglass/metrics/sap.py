"""The separated attribute predictability score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from sandglass.core import Model
from sandglass.metrics._bootstrap import bootstrap, halves
from sandglass.metrics._factors import balanced, gap, known
from sandglass.metrics.evaluation import Better, Evaluation
from sandglass.registry import register
from sandglass.runs.result import Result


@register("sap", kind="metric")
class SeparatedAttributePredictability:
    """SAP: by how much the dimension that predicts a factor best, on its own, is ahead of the second-best.

    Kumar, Sattigeri and Balakrishnan 2018, "Variational Inference of Disentangled Latent Concepts from Unlabeled
    Observations" (arXiv 1711.00848), with thresholds on the dimension, as for a factor without an order.
    """

    needs = ("encode", "codes")
    requires = ("factors",)
    figures = ("sap",)
    better: Mapping[str, Better] = {"sap": "higher"}

    def __call__(self, model: Model, evaluation: Evaluation) -> Sequence[Result]:
        """The mean over factors; thresholds are fitted to half of the examples, and the other half is resampled."""
        from sklearn.tree import DecisionTreeClassifier

        seen = known(model, evaluation, "sap")
        fit, test = halves(len(seen.codes), evaluation.seed, "sap")
        correct = np.zeros((len(seen.names), len(test), seen.codes.shape[1]))
        for k, values in enumerate(seen.values):
            for j in range(seen.codes.shape[1]):
                tree = DecisionTreeClassifier(max_leaf_nodes=values, class_weight="balanced", random_state=0)
                tree.fit(seen.codes[fit, j : j + 1], seen.factors[fit, k])
                correct[k, :, j] = tree.predict(seen.codes[test, j : j + 1]) == seen.factors[test, k]

        def gaps(weights: np.ndarray) -> np.ndarray:
            columns = zip(correct, seen.factors[test].T, seen.values, strict=True)
            scores = np.stack([balanced(right, y, values, weights) for right, y, values in columns], 1)
            each = gap(scores, 1 / np.array(seen.values))
            return np.append(each, each.mean())

        found, errors = bootstrap(gaps, len(test), evaluation.seed, "sap")
        most = float(np.mean(1 - 1 / np.array(seen.values)))
        note = seen.note(seen.each(found[:-1]), f"at most {most:.2f}", f"thresholds fitted to {len(fit):,} others")
        return [Result("sap", float(found[-1]), float(errors[-1]), len(test), "1", note)]
