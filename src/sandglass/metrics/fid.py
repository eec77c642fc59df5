"""The Fréchet distance of features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from sandglass.metrics.evaluation import Better
from sandglass.metrics.samples import Compared, OfSamples
from sandglass.registry import register
from sandglass.runs.result import Result

_BLOCKS = 20  # that are left out in turn for the standard error and for the bias
_ENOUGH = 20  # times as many samples as features have little bias


@register("fid", kind="metric")
class Fid(OfSamples):
    """Fréchet distance between normals fitted to features of samples and of examples.

    Heusel et al. 2017, "GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium" (arXiv
    1706.08500), on features of the data's own unless others are named.

    Args:
        features: where the features come from; auto is own for pictures and pixels for rows of few numbers.
        samples: how many to draw, and of how many examples; as many as there are examples when not given.
    """

    figures = ("fid",)
    better: Mapping[str, Better] = {"fid": "lower"}

    def results(self, sets: Compared) -> Sequence[Result]:
        """The distance with a jackknife's standard error, and what training examples would get."""
        value, _, error = estimate(sets)
        n, dim = min(len(sets.real), len(sets.fake)), sets.real.shape[1]
        note = sets.extractor.about
        if sets.train is not None and len(sets.train) > 1:
            note += f"; training examples get {frechet(*moments(sets.train), *moments(sets.real)):.3g}"
        if n < _ENOUGH * dim:
            note += f"; biased upward, {n} are few for {dim} features" + (": singular" if n <= dim else "")
        return [Result("fid", value, error, n, "squared", note)]


def estimate(sets: Compared) -> tuple[float, float, float | None]:
    """:func:`jackknife` of these sets, once: twenty distances of many features take minutes."""
    return sets.once("jackknife", lambda: jackknife(sets.real, sets.fake))


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """The mean ``(D,)`` and covariance ``(D, D)`` of ``(N, D)`` numbers, without bias."""
    centred = x - x.mean(0)
    return x.mean(0), centred.T @ centred / (len(x) - 1)


def frechet(mean: Tensor, covariance: Tensor, other_mean: Tensor, other_covariance: Tensor) -> float:
    """The squared Fréchet (2-Wasserstein) distance of two normals, by symmetric square roots in float64.

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
    return max(0.0, float(distance))  # of equal normals rounding would leave it a little below


def jackknife(real: Tensor, fake: Tensor) -> tuple[float, float, float | None]:
    """The distance, the same with its bias of order 1/n taken out, and the standard error.

    Twentieths of both are left out in turn. The distance falls with n as ``limit + c / n``, so the mean of those with
    one part less lies on that line, and the line leads to the limit.

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
    """``x`` less each of so many blocks of nearly equal size.

    Example:
        >>> [part.tolist() for part in without(torch.arange(4), 2)]
        [[2, 3], [0, 1]]
    """
    return [x[torch.arange(len(x)) * blocks // len(x) != block] for block in range(blocks)]
