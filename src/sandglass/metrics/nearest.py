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

_LEVEL = 0.01  # share of held-out examples that count as copies
_MOST = 2_000  # maximum samples and maximum held-out examples
_ROWS = 250
_CHEAP = 2**25  # maximum number of distances for it to run by default
_SOUND = 500


@register("nearest", kind="metric")
class Nearest:
    """Memorisation: distance of samples to the nearest training example, compared with held-out examples.

    Copies are samples nearer to a training example than all but 1 % of held-out examples; authenticity is the share of
    samples farther from their nearest training example than that is from its own nearest neighbour (Alaa et al. 2022,
    "How Faithful is your Synthetic Data?", arXiv 2102.08921). At most 2,000 samples and 2,000 held-out examples.

    Args:
        features: the feature extractor; auto is own for images and long rows, and pixels for short rows.
        samples: number of samples, and maximum number of examples; by default the number of examples.
    """

    needs = ()
    figures = ("copies", "authenticity", "nearest_ratio")
    quick = True
    better: Mapping[str, Better] = {"copies": "lower", "authenticity": "higher"}
    requires = ("train", "complete")

    def __init__(self, *, features: FeaturesOption = "auto", samples: int | None = None) -> None:
        if samples is not None and samples < 1:
            raise ConfigError(f"nearest needs at least 1 sample, not {samples}.")
        self.features, self.samples = features, samples

    @staticmethod
    def by_default(evaluation: Evaluation) -> bool:
        """Whether it is fast, and there are enough held-out examples."""
        if evaluation.train is None or same(evaluation.train, evaluation.split) or len(evaluation.split) < LEAST:
            return False
        return len(evaluation.train) * min(len(evaluation.split), _MOST) <= _CHEAP

    def __call__(self, model: Model, evaluation: Evaluation) -> Sequence[Result]:
        """The figures; the notes have those of held-out examples.

        Raises:
            DataError: the examples are the training examples.
        """
        assert evaluation.train is not None  # it is required
        if same(evaluation.train, evaluation.split):
            raise UnsuitableError("The metric 'nearest' needs held-out examples; choose another split.")
        sets = compare(model, evaluation, self.features, self.samples)
        fake, held_out = sets.fake[:_MOST], sets.real[:_MOST]
        if not bool(torch.isfinite(fake).all()):
            note = "the model generates values that are not finite"
            return [Result(name, math.nan, None, len(fake), "1", note) for name in self.figures]
        key, extractor = extractor_of(model, evaluation, self.features)
        train = of_examples(model, evaluation, key, extractor, "train", evaluation.train, len(evaluation.train))
        (near, authentic), (near_held_out, authentic_held_out) = (closest(x, train) for x in (fake, held_out))
        few = f"; {len(held_out)} held-out examples are few" if len(held_out) < _SOUND else ""
        share = copies(near, near_held_out, f"{sets.extractor.about}; {{:.3g}} expected for held-out examples{few}")
        note = f"held-out examples get {float(authentic_held_out.double().mean()):.3f}"
        results = [share, share_result("authenticity", authentic, note), *ratio(near, near_held_out)]
        return with_conditions(model, results)


def closest(x: Tensor, train: Tensor) -> tuple[Tensor, Tensor]:
    """Distance ``(N,)`` of ``(N, D)`` points to the nearest training point, and whether each is authentic ``(N,)``.

    A point is authentic if it is farther from that training point than the training point's own nearest neighbour.

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


def copies(near: Tensor, near_held_out: Tensor, note: str) -> Result:
    """The share of samples at least as near as the r-th nearest held-out example, where r is 1 % of them.

    For samples from the data distribution its expectation is ``r / (n + 1)``, whatever that distribution is.

    Args:
        near: ``(M,)`` distances of samples to their nearest training example.
        near_held_out: ``(n,)`` the same for held-out examples.
        note: format string with a placeholder for the expected share.
    """
    n, m = len(near_held_out), len(near)
    rank = max(1, int(_LEVEL * (n + 1)))
    expected = rank / (n + 1)
    share = float((near <= near_held_out.kthvalue(rank).values).double().mean())
    error = (share * (1 - share) / m + expected * (1 - expected) / (n + 2)) ** 0.5
    return Result("copies", share, error, m, "1", note.format(expected))


def ratio(near: Tensor, near_held_out: Tensor) -> list[Result]:
    """The median distance of samples over that of held-out examples; empty where the latter is 0."""
    (top, top_error), (bottom, bottom_error) = median(near), median(near_held_out)
    if bottom == 0:
        return []
    error = ((top_error / bottom) ** 2 + (top * bottom_error / bottom**2) ** 2) ** 0.5
    note = "median distance to the nearest training example, over that of held-out examples"
    return [Result("nearest_ratio", top / bottom, error, len(near), "1", note)]
