"""Layers that leave maps in bf16 on a CPU, where autocast would have them in float32, at twice the time and more."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def unchanged(x: Tensor) -> AbstractContextManager[object]:
    """In this context, operations on maps on a CPU have the precision of the maps."""
    cast = x.device.type == "cpu" and torch.is_autocast_enabled("cpu")
    return torch.autocast("cpu", enabled=False) if cast else nullcontext()


class GroupNorm(nn.GroupNorm):
    """PyTorch's, with statistics in float32: Wu and He 2018, "Group Normalization" (arXiv 1803.08494).

    Example:
        >>> with torch.autocast("cpu", torch.bfloat16):
        ...     GroupNorm(2, 4)(torch.zeros(3, 4, 5, 5, dtype=torch.bfloat16)).dtype
        torch.bfloat16
    """

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, ...) -> (B, C, ...)``."""
        with unchanged(x):
            return F.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)


def pooled(x: Tensor) -> Tensor:
    """``(B, C, H, W)`` averaged over squares of 2x2; sizes are rounded up, and a side of one pixel stays."""
    sides = tuple(min(2, n) for n in x.shape[2:])
    with unchanged(x):
        return F.avg_pool2d(x, sides, ceil_mode=True, count_include_pad=False)


def doubled(x: Tensor) -> Tensor:
    """``(B, C, H, W)`` with every pixel as a square of 2x2.

    Example:
        >>> doubled(torch.tensor([[[[1.0, 2.0]]]]))
        tensor([[[[1., 1., 2., 2.],
                  [1., 1., 2., 2.]]]])
    """
    with unchanged(x):
        return F.interpolate(x, scale_factor=2)
