"""Accuracy of simple classifiers on the codes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from sandglass.core import Model
from sandglass.data.dataset import Split
from sandglass.metrics._linear import Linear
from sandglass.metrics._subset import marked, points_and_inputs, scarce, subset
from sandglass.metrics.evaluation import Better, Evaluation, UnsuitableError
from sandglass.metrics.measure import share_result
from sandglass.registry import register
from sandglass.runs.result import Result

NEIGHBOURS = 5


@register("probe", kind="metric")
class Probe:
    """Accuracy of a 5-nearest-neighbour and a linear classifier on the codes, and on the raw inputs for reference.

    Alain and Bengio 2017, "Understanding Intermediate Layers Using Linear Classifier Probes" (arXiv 1610.01644).
    Fitted to at most 10,000 training examples, and tested on at most 10,000 examples of the split, of those with a
    label. Codes are of examples whose label is not looked at.
    """

    needs = ("encode",)
    requires = ("labels", "train")
    figures = ("probe_knn", "probe_linear")
    better: Mapping[str, Better] = {"probe_knn": "higher", "probe_linear": "higher"}
    by_default = False

    def __call__(self, model: Model, evaluation: Evaluation) -> Sequence[Result]:
        """Both accuracies, over the examples of the split.

        Raises:
            DataError: the training examples have no labels, or all have the same label.
        """
        assert evaluation.train is not None
        known = marked(evaluation.train)
        train = subset(known, evaluation.seed, "probe")
        split = subset(marked(evaluation.split), evaluation.seed, "probe", "test")
        assert split.y is not None
        if not len(split):
            raise UnsuitableError("The metric 'probe' needs labelled examples.")
        y, test_y = _labels(train), split.y.cpu().numpy()
        classes = int(max(y.max(), test_y.max())) + 1
        codes, inputs = points_and_inputs(model, evaluation, train)
        test_codes, test_inputs = points_and_inputs(model, evaluation, split)
        of = f" of {len(known):,}" if len(train) < len(known) else ""
        of += " labelled" if len(known) < len(evaluation.train) else ""
        majority = float(np.mean(test_y == np.bincount(y).argmax()))
        fitted = f"majority class {majority:.3f}; fitted to {len(train):,}{of} training examples"
        if evaluation.split.x is evaluation.train.x:
            fitted += ", and tested on the same"
        fitted += scarce(test_y)
        results = []
        for name, classify in (("probe_knn", nearest), ("probe_linear", linear)):
            predicted, _ = classify(codes, y, test_codes, classes)
            plain, converged = classify(inputs, y, test_inputs, classes)
            unsure = "" if converged else " (not converged)"
            note = f"on the inputs {float(np.mean(plain == test_y)):.3f}{unsure}; {fitted}"
            results.append(share_result(name, torch.from_numpy(predicted == test_y), note))
        return results


def _labels(train: Split) -> np.ndarray:
    if train.y is None or len(train.y.unique()) < 2:
        raise UnsuitableError("The metric 'probe' needs training examples of at least two classes.")
    return train.y.cpu().numpy()


def nearest(x: np.ndarray, y: np.ndarray, at: np.ndarray, classes: int) -> tuple[np.ndarray, bool]:
    """The majority class of the five nearest neighbours (Euclidean), the lowest class in a tie."""
    from sklearn.neighbors import KNeighborsClassifier

    return KNeighborsClassifier(min(NEIGHBOURS, len(x))).fit(x, y).predict(at), True


def linear(x: np.ndarray, y: np.ndarray, at: np.ndarray, classes: int) -> tuple[np.ndarray, bool]:
    """The most probable class by logistic regression, and whether the fit converged."""
    model = Linear(x, y, classes)
    return model.probabilities(at).argmax(1), model.converged
