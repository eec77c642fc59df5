"""Whether every class of the examples is among the samples."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from sandglass import rng
from sandglass.core import Model
from sandglass.errors import ConfigError
from sandglass.metrics._bootstrap import TIMES, resample
from sandglass.metrics._linear import Linear
from sandglass.metrics.evaluation import Better, Evaluation, Requirement, UnsuitableError
from sandglass.metrics.extractor import FeaturesOption
from sandglass.metrics.samples import at_most, extractor_of, of_examples, of_samples, order, worth_while
from sandglass.registry import register
from sandglass.running import conditioned_on
from sandglass.runs.result import Result

_ENOUGH = 3  # examples of a class, so that it has a share
_STEPS = 200


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
        right = float((of_real == truth).mean())
        enough = np.flatnonzero(np.bincount(truth) >= _ENOUGH)
        if len(enough) < 2:
            raise UnsuitableError(f"The metric 'class_shares' needs two classes of {_ENOUGH} examples.")
        ratios, errors = shift(of_fake, of_real, truth, enough, evaluation.seed)
        # A rare class has a low ratio by chance: the one that is low beyond its error comes first.
        place = int(np.argmin(ratios + 3 * errors))
        ratio, share = float(ratios[place]), float((truth == enough[place]).mean())
        shared = f"{100 * ratio * share:.0f} % of the samples and {100 * share:.0f} % of the examples"
        how += f", which is right of {100 * right:.0f} % of the examples"
        note = f"{evaluation.class_name(int(enough[place]))} is {shared}; {how}; {extractor.about}"
        return [Result("least_class", ratio, float(errors[place]), len(fake), "1", note)]


def fitted(features: Tensor, labels: np.ndarray) -> tuple[Callable[[Tensor], Tensor], str]:
    """A linear classifier of ``(N, D)`` features, fitted where the label is not -1, and how it is described."""
    known = labels >= 0
    classifier = Linear(features.numpy()[known], labels[known], 1 + int(labels.max()))
    how = f"by a linear classifier of {int(known.sum()):,} training examples"
    return lambda x: torch.from_numpy(classifier.probabilities(x.numpy())), how


def shift(
    of_fake: np.ndarray, of_real: np.ndarray, truth: np.ndarray, classes: np.ndarray, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Ratios of the shares of classes among samples to those among examples, whatever a classifier confuses.

    The shares q of the samples are those that make the classes found of them most likely, where those of class k are
    found to be of class i as often as the examples are: ``sum_i found[i] log sum_k P[i, k] q[k]`` is largest, by
    expectation and maximisation. Lipton, Wang and Smola 2018, "Detecting and Correcting for Label Shift with Black Box
    Predictors" (arXiv 1802.03916); the likelihood keeps shares from falling below 0.

    Args:
        of_fake: ``(N,)`` found classes of samples.
        of_real: ``(M,)`` found classes of examples.
        truth: ``(M,)`` classes of examples.
        classes: ``(K,)`` the classes to compare; what is found to be of others is left out.
        seed: of the resamples.

    Returns:
        ``(K,)`` ratios, and their standard errors: of a bootstrap over samples and examples, at least those of a
        classifier that is always right, with two more samples of each class, since none seen is no proof of none.

    Example:
        >>> real, fake = np.array([0, 0, 0, 1] + [1, 1, 1, 0]), np.array([0, 0, 0, 1])  # right of 75 %
        >>> ratios, _ = shift(fake, real, np.array([0, 0, 0, 0, 1, 1, 1, 1]), np.arange(2))
        >>> ratios.round(1)  # all of class 0
        array([2., 0.])
    """
    size = 1 + int(max(of_fake.max(), of_real.max(), truth.max()))
    generator = rng.generator(seed, "class shares", "bootstrap")
    found, joint = [], []
    for place in range(TIMES + 1):
        fake, real = (resample(n, generator) if place else np.ones(n) for n in (len(of_fake), len(of_real)))
        found.append(np.bincount(of_fake, fake, size)[classes])
        pairs = np.bincount(of_real * size + truth, real, size * size).reshape(size, size)
        joint.append(pairs[np.ix_(classes, classes)])
    confusion, of_class = np.stack(joint), np.stack(joint).sum(1)
    start = of_class / of_class.sum(1, keepdims=True)
    shares = mixed(np.stack(found), confusion / np.maximum(of_class, 1)[:, None], start)
    ratios = shares / np.maximum(start, 1 / len(truth))
    values, errors = ratios[0], ratios[1:].std(0, ddof=1)
    q = np.array([(truth == k).mean() for k in classes])
    least = [_error(p, len(of_fake), share, len(truth)) for p, share in zip(values * q, q, strict=True)]
    return values, np.maximum(errors, least)


def mixed(found: np.ndarray, confusion: np.ndarray, start: np.ndarray) -> np.ndarray:
    """``(B, K)`` shares under which counts are most likely, by expectation and maximisation, for each of B cases.

    Args:
        found: ``(B, K)`` how often each class was found.
        confusion: ``(B, K, K)``; ``[:, i, k]`` is the share of examples of class k that are found to be of class i.
        start: ``(B, K)`` first shares.

    Example:
        >>> mixed(np.array([[30, 10]]), np.eye(2)[None], np.array([[0.5, 0.5]]))
        array([[0.75, 0.25]])
    """
    shares = start
    for _ in range(_STEPS):
        expected = np.maximum(np.einsum("bik,bk->bi", confusion, shares), 1e-12)
        shares = shares * np.einsum("bi,bik->bk", found / expected, confusion)
        shares = shares / np.maximum(shares.sum(1, keepdims=True), 1e-12)
    return shares


def _error(p: float, n: int, q: float, m: int) -> float:
    """The standard error of ``p / q``, shares of n and of m, by the delta method; two of each are added to p."""
    some = (p * n + 2) / (n + 4)
    return math.sqrt(some * (1 - some) / (n + 4) + (p / q) ** 2 * q * (1 - q) / m) / q
