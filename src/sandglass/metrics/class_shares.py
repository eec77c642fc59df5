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

_ENOUGH = 3  # examples of a class that the classifier finds, so that it has a share


@register("class_shares", kind="metric")
class ClassShares:
    """The most neglected class: the ratio of its share of the samples to its share of the examples.

    One classifier finds the classes of both, so that its errors are in both shares: that of the features, if it is of
    the classes of the data, else a logistic regression on features of labelled training examples. Only for models that
    are not given the class: theirs have the shares they are asked for.

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
        assert evaluation.train is not None  # it is required
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
        found = [find(x).argmax(1).numpy() for x in (fake, real)]
        of_fake, of_real = (np.bincount(k, minlength=1 + max(map(np.max, found))) for k in found)
        enough = np.flatnonzero(of_real >= _ENOUGH)
        if len(enough) < 2:
            raise UnsuitableError(f"The metric 'class_shares' needs two classes of {_ENOUGH} examples.")
        shares = [(of_fake[k] / len(fake), of_real[k] / len(real)) for k in enough]
        errors = [_error(p, len(fake), q, len(real)) for p, q in shares]
        # A rare class has a low ratio by chance: the one that is low beyond its error comes first.
        place = int(np.argmin([p / q + 3 * error for (p, q), error in zip(shares, errors, strict=True)]))
        least, (p, q), error = int(enough[place]), shares[place], errors[place]
        shared = f"{100 * p:.0f} % of the samples and {100 * q:.0f} % of the examples"
        note = f"{evaluation.class_name(least)} is {shared}; {how}; {extractor.about}"
        return [Result("least_class", float(p / q), error, len(fake), "1", note)]


def fitted(features: Tensor, labels: np.ndarray) -> tuple[Callable[[Tensor], Tensor], str]:
    """A linear classifier of ``(N, D)`` features, fitted where the label is not -1, and how it is described."""
    known = labels >= 0
    classifier = Linear(features.numpy()[known], labels[known], 1 + int(labels.max()))
    how = f"by a linear classifier of {int(known.sum()):,} training examples"
    return lambda x: torch.from_numpy(classifier.probabilities(x.numpy())), how


def _error(p: float, n: int, q: float, m: int) -> float:
    """The standard error of ``p / q``, shares of n and of m, by the delta method; two of each are added to p."""
    some = (p * n + 2) / (n + 4)
    return math.sqrt(some * (1 - some) / (n + 4) + (p / q) ** 2 * q * (1 - q) / m) / q
