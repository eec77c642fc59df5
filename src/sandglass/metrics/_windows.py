"""The data range that structural similarity is computed with, shared by SSIM and MS-SSIM."""

from __future__ import annotations

import torch

from sandglass.data.loading import in_order
from sandglass.metrics.evaluation import Evaluation


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
