"""Convolutions whose backward pass is fast on a CPU; elsewhere, and in evaluation, they are PyTorch's."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_SMALL = 16  # positions of the smaller map, up to which a matrix product is 2 to 4 times as fast in bf16

Pair = tuple[int, int]


class Conv2d(nn.Conv2d):
    """PyTorch's; in bf16, the weight gradient of small maps is a matrix product.

    Example:
        >>> Conv2d(3, 2, 3, stride=2, padding=1)(torch.zeros(5, 3, 4, 6)).shape
        torch.Size([5, 2, 2, 3])
    """

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to ``(B, out, ceil(H / stride), ceil(W / stride))``, for a padded odd kernel."""
        if not _is_special(self, x):
            return super().forward(x)
        tensors = _cast(self, x)
        if self.kernel_size == (1, 1) and self.stride == (1, 1):
            return _mixed(*tensors)
        positions = math.prod(math.ceil(n / stride) for n, stride in zip(x.shape[2:], self.stride, strict=True))
        if positions > _SMALL or tensors[0].dtype != torch.bfloat16:
            return super().forward(x)
        return _Convolution.apply(*tensors, self.stride, self.padding, False)


class ConvTranspose2d(nn.ConvTranspose2d):
    """PyTorch's, with the gradient of the bias as a sum; the library's takes as long as the other two gradients.

    Example:
        >>> ConvTranspose2d(3, 2, 4, stride=2, padding=1)(torch.zeros(5, 3, 4, 6)).shape
        torch.Size([5, 2, 8, 12])
    """

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """``(B, C, H, W)`` to ``(B, out, stride H, stride W)``, for a kernel of twice the stride."""
        if not _is_special(self, x):
            return super().forward(x, output_size)
        return _Convolution.apply(*_cast(self, x), self.stride, self.padding, True)


def _mixed(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A 1x1 convolution as matrix products, whose backward pass takes a quarter of the time in bf16."""
    each = torch.bmm(weight.flatten(1).expand(len(x), -1, -1), x.flatten(2))
    return each.add_(bias[:, None]).unflatten(2, x.shape[2:])


def _is_special(layer: nn.Conv2d | nn.ConvTranspose2d, x: Tensor) -> bool:
    """Whether a gradient will be computed on a CPU, and the layer is as plain as those of the networks here."""
    plain = layer.groups == 1 and layer.dilation == (1, 1) and layer.bias is not None
    return plain and x.device.type == "cpu" and torch.is_grad_enabled() and not torch.compiler.is_compiling()


def _cast(layer: nn.Conv2d | nn.ConvTranspose2d, x: Tensor) -> list[Tensor]:
    """Input, weight and bias as autocast would have them."""
    assert layer.bias is not None
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
    return [t.to(dtype) for t in (x, layer.weight, layer.bias)]


class _Convolution(torch.autograd.Function):
    """A convolution or a transposed one, of ``(B, C, H, W)``."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, stride: Pair, padding: Pair, transposed: bool
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.options = stride, padding, (1, 1), transposed, (0, 0), 1
        return torch.ops.aten.convolution(x, weight, bias, *ctx.options)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Of operations that have gradients themselves, where those are wanted."""
        (g,), (x, weight) = grads, ctx.saved_tensors
        stride, padding, _, transposed, *_ = ctx.options
        by_x, by_weight, by_bias = ctx.needs_input_grad[:3]
        large, small = (g, x) if transposed else (x, g)
        weight_gradient = None
        positions = math.prod(small.shape[2:])
        if by_weight and g.dtype == torch.bfloat16 and positions <= _SMALL and not torch.is_grad_enabled():
            weight_gradient = _weight_gradient(large, small, weight.shape[2:], stride, padding)
            by_weight = False
        needed = [by_x, by_weight, False]
        x_gradient, other, _ = torch.ops.aten.convolution_backward(g, x, weight, None, *ctx.options, needed)
        weight_gradient = other if weight_gradient is None else weight_gradient
        return x_gradient, weight_gradient, g.sum((0, 2, 3)) if by_bias else None, None, None, None


def _weight_gradient(large: Tensor, small: Tensor, kernel: torch.Size, stride: Pair, padding: Pair) -> Tensor:
    """``(c, C, *kernel)``: the products of ``(B, c, h, w)`` with the windows of ``(B, C, H, W)``, summed over all."""
    (high, wide), (down, right) = kernel, padding
    padded = F.pad(large.permute(0, 2, 3, 1), (0, 0, right, right, down, down)).contiguous()
    b, y, x, c = padded.stride()
    rows, columns, channels = *small.shape[2:], padded.shape[3]
    windows = padded.as_strided(
        (len(padded), rows, columns, high, wide, channels), (b, stride[0] * y, stride[1] * x, y, x, c)
    ).reshape(-1, high * wide * channels)
    each = small.permute(0, 2, 3, 1).reshape(len(windows), -1)
    return (each.t() @ windows).view(-1, high, wide, channels).permute(0, 3, 1, 2)
