"""Sharpness of samples beside that of the examples."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from sandglass.metrics.evaluation import Evaluation, Requirement
from sandglass.metrics.images import Images, OfImages
from sandglass.registry import register
from sandglass.runs.result import Result

_BLOCK = 256  # images at once
_WIDTH = 5  # pixels a side over which the direction of an edge is averaged


@register("sharpness", kind="metric")
class Sharpness(OfImages):
    """Strength of the edges in samples over that in examples, at equal contrast: 1 is equal, less is blurred.

    An edge is where the gradient has one direction over a small window, by the structure tensor of Bigun and Granlund
    1987, "Optimal Orientation Detection of Linear Symmetry" (ICCV); noise, whose gradients have every direction, adds
    little, and a checkerboard of single pixels adds nothing.

    Args:
        samples: maximum number of samples and of examples; fewer of large images.
    """

    figures = ("sharpness",)
    requires: tuple[Requirement, ...] = ("images", "complete")

    def __init__(self, *, samples: int = 1_000) -> None:
        super().__init__(samples=samples)

    def results(self, sets: Images, evaluation: Evaluation) -> Sequence[Result]:
        """The ratio with its standard error by the delta method; nothing for examples without any edge."""
        if min(sets.real.shape[2:]) < _WIDTH:
            return []
        (top, above), (bottom, below) = strength(sets.fake), strength(sets.real)
        if not bottom:
            return []
        error = ((above / bottom) ** 2 + (top * below / bottom**2) ** 2) ** 0.5
        note = "of the samples' means without noise; edges over contrast, relative to the examples"
        if sets.train is not None:
            note += f"; training examples get {strength(sets.train)[0] / bottom:.2f}"
        return [Result("sharpness", top / bottom, error, min(len(sets.real), len(sets.fake)), "1", note)]


def strength(x: Tensor) -> tuple[float, float]:
    """Root mean energy of oriented gradients over the standard deviation of images, and its standard error.

    Args:
        x: ``(N, C, H, W)``.

    Returns:
        0 for images without contrast.

    Example:
        >>> step = (torch.arange(16) > 7).float().expand(1, 1, 16, 16)
        >>> ramp = (torch.arange(16) / 15).expand(1, 1, 16, 16)
        >>> strength(step)[0] > 2 * strength(ramp)[0]
        True
    """
    edges, contrast = (torch.cat(part) for part in zip(*map(_energies, x.double().split(_BLOCK)), strict=True))
    if float(contrast.mean()) < 1e-12:
        return 0.0, 0.0
    ratio = float(edges.mean() / contrast.mean())
    error = float((edges - ratio * contrast).std() / contrast.mean() / len(x) ** 0.5) if len(x) > 1 else 0.0
    return ratio**0.5, error / (2 * ratio**0.5) if ratio > 0 else 0.0


def _energies(x: Tensor) -> tuple[Tensor, Tensor]:
    """``(B,)`` energy of oriented gradients, and ``(B,)`` variance over pixels, both averaged over channels."""
    middle = x[:, :, 1:-1, 1:-1]
    gx, gy = (x[:, :, 1:-1, 2:] - x[:, :, 1:-1, :-2]) / 2, (x[:, :, 2:, 1:-1] - x[:, :, :-2, 1:-1]) / 2
    width = min(_WIDTH, *middle.shape[2:])
    xx, yy, xy = (F.avg_pool2d(product, width, 1) for product in (gx * gx, gy * gy, gx * gy))
    coherent = ((xx - yy).square() + 4 * xy.square()).sqrt()  # difference of the eigenvalues of the structure tensor
    return coherent.mean((1, 2, 3)), x.var((2, 3), correction=0).mean(1)
