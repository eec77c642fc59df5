"""A family of networks."""

from __future__ import annotations

import math

from torch import nn

from sandglass.registry import register


@register("affine", kind="net")
class Affine:
    """One affine map each way.

    Args:
        bias: whether the maps have an offset.
    """

    def __init__(self, *, bias: bool = True) -> None:
        self.bias = bias

    def encoder(self, shape: tuple[int, ...], out: int) -> nn.Module:
        """``(B, *shape)`` to ``(B, out)``."""
        return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), out, bias=self.bias))

    def decoder(self, dim: int, shape: tuple[int, ...]) -> nn.Module:
        """``(B, dim)`` to ``(B, *shape)``."""
        return nn.Sequential(nn.Linear(dim, math.prod(shape), bias=self.bias), nn.Unflatten(1, shape))
