"""The separated attribute predictability score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from sandglass.core import Model
from sandglass.metrics._bootstrap import bootstrap, halves
from sandglass.metrics._factors import balanced, factored, gap
from sandglass.metrics.evaluation import Better, Evaluation
from sandglass.registry import register
from sandglass.runs.result import Result


@register("sap", kind="metric")
class SeparatedAttributePredictability:
    """SAP: gap in accuracy between the two single dimensions that best predict a factor.

    Kumar, Sattigeri and Balakrishnan 2018, "Variational Inference of Disentangled Latent Concepts from Unlabeled
    Observations" (arXiv 1711.00848), with threshold classifiers on each dimension, as for categorical factors.
    """

    needs = ("encode", "codes")
    requires = ("factors",)
    figures = ("sap",)
    better: Mapping[str, Better] = {"sap": "higher"}

    def __call__(self, model: Model, evaluation: Evaluation) -> Sequence[Result]:
        """The mean over factors; thresholds are fitted to half of the examples and tested on the other half."""
        from sklearn.tree import DecisionTreeClassifier

        data = factored(model, evaluation, "sap")
        fit, test = halves(len(data.codes), evaluation.seed, "sap")
        correct = np.zeros((len(data.names), len(test), data.codes.shape[1]))
        for k, values in enumerate(data.values):
            for j in range(data.codes.shape[1]):
                tree = DecisionTreeClassifier(max_leaf_nodes=values, class_weight="balanced", random_state=0)
                tree.fit(data.codes[fit, j : j + 1], data.factors[fit, k])
                correct[k, :, j] = tree.predict(data.codes[test, j : j + 1]) == data.factors[test, k]

        def gaps(weights: np.ndarray) -> np.ndarray:
            columns = zip(correct, data.factors[test].T, data.values, strict=True)
            scores = np.stack([balanced(hits, y, values, weights) for hits, y, values in columns], 1)
            each = gap(scores, 1 / np.array(data.values))
            return np.append(each, each.mean())

        found, errors = bootstrap(gaps, len(test), evaluation.seed, "sap")
        most = float(np.mean(1 - 1 / np.array(data.values)))
        fitted = f"thresholds fitted to {len(fit):,} other examples"
        note = data.note(data.each(found[:-1]), f"at most {most:.2f}", fitted)
        return [Result("sap", float(found[-1]), float(errors[-1]), len(test), "1", note)]
