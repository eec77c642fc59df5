"""Precision, recall, density and coverage by nearest-neighbour balls."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from sandglass.errors import ConfigError
from sandglass.metrics.evaluation import Better
from sandglass.metrics.extractor import FeaturesOption
from sandglass.metrics.measure import mean_result, share_result
from sandglass.metrics.samples import Compared, OfSamples, squared_distances
from sandglass.registry import register
from sandglass.runs.result import Result

_MOST = 5_000  # maximum samples and maximum examples; the cost grows with the square
_ROWS = 1_000  # rows of the distance matrix in memory at once
_ORDER = ("precision", "recall", "density", "coverage")  # of neighbours()
_SOUND = 1_000  # with fewer points the balls are large


@register("prdc", kind="metric")
class Prdc(OfSamples):
    """Precision and recall (fidelity and diversity of samples), density, coverage, and spread of the features.

    Precision and recall as in Kynkäänniemi et al. 2019, "Improved Precision and Recall Metric for Assessing Generative
    Models" (arXiv 1904.06991), density and coverage as in Naeem et al. 2020, "Reliable Fidelity and Diversity Metrics
    for Generative Models" (arXiv 2002.09797). At most 5,000 samples and as many examples are compared.

    Args:
        features: the feature extractor; auto is own for images and long rows, and pixels for short rows.
        samples: number of samples, and maximum number of examples; by default the number of examples.
        k: the radius of a ball is the distance to the k-th nearest neighbour.
    """

    figures = (
        "coverage",
        "precision",
        "recall",
        "density",
        "spread",
    )  # precision alone is easy: it stands beside coverage
    better: Mapping[str, Better] = {
        "precision": "higher",
        "recall": "higher",
        "density": "higher",
        "coverage": "higher",
    }

    quick = True
    texture = True

    def __init__(self, *, features: FeaturesOption = "auto", samples: int | None = None, k: int = 5) -> None:
        super().__init__(features=features, samples=samples)
        if k < 1:
            raise ConfigError(f"prdc needs a neighbour k >= 1, not {k}.")
        self.k = k

    def results(self, sets: Compared) -> Sequence[Result]:
        """The figures; standard errors treat the balls as fixed."""
        n = min(len(sets.real), len(sets.fake), _MOST)
        k = min(self.k, n - 1)
        found = dict(zip(_ORDER, neighbours(sets.real[:n], sets.fake[:n], k), strict=True))
        notes = dict.fromkeys(self.figures, "")
        if sets.train is not None and len(sets.train) >= n:
            best = neighbours(sets.real[:n], sets.train[:n], k)
            notes = {f: f"training examples get {float(b.mean()):.3f}" for f, b in zip(_ORDER, best, strict=True)}
        few = "" if n >= _SOUND else f"; {n} are few: high by chance"
        together = f"beside a coverage of {float(found['coverage'].mean()):.3f}"  # precision never stands alone
        notes["precision"] = f"{together}; {sets.about}; k={k}{few}; {notes['precision']}".rstrip("; ")
        best_coverage = f"{sets.about}; {expected_coverage(n, n, k):.3f} at best"
        notes["coverage"] = "; ".join(filter(None, (best_coverage, notes["coverage"])))
        density = mean_result("density", found.pop("density"), "1", notes["density"])
        shares = {name: share_result(name, values, notes[name]) for name, values in found.items()}
        made = {"density": density, **shares, "spread": spread(sets)}
        return [made[name] for name in self.figures]


def spread(sets: Compared) -> Result:
    """Total variance of the samples' features of content over that of the examples, by the delta method.

    Texture is left out, for a grid has much of it: samples that are all alike have little variance in what they show.
    """
    (top, above), (bottom, below) = (_variance(x[:, : sets.extractor.content]) for x in (sets.fake, sets.real))
    n, note = min(len(sets.real), len(sets.fake)), f"{sets.extractor.about}; 1 is equal, 0 is a single sample"
    if not bottom:
        return Result("spread", 1.0, 0.0, n, "1", "all examples are equal")
    error = ((above / bottom) ** 2 + (top * below / bottom**2) ** 2) ** 0.5
    return Result("spread", top / bottom, error, n, "1", note)


def _variance(x: Tensor) -> tuple[float, float]:
    """The total variance of ``(N, D)`` points, and its standard error."""
    squares = (x - x.mean(0)).square().sum(1)
    error = float(squares.std() / len(x) ** 0.5) if len(x) > 1 else 0.0
    return float(squares.mean()), error


def neighbours(real: Tensor, fake: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Precision, recall, density and coverage of every point.

    The ball around a point reaches to its k-th nearest neighbour within the same set.

    Args:
        real: ``(N, D)``, N > k.
        fake: ``(M, D)``, M > k.
        k: the neighbour.

    Returns:
        Precision ``(M,)``: whether a sample is in an example's ball. Recall ``(N,)``: whether an example is in a
        sample's ball. Density ``(M,)``: the number of examples' balls that contain a sample, over k. Coverage
        ``(N,)``: whether an example's ball contains a sample. All in float64; their means are the figures.

    Example:
        >>> real, fake = torch.tensor([[0.0], [1.0], [5.0]]).double(), torch.tensor([[0.5], [9.0], [9.5]]).double()
        >>> [round(float(v.mean()), 4) for v in neighbours(real, fake, 1)]  # the ball around 5 reaches to 1 and to 9
        [0.6667, 1.0, 1.0, 1.0]
    """
    of_real, of_fake = radii(real, k), radii(fake, k)
    density, recall, coverage = torch.zeros(len(fake)).double(), [], []
    for rows, reach in zip(real.split(_ROWS), of_real.split(_ROWS), strict=True):
        distances = squared_distances(rows, fake)
        inside = distances <= reach[:, None]
        density += inside.sum(0)
        coverage.append(inside.any(1))
        recall.append((distances <= of_fake).any(1))
    return (density > 0).double(), torch.cat(recall).double(), density / k, torch.cat(coverage).double()


def radii(x: Tensor, k: int) -> Tensor:
    """``(N,)`` squared distance of each of ``(N, D)`` points to its k-th nearest other."""
    return torch.cat([squared_distances(rows, x).kthvalue(k + 1, 1).values for rows in x.split(_ROWS)])


def expected_coverage(n: int, m: int, k: int) -> float:
    """Expected coverage of ``n`` examples by ``m`` samples from the same distribution, for any distribution.

    A ball contains no sample if the k nearest of the ``n - 1`` other examples and ``m`` samples are all examples.

    Example:
        >>> round(expected_coverage(10_000, 10_000, 5), 3)
        0.969
    """
    return 1 - math.prod((n - 1 - j) / (n - 1 + m - j) for j in range(k))
