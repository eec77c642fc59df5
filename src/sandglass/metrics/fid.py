"""The Fréchet distance between features (FID)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from sandglass.metrics.evaluation import Better
from sandglass.metrics.samples import Compared, OfSamples
from sandglass.registry import register
from sandglass.runs.result import Result

_BLOCKS = 20  # left out in turn, for the standard error and the bias
_ENOUGH = 20  # with this many times more samples than features, the bias is small


@register("fid", kind="metric")
class Fid(OfSamples):
    """Fréchet distance between normals fitted to features of samples and of examples.

    Heusel et al. 2017, "GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium" (arXiv
    1706.08500), by default on features learnt from the data itself.

    Args:
        features: the feature extractor; auto is own for images and long rows, and pixels for short rows.
        samples: number of samples, and maximum number of examples; by default the number of examples.
    """

    figures = ("fid",)
    quick = True
    better: Mapping[str, Better] = {"fid": "lower"}
    texture = True

    def results(self, sets: Compared) -> Sequence[Result]:
        """The distance with a jackknife standard error, and that of training examples for reference."""
        value, _, error = estimate(sets)
        n, dim = min(len(sets.real), len(sets.fake)), sets.real.shape[1]
        note = sets.about
        if sets.train is not None and len(sets.train) > 1:
            note += f"; training examples get {frechet(*moments(sets.train), *moments(sets.real)):.3g}"
        if n < _ENOUGH * dim:
            note += f"; biased upward, {n} are few for {dim} features" + (": singular" if n <= dim else "")
        return [Result("fid", value, error, n, "squared", note)]


def estimate(sets: Compared) -> tuple[float, float, float | None]:
    """:func:`jackknife` of these sets, cached: twenty distances of many features take minutes."""
    return sets.once("jackknife", lambda: jackknife(sets.real, sets.fake))


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """The mean ``(D,)`` and the unbiased covariance ``(D, D)`` of ``(N, D)`` values."""
    centred = x - x.mean(0)
    return x.mean(0), centred.T @ centred / (len(x) - 1)


def frechet(mean: Tensor, covariance: Tensor, other_mean: Tensor, other_covariance: Tensor) -> float:
    """The squared Fréchet (2-Wasserstein) distance between two normals, by symmetric square roots in float64.

    Example:
        >>> one = torch.eye(3).double()
        >>> round(frechet(torch.zeros(3).double(), one, torch.ones(3).double(), 4 * one), 9)
        6.0
    """
    values, vectors = torch.linalg.eigh(covariance)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    overlap = torch.linalg.eigvalsh(root @ other_covariance @ root).clamp(min=0).sqrt().sum()
    difference = (mean - other_mean).square().sum()
    distance = difference + covariance.trace() + other_covariance.trace() - 2 * overlap
    return max(0.0, float(distance))  # rounding can make it slightly negative


def jackknife(real: Tensor, fake: Tensor) -> tuple[float, float, float | None]:
    """The distance, its value corrected for the bias of order 1/n, and the standard error.

    One twentieth of both sets is left out in turn. The expected distance is about ``limit + c / n``, so the mean
    distance with one part left out determines the limit.

    Args:
        real: ``(N, D)``, in random order.
        fake: ``(M, D)``, in random order.
    """
    value = frechet(*moments(real), *moments(fake))
    blocks = min(_BLOCKS, len(real) - 1, len(fake) - 1)
    if blocks < 2:
        return value, value, None
    parts = [without(x, blocks) for x in (real, fake)]
    left = torch.tensor([frechet(*moments(a), *moments(b)) for a, b in zip(*parts, strict=True)]).double()
    limit = blocks * value - (blocks - 1) * float(left.mean())
    error = ((blocks - 1) * left.var(correction=0)).sqrt()
    return value, limit, float(error)


def without(x: Tensor, blocks: int) -> list[Tensor]:
    """``x`` without each of ``blocks`` blocks of nearly equal size, in turn.

    Example:
        >>> [part.tolist() for part in without(torch.arange(4), 2)]
        [[2, 3], [0, 1]]
    """
    return [x[torch.arange(len(x)) * blocks // len(x) != block] for block in range(blocks)]
