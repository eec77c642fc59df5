"""Whether samples drawn given a label are of that class."""

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

_SHOWN = 20  # classes whose accuracies are in the note; of more, the lowest


@register("class_accuracy", kind="metric")
class ClassAccuracy:
    """Samples drawn given labels that a classifier finds to be of that class, beside the same of held-out examples.

    The GAN-test of Shmelkov, Schmid and Alahari 2018, "How good is my GAN?" (arXiv 1807.09499), with a logistic
    regression on features of the data, fitted to at most 10,000 of the training examples.

    Args:
        features: where the features come from; auto is own for pictures and pixels for rows of few numbers.
        samples: how many to draw, and of how many examples; as many as there are examples, at most 10,000, when not
            given.

    Raises:
        ConfigError: no samples.
    """

    needs = ("labels",)
    requires = ("labels", "train", "complete")
    figures = ("class_accuracy_samples", "class_accuracy_examples")
    better: Mapping[str, Better] = {"class_accuracy_samples": "higher"}
    by_default = staticmethod(worth_while)

    def __init__(self, *, features: FeaturesOption = "auto", samples: int | None = None) -> None:
        if samples is not None and samples < 1:
            raise ConfigError(f"class_accuracy needs at least 1 sample, not {samples}.")
        self.features, self.samples = features, samples

    def __call__(self, model: Model, evaluation: Evaluation) -> Sequence[Result]:
        """Both shares; the second says how far the classifier itself is to be trusted.

        Raises:
            DataError: the training examples have no class, or all have the same one.
        """
        assert evaluation.train is not None  # it is required
        key, extractor = extractor_of(model, evaluation, self.features)
        n = self.samples or min(len(evaluation.split), MOST)
        given = given_to(evaluation, n)
        assert given.y is not None  # they are required

        def of(name: str, split: Split, most: int) -> tuple[np.ndarray, np.ndarray]:
            assert split.y is not None
            y = split.y[order(split, name, most).to(split.y.device)]
            return labelled(of_examples(model, evaluation, key, extractor, name, split, most), y)

        if evaluation.train.y is None or len(evaluation.train.y[evaluation.train.y >= 0].unique()) < 2:
            raise UnsuitableError("The metric 'class_accuracy' needs training examples of at least two classes.")
        fitted, y = of("train", evaluation.train, MOST)
        real, truth = of("real", evaluation.split, n)
        samples, wanted = labelled(of_samples(model, evaluation, key, extractor, n, given), given.y)
        if not len(truth) or not len(wanted):
            raise UnsuitableError("The metric 'class_accuracy' needs examples whose class is known.")
        if not np.isfinite(samples).all():
            note = "the model generates values that are not finite"
            return [Result("class_accuracy_samples", math.nan, None, n, "1", note)]
        classifier = Linear(fitted, y, 1 + int(max(y.max(), truth.max(), wanted.max())))
        right, right_of_real = (
            classifier.probabilities(x).argmax(1) == k for x, k in ((samples, wanted), (real, truth))
        )
        unsure = "" if classifier.converged else " that did not converge,"
        how = f"a linear classifier{unsure} fitted to {len(y):,} training examples; {extractor.about}"
        ours = share_result(
            "class_accuracy_samples",
            torch.from_numpy(right),
            f"{by_class(right, wanted)}; given the labels of the examples; {how}",
        )
        theirs = share_result("class_accuracy_examples", torch.from_numpy(right_of_real), how + scarce(truth))
        return [ours, theirs]


def labelled(features: Tensor, y: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """``(N, D)`` features and ``(N,)`` classes as arrays, without those of unknown class (-1)."""
    known = y.cpu() >= 0
    return features[known].numpy(), y.cpu()[known].numpy()


def by_class(right: np.ndarray, y: np.ndarray) -> str:
    """The share that is right of every class, or of the lowest where there are many.

    Example:
        >>> by_class(np.array([True, False, True]), np.array([0, 0, 3]))
        'by class 0: 0.50, 3: 1.00'
    """
    shares = {int(k): float(right[y == k].mean()) for k in np.unique(y)}
    if len(shares) > _SHOWN:
        lowest = sorted(shares, key=lambda k: shares[k])[:3]
        return "lowest of class " + ", ".join(f"{k}: {shares[k]:.2f}" for k in lowest)
    return "by class " + ", ".join(f"{k}: {share:.2f}" for k, share in shares.items())
