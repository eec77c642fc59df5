"""Multi-scale structural similarity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from sandglass.core import Batch, Model, Spec
from sandglass.errors import ConfigError
from sandglass.metrics._windows import WINDOW, data_range, range_note, similarity
from sandglass.metrics.evaluation import Better, Evaluation, UnsuitableError
from sandglass.metrics.measure import mean_result, per_example
from sandglass.registry import register
from sandglass.runs.result import Result

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Weights of the five scales, finest first, calibrated on human judgements (section 3.2 of the paper)."""


def scales(spec: Spec, window: int) -> int:
    """Number of scales, each half the size of the one before, that are at least as large as the window; at most 5.

    Example:
        >>> [scales(Spec((1, side, 300), "unit"), 11) for side in (21, 22, 28, 44, 176, 999)]
        [1, 2, 2, 3, 5, 5]
    """
    side = min(spec.shape[1:])
    return sum(side >> scale >= window for scale in range(len(WEIGHTS)))


def multiscale(x: Tensor, y: Tensor, count: int, window: int = WINDOW, span: float = 1.0) -> Tensor:
    """Multi-scale structural similarity ``(B, C)`` in float64, per channel.

    The product of the contrast-structure term at every scale but the coarsest and of the full SSIM at the coarsest,
    each averaged over windows, clamped at 0 and raised to the power of its weight. The weights are normalised to sum
    to 1. Between scales, images are downsampled by 2x2 average pooling, which drops an odd last row or column.

    Args:
        x: ``(B, C, H, W)``.
        y: of the same shape.
        count: number of scales.
        window: odd, at most the sides of the coarsest scale.
        span: data range.

    Example:
        >>> x = torch.rand(1, 1, 44, 44)
        >>> round(float(multiscale(x, x, 3)), 12)
        1.0
    """
    weights = torch.tensor(WEIGHTS[:count], dtype=torch.float64)
    weights = weights / weights.sum()
    x, y = x.double(), y.double()
    product = torch.ones(x.shape[:2], dtype=torch.float64, device=x.device)
    for scale, weight in enumerate(weights.tolist()):
        full, structure = similarity(x, y, window, span)
        product = product * (full if scale == count - 1 else structure).clamp(min=0) ** weight
        x, y = (F.avg_pool2d(t, 2) for t in (x, y))
    return product


@register("ms_ssim", kind="metric")
class MSSSIM:
    """Structural similarity of deterministic reconstructions at two to five scales; images of at least 22x22 pixels.

    Wang, Simoncelli and Bovik 2003, "Multi-Scale Structural Similarity for Image Quality Assessment" (37th Asilomar
    Conference on Signals, Systems and Computers).

    Args:
        window: side of the Gaussian window in pixels, odd; a smaller one than the paper's 11 admits smaller images.
    """

    needs = ("reconstruct",)
    requires = ("images", "complete")
    figures = ("ms_ssim",)
    better: Mapping[str, Better] = {"ms_ssim": "higher"}
    by_default = False  # small images are not supported

    def __init__(self, *, window: int = WINDOW) -> None:
        if window < 3 or window % 2 == 0:
            raise ConfigError(f"ms_ssim needs an odd window of at least 3, not {window}.")
        self.window = window

    def __call__(self, model: Model, evaluation: Evaluation) -> Sequence[Result]:
        """The mean over images, each in [0, 1]."""
        count = scales(model.spec, self.window)
        if count < 2:
            height, width = model.spec.shape[1:]
            raise UnsuitableError(
                f"The metric 'ms_ssim' needs images of at least {2 * self.window}x{2 * self.window} pixels for two "
                f"scales, and these have {height}x{width}; use 'ssim' or a smaller window."
            )
        span = data_range(evaluation)

        def similar(batch: Batch) -> Tensor:
            return multiscale(batch.x, model.reconstruct(batch), count, self.window, span).mean(1)

        fewer = f"{count} of {len(WEIGHTS)} scales, weights normalised to sum to 1" if count < len(WEIGHTS) else ""
        small = f"window {self.window}x{self.window}" if self.window != WINDOW else ""
        note = "; ".join(filter(None, (fewer, small, range_note(evaluation))))
        return [mean_result("ms_ssim", per_example(model, evaluation, "ms_ssim", similar), "1", note, by_example=True)]
