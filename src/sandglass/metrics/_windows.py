"""Structural similarity of images over sliding windows, shared by SSIM and MS-SSIM."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sandglass.core import Spec
from sandglass.data.loading import in_order
from sandglass.metrics.evaluation import Evaluation

WINDOW, SIGMA = 11, 1.5
"""Gaussian window of Wang et al. 2004: side and standard deviation, in pixels."""

K1, K2 = 0.01, 0.03
_ELEMENTS = 2**20  # values compared at once; about ten float64 maps of this size are in memory


def largest_window(spec: Spec) -> int:
    """Side of the window in pixels: 11, or the largest odd number that fits into the images.

    Example:
        >>> largest_window(Spec((3, 32, 32), "unit")), largest_window(Spec((1, 8, 90), "unit"))
        (11, 7)
    """
    side = min(WINDOW, *spec.shape[1:])
    return side - (side % 2 == 0)


def data_range(evaluation: Evaluation) -> float:
    """The data range L: 1 for images in [0, 1], else maximum - minimum of the evaluated examples (1 if constant)."""
    if evaluation.spec.support != "real":
        return 1.0

    def span() -> float:
        ends = [torch.stack(torch.aminmax(make().x.double())) for make in in_order(evaluation.split)]
        low, high = torch.stack(ends).unbind(1)
        return float(high.max() - low.min()) or 1.0

    return evaluation.once("data_range", span)


def range_note(evaluation: Evaluation) -> str:
    """A note on the data range where it was estimated from the examples, else an empty string."""
    return "" if evaluation.spec.support != "real" else f"data range {data_range(evaluation):.4g}, that of the examples"


def gaussian(window: int) -> Tensor:
    """``(window,)`` weights in float64 that sum to 1.

    Example:
        >>> float(gaussian(11).sum()), float(gaussian(1))
        (1.0, 1.0)
    """
    place = torch.arange(window, dtype=torch.float64) - window // 2
    weights = torch.exp(-0.5 * (place / SIGMA).square())
    return weights / weights.sum()


def similarity(x: Tensor, y: Tensor, window: int, span: float = 1.0) -> tuple[Tensor, Tensor]:
    """Mean structural similarity, and the mean of its contrast-structure term alone.

    Averages over all windows that lie fully inside the image. Moments are weighted means over the window, without
    Bessel's correction. Wang, Bovik, Sheikh and Simoncelli 2004, "Image Quality Assessment: From Error Visibility to
    Structural Similarity" (IEEE Transactions on Image Processing 13(4)).

    Args:
        x: ``(B, C, H, W)``.
        y: of the same shape.
        window: odd, at most H and W.
        span: data range, L in the paper.

    Returns:
        SSIM and contrast-structure ``(2 cov + C2) / (var + var + C2)``, each ``(B, C)`` in float64.

    Example:
        >>> x = torch.rand(2, 3, 16, 16)
        >>> [part.tolist() for part in similarity(x, x, 11)]
        [[[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]], [[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]]
    """
    rows = max(1, _ELEMENTS // x[0].numel())
    parts = [
        _similarity(a.double(), b.double(), window, span) for a, b in zip(x.split(rows), y.split(rows), strict=True)
    ]
    full, structure = zip(*parts, strict=True)
    return torch.cat(full), torch.cat(structure)


def _similarity(x: Tensor, y: Tensor, window: int, span: float) -> tuple[Tensor, Tensor]:
    weights = gaussian(window).to(x.device)
    maps = torch.stack([x, y, x * x, y * y, x * y]).flatten(0, 2)[:, None]  # (5 B C, 1, H, W)
    maps = F.conv2d(F.conv2d(maps, weights.view(1, 1, -1, 1)), weights.view(1, 1, 1, -1))
    mean_x, mean_y, xx, yy, xy = maps.view(5, *x.shape[:2], *maps.shape[2:])
    c1, c2 = (K1 * span) ** 2, (K2 * span) ** 2
    variances = (xx - mean_x * mean_x) + (yy - mean_y * mean_y)
    structure = (2 * (xy - mean_x * mean_y) + c2) / (variances + c2)
    luminance = (2 * (mean_x * mean_y) + c1) / (mean_x * mean_x + mean_y * mean_y + c1)
    return (luminance * structure).mean((2, 3)), structure.mean((2, 3))
