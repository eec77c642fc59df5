"""Whether every class of the examples is among the samples."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from sandglass.core import Model
from sandglass.errors import ConfigError
from sandglass.metrics._linear import Linear
from sandglass.metrics.evaluation import Better, Evaluation, Requirement, UnsuitableError
from sandglass.metrics.extractor import FeaturesOption
from sandglass.metrics.samples import at_most, extractor_of, of_examples, of_samples, order, worth_while
from sandglass.registry import register
from sandglass.running import conditioned_on
from sandglass.runs.result import Result

_ENOUGH = 5  # examples of a class, so that it has a share


@register("class_shares", kind="metric")
class ClassShares:
    """The most neglected class: the ratio of its share of the samples to its share of the examples.

    A classifier finds the classes of the samples: that of the features, if it is of the classes of the data, else a
    logistic regression on features of labelled training examples. What it confuses of them is taken into
    account, see :func:`shift`. Only for models that are not given the class: theirs have the shares they are asked
    for.

    Args:
        features: the feature extractor; auto is own for images and long rows, and pixels for short rows.
        samples: number of samples, and maximum number of examples; by default the number of examples.

    Raises:
        ConfigError: fewer than 1 sample.
    """

    needs: tuple[str, ...] = ()
    requires: tuple[Requirement, ...] = ("labels", "train", "complete")
    figures = ("least_class",)
    quick = True
    better: Mapping[str, Better] = {"least_class": "higher"}
    by_default = staticmethod(worth_while)

    def __init__(self, *, features: FeaturesOption = "auto", samples: int | None = None) -> None:
        if samples is not None and samples < 1:
            raise ConfigError(f"class_shares needs at least 1 sample, not {samples}.")
        self.features, self.samples = features, samples

    def __call__(self, model: Model, evaluation: Evaluation) -> Sequence[Result]:
        """The ratio; its note names the class.

        Raises:
            UnsuitableError: the model is given the labels, or fewer than two classes have enough examples.
        """
        assert evaluation.train is not None and evaluation.split.y is not None  # they are required
        if "labels" in conditioned_on(model):
            raise UnsuitableError("The metric 'class_shares' is for models that are not given the class.")
        y, n = evaluation.train.y, self.samples or min(len(evaluation.split), at_most(model, evaluation))
        labels = np.empty(0) if y is None else y[order(evaluation.train, "train", n).to(y.device)].cpu().numpy()
        if len(np.unique(labels[labels >= 0])) < 2:
            raise UnsuitableError("The metric 'class_shares' needs training examples of at least two classes.")
        key, extractor = extractor_of(model, evaluation, self.features)
        fake = of_samples(model, evaluation, key, extractor, n)
        real = of_examples(model, evaluation, key, extractor, "real", evaluation.split, n)
        if not bool(torch.isfinite(fake).all()):
            return [Result("least_class", math.nan, None, n, "1", "the model generates values that are not finite")]
        if extractor.labels and extractor.classify is not None:
            find, how = extractor.classify, "by the classifier of the features"
        else:
            known = of_examples(model, evaluation, key, extractor, "train", evaluation.train, n)
            find, how = fitted(known, labels)
        of_fake, of_real = (find(x).argmax(1).numpy() for x in (fake, real))
        truth = evaluation.split.y[order(evaluation.split, "real", n).to(evaluation.split.y.device)].cpu().numpy()
        marked = truth >= 0
        of_real, truth = of_real[marked], truth[marked]
        enough = np.flatnonzero(np.bincount(truth) >= _ENOUGH)
        if len(enough) < 2:
            raise UnsuitableError(f"The metric 'class_shares' needs two classes of {_ENOUGH} examples.")
        right = float((of_real == truth).mean())
        ratios, errors = shift(of_fake, of_real, truth, enough)
        # A rare class has a low ratio by chance: the one that is low beyond its error comes first.
        place = int(np.argmin(ratios + 3 * errors))
        ratio, share = max(0.0, float(ratios[place])), float((truth == enough[place]).mean())
        shared = f"{100 * ratio * share:.0f} % of the samples and {100 * share:.0f} % of the examples"
        how += f", which is right for {100 * right:.0f} % of the examples"
        note = f"{evaluation.class_name(int(enough[place]))} is {shared}; {how}; {extractor.about}"
        error = float(errors[place]) if math.isfinite(errors[place]) else None
        return [Result("least_class", ratio, error, len(fake), "1", note)]


def fitted(features: Tensor, labels: np.ndarray) -> tuple[Callable[[Tensor], Tensor], str]:
    """A linear classifier of ``(N, D)`` features, fitted where the label is not -1, and how it is described."""
    known = labels >= 0
    classifier = Linear(features.numpy()[known], labels[known], 1 + int(labels.max()))
    how = f"by a linear classifier of {int(known.sum()):,} training examples"
    return lambda x: torch.from_numpy(classifier.probabilities(x.numpy())), how


def shift(
    of_fake: np.ndarray, of_real: np.ndarray, truth: np.ndarray, classes: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Ratios of the shares of classes among samples to those among examples, whatever a classifier confuses.

    With w the ratios, the classes found of samples have the shares ``J w``, where ``J[i, k]`` is the share of the
    examples that are of class k and found to be of class i; this is solved for w. Lipton, Wang and Smola 2018,
    "Detecting and Correcting for Label Shift with Black Box Predictors" (arXiv 1802.03916).

    Args:
        of_fake: ``(N,)`` found classes of samples.
        of_real: ``(M,)`` found classes of examples.
        truth: ``(M,)`` classes of examples.
        classes: ``(K,)`` the classes to compare; what is found to be of others is left out.

    Returns:
        ``(K,)`` ratios, which may be below 0 by chance, and their standard errors by the delta method, with two more
        samples of each class, since none seen is no proof of none. Classes that the classifier cannot tell apart have
        a ratio of 1 and an infinite error.

    Example:
        >>> real, fake = np.array([0, 0, 0, 1] + [1, 1, 1, 0]), np.array([0, 0, 0, 1])  # right of 75 %
        >>> ratios, _ = shift(fake, real, np.array([0, 0, 0, 0, 1, 1, 1, 1]), np.arange(2))
        >>> bool(np.allclose(ratios, [2, 0]))  # all of class 0
        True
    """
    n, m, k = len(of_fake), len(truth), len(classes)
    hit = of_real[:, None] == classes  # (M, K)
    of_class = truth[:, None] == classes
    joint = hit.T.astype(float) @ of_class / m
    if np.linalg.matrix_rank(joint) < k:
        return np.ones(k), np.full(k, math.inf)
    shares = (of_fake[:, None] == classes).mean(0)
    inverse = np.linalg.inv(joint)
    ratios = inverse @ shares
    some = (n * shares + 2) / (n + 4)
    of_samples = np.diag(some) / (n + 4) - np.outer(shares, shares) / n
    # J w is the mean over the examples of the found class, weighted by the ratio of the true one.
    weighted = hit * (of_class @ ratios)[:, None]
    variance = inverse @ (of_samples + np.cov(weighted, rowvar=False) / m) @ inverse.T
    return ratios, np.sqrt(np.diag(variance))
