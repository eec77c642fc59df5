"""Maps in channels-last memory, in which convolutions are fastest."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class _Relaid(torch.autograd.Function):
    """Maps ``(B, C, H, W)`` in channels-last memory, or without ``last`` in the usual one; gradients in the other."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, last: bool) -> Tensor:
        ctx.last = last
        made = _laid(x, last)
        return made.clone() if made.data_ptr() == x.data_ptr() else made  # a view could not be changed in place

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return _Relaid.apply(grads[0], not ctx.last), None


def _laid(x: Tensor, last: bool) -> Tensor:
    return channels_last(x) if last else x.contiguous()


def relaid(x: Tensor, last: bool) -> Tensor:
    """``(B, C, H, W)`` in channels-last memory, or without ``last`` in the usual one; gradients in the other."""
    training = torch.is_grad_enabled() and not torch.compiler.is_compiling()
    return _Relaid.apply(x, last) if training else _laid(x, last)


def channels_last(x: Tensor) -> Tensor:
    """Maps ``(B, C, H, W)`` in channels-last memory.

    Example:
        >>> channels_last(torch.zeros(2, 5, 3, 4)).stride()
        (60, 1, 20, 5)
    """
    return x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)


class Flatten(nn.Flatten):
    """Vectors of maps in channels-last memory, in the order of their shape; the gradient of the maps is laid out so.

    Example:
        >>> Flatten()(torch.arange(8.0).view(1, 2, 2, 2))
        tensor([[0., 1., 2., 3., 4., 5., 6., 7.]])
    """

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W) -> (B, C H W)``."""
        return relaid(x, False).flatten(1)


class Unflatten(nn.Unflatten):
    """The inverse of :class:`Flatten`.

    Example:
        >>> Unflatten(1, (2, 2, 2))(torch.arange(8.0)[None]).stride()
        (8, 1, 4, 2)
    """

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C H W) -> (B, C, H, W)``."""
        return relaid(super().forward(x), True)
