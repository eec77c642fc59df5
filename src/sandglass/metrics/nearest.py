"""Whether samples are copies of training examples."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from sandglass.core import Model
from sandglass.errors import ConfigError
from sandglass.metrics._bootstrap import median
from sandglass.metrics.evaluation import Better, Evaluation, UnsuitableError
from sandglass.metrics.extractor import FeaturesOption
from sandglass.metrics.measure import share_result
from sandglass.metrics.samples import (
    LEAST,
    compare,
    extractor_of,
    of_examples,
    same,
    squared_distances,
    with_conditions,
)
from sandglass.registry import register
from sandglass.runs.result import Result

_LEVEL = 0.01  # share of unseen examples that lie as near to a training example as a copy
_MOST = 2_000  # samples, and unseen examples, whose nearest training example is looked for
_ROWS = 250
_CHEAP = 2**25  # distances up to which it is taken by default
_SOUND = 500


@register("nearest", kind="metric")
class Nearest:
    """Samples that lie nearer to a training example than unseen examples do: copies, authenticity, median distance.

    Copies are samples nearer to a training example than all but 1 % of unseen examples; authenticity is the share of
    samples farther from their training example than that is from its own neighbour (Alaa et al. 2022, "How Faithful is
    your Synthetic Data?", arXiv 2102.08921). At most 2,000 samples and as many unseen examples are looked at.

    Args:
        features: where the features come from; auto is own for pictures and pixels for rows of few numbers.
        samples: how many to draw, and of how many examples; as many as there are examples when not given.
    """

    needs = ()
    figures = ("copies", "authenticity", "nearest_ratio")
    better: Mapping[str, Better] = {"copies": "lower", "authenticity": "higher"}
    requires = ("train", "complete")

    def __init__(self, *, features: FeaturesOption = "auto", samples: int | None = None) -> None:
        if samples is not None and samples < 1:
            raise ConfigError(f"nearest needs at least 1 sample, not {samples}.")
        self.features, self.samples = features, samples

    @staticmethod
    def by_default(evaluation: Evaluation) -> bool:
        """Whether it is quick, and there are examples that were not trained on."""
        if evaluation.train is None or same(evaluation.train, evaluation.split) or len(evaluation.split) < LEAST:
            return False
        return len(evaluation.train) * min(len(evaluation.split), _MOST) <= _CHEAP

    def __call__(self, model: Model, evaluation: Evaluation) -> Sequence[Result]:
        """The figures, with those of unseen examples beside them.

        Raises:
            DataError: the examples are those that were trained on.
        """
        assert evaluation.train is not None  # it is required
        if same(evaluation.train, evaluation.split):
            raise UnsuitableError("The metric 'nearest' needs examples that were not trained on; name another split.")
        sets = compare(model, evaluation, self.features, self.samples)
        fake, unseen = sets.fake[:_MOST], sets.real[:_MOST]
        if not bool(torch.isfinite(fake).all()):
            note = "the model generates values that are not finite"
            return [Result(name, math.nan, None, len(fake), "1", note) for name in self.figures]
        key, extractor = extractor_of(model, evaluation, self.features)
        train = of_examples(model, evaluation, key, extractor, "train", evaluation.train, len(evaluation.train))
        (near, authentic), (near_unseen, authentic_unseen) = (closest(x, train) for x in (fake, unseen))
        few = f"; {len(unseen)} unseen examples are few" if len(unseen) < _SOUND else ""
        share = copies(near, near_unseen, f"{sets.extractor.about}; {{:.3g}} are expected of unseen examples{few}")
        note = f"unseen examples get {float(authentic_unseen.double().mean()):.3f}"
        results = [share, share_result("authenticity", authentic, note), *ratio(near, near_unseen)]
        return with_conditions(model, results)


def closest(x: Tensor, train: Tensor) -> tuple[Tensor, Tensor]:
    """For each of ``(N, D)`` points the distance ``(N,)`` to the nearest training point, and whether it is authentic.

    It is, ``(N,)``, when that training point has a neighbour of its own that is nearer.

    Example:
        >>> closest(torch.tensor([[0.1], [2.0]]).double(), torch.tensor([[0.0], [1.0], [9.0]]).double())
        (tensor([0.1000, 1.0000], dtype=torch.float64), tensor([False, False]))
    """
    found = [squared_distances(rows, train).min(1) for rows in x.split(_ROWS)]
    distance, where = torch.cat([f.values for f in found]), torch.cat([f.indices for f in found])
    hit, back = where.unique(return_inverse=True)
    own = torch.cat([_to_another(rows, train) for rows in hit.split(_ROWS)])
    return distance.sqrt(), distance > own[back]


def _to_another(index: Tensor, train: Tensor) -> Tensor:
    distances = squared_distances(train[index], train)
    return distances.scatter_(1, index[:, None], math.inf).amin(1)


def copies(near: Tensor, near_unseen: Tensor, note: str) -> Result:
    """The share of samples at least as near as the r-th nearest unseen example, r being 1 % of them.

    Were samples drawn as the unseen examples are, ``r / (n + 1)`` is what to expect, whatever the distribution.

    Args:
        near: ``(M,)`` distances of samples to their nearest training example.
        near_unseen: ``(n,)`` of unseen examples.
        note: with a place for the expected share.
    """
    n, m = len(near_unseen), len(near)
    rank = max(1, int(_LEVEL * (n + 1)))
    expected = rank / (n + 1)
    share = float((near <= near_unseen.kthvalue(rank).values).double().mean())
    error = (share * (1 - share) / m + expected * (1 - expected) / (n + 2)) ** 0.5
    return Result("copies", share, error, m, "1", note.format(expected))


def ratio(near: Tensor, near_unseen: Tensor) -> list[Result]:
    """The median distance of samples over that of unseen examples; nothing where the latter is 0."""
    (top, top_error), (bottom, bottom_error) = median(near), median(near_unseen)
    if bottom == 0:
        return []
    error = ((top_error / bottom) ** 2 + (top * bottom_error / bottom**2) ** 2) ** 0.5
    note = "median distance to the nearest training example, over that of unseen examples"
    return [Result("nearest_ratio", top / bottom, error, len(near), "1", note)]
