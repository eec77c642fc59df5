"""Whether samples conditioned on a label belong to that class."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from sandglass.core import Model
from sandglass.data.dataset import Split
from sandglass.errors import ConfigError
from sandglass.metrics._linear import Linear
from sandglass.metrics._subset import MOST, scarce
from sandglass.metrics.evaluation import Better, Evaluation, UnsuitableError
from sandglass.metrics.extractor import FeaturesOption
from sandglass.metrics.measure import share_result
from sandglass.metrics.samples import (
    extractor_of,
    given_to,
    of_examples,
    of_samples,
    order,
    worth_while,
)
from sandglass.registry import register
from sandglass.runs.result import Result

_SHOWN = 20  # with more classes, the note has only the lowest accuracies


@register("class_accuracy", kind="metric")
class ClassAccuracy:
    """Share of class-conditional samples that a classifier assigns to their class, and its held-out accuracy.

    The GAN-test of Shmelkov, Schmid and Alahari 2018, "How good is my GAN?" (arXiv 1807.09499), with a logistic
    regression on features of the data, fitted to at most 10,000 of the training examples.

    Args:
        features: the feature extractor; auto is own for images and long rows, and pixels for short rows.
        samples: number of samples, and maximum number of examples; by default the number of examples, at most 10,000.

    Raises:
        ConfigError: fewer than 1 sample.
    """

    needs = ("labels",)
    requires = ("labels", "train", "complete")
    figures = ("class_accuracy_samples", "class_accuracy_examples")
    quick = True
    better: Mapping[str, Better] = {"class_accuracy_samples": "higher"}
    by_default = staticmethod(worth_while)

    def __init__(self, *, features: FeaturesOption = "auto", samples: int | None = None) -> None:
        if samples is not None and samples < 1:
            raise ConfigError(f"class_accuracy needs at least 1 sample, not {samples}.")
        self.features, self.samples = features, samples

    def __call__(self, model: Model, evaluation: Evaluation) -> Sequence[Result]:
        """Both accuracies; the one on held-out examples shows how reliable the classifier itself is.

        Raises:
            DataError: the training examples have no labels, or all have the same label.
        """
        assert evaluation.train is not None  # it is required
        key, extractor = extractor_of(model, evaluation, self.features)
        n = self.samples or min(len(evaluation.split), MOST)
        given = given_to(evaluation, n)
        assert given.y is not None  # labels are required

        def of(name: str, split: Split, most: int) -> tuple[np.ndarray, np.ndarray]:
            assert split.y is not None
            y = split.y[order(split, name, most).to(split.y.device)]
            return labelled(of_examples(model, evaluation, key, extractor, name, split, most), y)

        if evaluation.train.y is None or len(evaluation.train.y[evaluation.train.y >= 0].unique()) < 2:
            raise UnsuitableError("The metric 'class_accuracy' needs training examples of at least two classes.")
        fitted, y = of("train", evaluation.train, MOST)
        real, labels = of("real", evaluation.split, n)
        samples, wanted = labelled(of_samples(model, evaluation, key, extractor, n, given), given.y)
        if not len(labels) or not len(wanted):
            raise UnsuitableError("The metric 'class_accuracy' needs labelled examples.")
        if not np.isfinite(samples).all():
            note = "the model generates values that are not finite"
            return [Result("class_accuracy_samples", math.nan, None, n, "1", note)]
        classifier = Linear(fitted, y, 1 + int(max(y.max(), labels.max(), wanted.max())))
        correct, correct_real = (
            classifier.probabilities(x).argmax(1) == k for x, k in ((samples, wanted), (real, labels))
        )
        unsure = "" if classifier.converged else " that did not converge,"
        how = f"a linear classifier{unsure} fitted to {len(y):,} training examples; {extractor.about}"
        on_samples = share_result(
            "class_accuracy_samples",
            torch.from_numpy(correct),
            f"{by_class(correct, wanted)}; given the labels of the examples; {how}",
        )
        on_examples = share_result("class_accuracy_examples", torch.from_numpy(correct_real), how + scarce(labels))
        return [on_samples, on_examples]


def labelled(features: Tensor, y: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """``(N, D)`` features and ``(N,)`` labels as arrays, without unlabelled examples (-1)."""
    known = y.cpu() >= 0
    return features[known].numpy(), y.cpu()[known].numpy()


def by_class(correct: np.ndarray, y: np.ndarray) -> str:
    """The accuracy of every class, or the lowest accuracies where there are many classes.

    Example:
        >>> by_class(np.array([True, False, True]), np.array([0, 0, 3]))
        'by class 0: 0.50, 3: 1.00'
    """
    shares = {int(k): float(correct[y == k].mean()) for k in np.unique(y)}
    if len(shares) > _SHOWN:
        lowest = sorted(shares, key=lambda k: shares[k])[:3]
        return "lowest of class " + ", ".join(f"{k}: {shares[k]:.2f}" for k in lowest)
    return "by class " + ", ".join(f"{k}: {share:.2f}" for k, share in shares.items())
