"""Structural similarity of images over sliding windows, at one scale and at several; differentiable."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sandglass.core import Spec

WINDOW, SIGMA = 11, 1.5
"""Gaussian window of Wang et al. 2004: side and standard deviation, in pixels."""

K1, K2 = 0.01, 0.03
WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Weights of five scales, finest first, calibrated on human judgements: section 3.2 of Wang et al. 2003."""

_DENSE = 128  # pixels of a side, up to which means over windows are matrix products
_ELEMENTS = 2**20  # values compared at once; about ten maps of this size are in memory


def largest_window(spec: Spec) -> int:
    """Side of the window in pixels: 11, or the largest odd number that fits into the images.

    Example:
        >>> largest_window(Spec((3, 32, 32), "unit")), largest_window(Spec((1, 8, 90), "unit"))
        (11, 7)
    """
    side = min(WINDOW, *spec.shape[1:])
    return side - (side % 2 == 0)


def gaussian(window: int) -> Tensor:
    """``(window,)`` weights in float64 that sum to 1.

    Example:
        >>> float(gaussian(11).sum()), float(gaussian(1))
        (1.0, 1.0)
    """
    place = torch.arange(window, dtype=torch.float64) - window // 2
    weights = torch.exp(-0.5 * (place / SIGMA).square())
    return weights / weights.sum()


def scales(spec: Spec, window: int) -> int:
    """Number of scales, each half the size of the one before, that are at least as large as the window; at most 5.

    Example:
        >>> [scales(Spec((1, side, 300), "unit"), 11) for side in (21, 22, 28, 44, 176, 999)]
        [1, 2, 2, 3, 5, 5]
    """
    side = min(spec.shape[1:])
    return sum(side >> scale >= window for scale in range(len(WEIGHTS)))


def multiscale(
    x: Tensor,
    y: Tensor,
    count: int,
    window: int = WINDOW,
    span: float = 1.0,
    *,
    dtype: torch.dtype = torch.float64,
    floor: float = 0.0,
) -> Tensor:
    """Multi-scale structural similarity ``(B, C)``, per channel.

    The product of the contrast-structure term at every scale but the coarsest and of the full SSIM at the coarsest,
    each averaged over windows, clamped at 0 and raised to the power of its weight. The weights are normalised to sum
    to 1. Between scales, images are downsampled by 2x2 average pooling, which drops an odd last row or column. Wang,
    Simoncelli and Bovik 2003, "Multi-Scale Structural Similarity for Image Quality Assessment" (37th Asilomar
    Conference on Signals, Systems and Computers).

    Args:
        x: ``(B, C, H, W)``.
        y: of the same shape.
        count: number of scales.
        window: odd, at most the sides of the coarsest scale.
        span: data range.
        dtype: that it is computed in.
        floor: least value of a term; above 0 it keeps gradients finite, and those of other scales above 0.

    Example:
        >>> x = torch.rand(1, 1, 44, 44)
        >>> round(float(multiscale(x, x, 3)), 12)
        1.0
    """
    weights = torch.tensor(WEIGHTS[:count], dtype=torch.float64)
    weights = weights / weights.sum()
    x, y = x.to(dtype), y.to(dtype)
    product = torch.ones(x.shape[:2], dtype=dtype, device=x.device)
    for scale, weight in enumerate(weights.tolist()):
        full, structure = similarity(x, y, window, span, dtype)
        product = product * (full if scale == count - 1 else structure).clamp(min=floor) ** weight
        x, y = (F.avg_pool2d(t, 2) if scale < count - 1 else t for t in (x, y))
    return product


def similarity(
    x: Tensor, y: Tensor, window: int, span: float = 1.0, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor]:
    """Mean structural similarity, and the mean of its contrast-structure term alone.

    Averages over all windows that lie fully inside the image. Moments are weighted means over the window, without
    Bessel's correction. Wang, Bovik, Sheikh and Simoncelli 2004, "Image Quality Assessment: From Error Visibility to
    Structural Similarity" (IEEE Transactions on Image Processing 13(4)).

    Args:
        x: ``(B, C, H, W)``.
        y: of the same shape.
        window: odd, at most H and W.
        span: data range, L in the paper.
        dtype: that it is computed in; autocast does not lower it, since variances are differences.

    Returns:
        SSIM and contrast-structure ``(2 cov + C2) / (var + var + C2)``, each ``(B, C)``.

    Example:
        >>> x = torch.rand(2, 3, 16, 16)
        >>> [part.tolist() for part in similarity(x, x, 11)]
        [[[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]], [[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]]
    """
    rows = max(1, _ELEMENTS // x[0].numel())
    pairs = zip(x.split(rows), y.split(rows), strict=True)
    with torch.autocast(x.device.type, enabled=False):
        parts = [_similarity(a.to(dtype), b.to(dtype), window, span) for a, b in pairs]
    full, structure = zip(*parts, strict=True)
    return torch.cat(full), torch.cat(structure)


def _similarity(x: Tensor, y: Tensor, window: int, span: float) -> tuple[Tensor, Tensor]:
    mean_x, mean_y, xx, yy, xy = windowed(torch.stack([x, y, x * x, y * y, x * y]), gaussian(window).to(x))
    c1, c2 = (K1 * span) ** 2, (K2 * span) ** 2
    variances = (xx - mean_x * mean_x) + (yy - mean_y * mean_y)
    structure = (2 * (xy - mean_x * mean_y) + c2) / (variances + c2)
    luminance = (2 * (mean_x * mean_y) + c1) / (mean_x * mean_x + mean_y * mean_y + c1)
    return (luminance * structure).mean((2, 3)), structure.mean((2, 3))


def windowed(maps: Tensor, weights: Tensor) -> Tensor:
    """Weighted means of maps ``(..., H, W)`` over all windows inside, ``(..., H - w + 1, W - w + 1)``.

    Of small images by products with banded matrices, which are several times as fast as convolutions on a CPU.

    Args:
        maps: of the type and on the device of the weights.
        weights: ``(w,)``, of rows and columns.
    """
    if max(maps.shape[-2:]) <= _DENSE:
        across, down = (_band(n, weights) for n in maps.shape[-2:])
        return across @ maps @ down.T
    flat = maps.flatten(0, -3)[:, None]
    flat = F.conv2d(F.conv2d(flat, weights.view(1, 1, -1, 1)), weights.view(1, 1, 1, -1))
    return flat[:, 0].unflatten(0, maps.shape[:-2])


def _band(n: int, weights: Tensor) -> Tensor:
    """``(n - w + 1, n)``, whose rows have the weights from the diagonal on."""
    place = torch.arange(n, device=weights.device) - torch.arange(n - len(weights) + 1, device=weights.device)[:, None]
    inside = (place >= 0) & (place < len(weights))
    return weights[place.clamp(0, len(weights) - 1)] * inside
