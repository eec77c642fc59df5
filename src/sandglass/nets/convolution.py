"""Convolutions whose backward pass is fast on a CPU; elsewhere, and in evaluation, they are PyTorch's."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_SMALL = 16  # positions of the smaller map, up to which a matrix product is 2 to 4 times as fast in bf16
_MIXED = 2**24  # numbers of the weight gradients of all examples, up to which they are computed one by one

Pair = tuple[int, int]


class Conv2d(nn.Conv2d):
    """PyTorch's; in bf16, the weight gradient of small maps, and a 1x1 convolution, are matrix products.

    Example:
        >>> Conv2d(3, 2, 3, stride=2, padding=1)(torch.zeros(5, 3, 4, 6)).shape
        torch.Size([5, 2, 2, 3])
    """

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to ``(B, out, ceil(H / stride), ceil(W / stride))``, for a padded odd kernel."""
        if not _is_plain(self, x) or _dtype(x) != torch.bfloat16:
            return super().forward(x)
        if self.kernel_size == (1, 1) and self.stride == (1, 1) and self.padding == (0, 0):
            return _mixed(self, x)
        if math.prod(math.ceil(n / step) for n, step in zip(x.shape[2:], self.stride, strict=True)) > _SMALL:
            return super().forward(x)
        return _Small.apply(*_cast(self, x), self.stride, self.padding, False)


class ConvTranspose2d(nn.ConvTranspose2d):
    """PyTorch's; the gradient of the bias is a sum, which takes the library as long as the other two gradients.

    In bf16, the weight gradient of small maps is a matrix product.

    Example:
        >>> ConvTranspose2d(3, 2, 4, stride=2, padding=1)(torch.zeros(5, 3, 4, 6)).shape
        torch.Size([5, 2, 8, 12])
    """

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """``(B, C, H, W)`` to ``(B, out, stride H, stride W)``, for a kernel of twice the stride."""
        if output_size is not None or not _is_plain(self, x) or any(self.output_padding):
            return super().forward(x, output_size)
        if _dtype(x) == torch.bfloat16 and math.prod(x.shape[2:]) <= _SMALL:
            return _Small.apply(*_cast(self, x), self.stride, self.padding, True)
        assert self.bias is not None
        out = F.conv_transpose2d(x, self.weight, None, self.stride, self.padding)  # type: ignore[arg-type]
        return out.add_(self.bias.to(out.dtype)[:, None, None])


def _is_plain(layer: nn.Conv2d | nn.ConvTranspose2d, x: Tensor) -> bool:
    """Whether a gradient will be computed on a CPU, and the layer has no options that those here do not have."""
    usual = layer.groups == 1 and layer.dilation == (1, 1) and layer.padding_mode == "zeros"
    plain = usual and isinstance(layer.padding, tuple) and layer.bias is not None
    return plain and x.device.type == "cpu" and torch.is_grad_enabled() and not torch.compiler.is_compiling()


def _dtype(x: Tensor) -> torch.dtype:
    """What a convolution of these maps is computed in."""
    cast = torch.is_autocast_enabled("cpu") and x.dtype != torch.float64
    return torch.get_autocast_dtype("cpu") if cast else x.dtype


def _cast(layer: nn.Conv2d | nn.ConvTranspose2d, x: Tensor) -> list[Tensor]:
    """Input, weight and bias in bf16."""
    assert layer.bias is not None
    return [t.to(torch.bfloat16) for t in (x, layer.weight, layer.bias)]


def _mixed(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """A 1x1 convolution as matrix products, whose backward pass takes a quarter of the time."""
    x, weight, bias = _cast(layer, x)
    if not x.is_contiguous() or len(x) * weight.numel() > _MIXED:  # else one for each example
        return F.linear(x.permute(0, 2, 3, 1), weight.flatten(1), bias).permute(0, 3, 1, 2)
    each = torch.bmm(weight.flatten(1).expand(len(x), -1, -1), x.flatten(2))
    return each.add_(bias[:, None]).unflatten(2, x.shape[2:])


class _Small(torch.autograd.Function):
    """A convolution or a transposed one, of ``(B, C, H, W)``, whose smaller map has few positions."""

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
        library = by_weight and torch.is_grad_enabled()
        x_gradient, weight_gradient, _ = torch.ops.aten.convolution_backward(
            g, x, weight, None, *ctx.options, [by_x, library, False]
        )
        if by_weight and not library:
            weight_gradient = _weight_gradient(large, small, weight.shape[2:], stride, padding)
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
