"""Convolutional networks at any height, width and channel count."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Literal

from torch import Tensor, nn

from sandglass.core import Spec
from sandglass.errors import ConfigError
from sandglass.nets._activation import activation as make_activation
from sandglass.registry import register

_SMALLEST = 4


@register("conv", kind="net")
class Conv:
    """Strided convolutions down to a small map and transposed ones back, at any height, width and channel count.

    Each stage halves height and width, rounding up, until the shorter side is at most 4; the decoder doubles them and
    trims what the rounding added, so that 28x20, 37x53 and 1x90 all come back exactly.

    Args:
        width: channels of the first stage; they double at every further one.
        max_width: the most channels of any stage.
        stages: how many halvings; as many as the size allows when not given.
        hidden: width of the fully connected layer beside the latent, 0 for none.
        activation: relu, leaky-relu, silu, gelu, elu, tanh or softplus.
        norm: ``none``, ``batch`` or ``group`` normalisation of every stage.

    Example:
        >>> import torch
        >>> net = Conv(width=8)
        >>> net.encoder((3, 37, 53), 6)(torch.zeros(2, 3, 37, 53)).shape
        torch.Size([2, 6])
        >>> net.decoder(6, (3, 37, 53))(torch.zeros(2, 6)).shape
        torch.Size([2, 3, 37, 53])
    """

    def __init__(
        self,
        *,
        width: int = 32,
        max_width: int = 256,
        stages: int | None = None,
        hidden: int = 256,
        activation: str = "silu",
        norm: Literal["none", "batch", "group"] = "none",
    ) -> None:
        if width < 1 or max_width < width or hidden < 0:
            raise ConfigError(
                f"A conv net needs 1 <= width <= max_width and hidden >= 0, not {width}, {max_width}, {hidden}."
            )
        if norm not in ("none", "batch", "group"):
            raise ConfigError(f"The norm is one of none, batch, group, not '{norm}'.")
        if stages is not None and not 1 <= stages <= 30:
            raise ConfigError(f"A conv net needs 1 to 30 stages, not {stages}.")
        make_activation(activation)
        self.width, self.max_width, self.stages, self.hidden = width, max_width, stages, hidden
        self.activation, self.norm = activation, norm

    @staticmethod
    def natural(spec: Spec) -> bool:
        """Whether ``"auto"`` picks this: for images."""
        return spec.is_image

    def encoder(self, shape: tuple[int, ...], out: int) -> nn.Module:
        """``(B, C, H, W) -> (B, out)``."""
        sizes, channels = self._plan(shape)
        layers: list[nn.Module] = []
        for a, b in pairwise(channels):
            layers += [nn.Conv2d(a, b, 3, stride=2, padding=1), *self._finish(b)]
        flat = channels[-1] * math.prod(sizes[-1])
        layers.append(nn.Flatten())
        if self.hidden:
            layers += [nn.Linear(flat, self.hidden), make_activation(self.activation)]
        return nn.Sequential(*layers, nn.Linear(self.hidden or flat, out))

    def decoder(self, dim: int, shape: tuple[int, ...]) -> nn.Module:
        """``(B, dim) -> (B, C, H, W)``."""
        sizes, channels = self._plan(shape)
        flat = channels[-1] * math.prod(sizes[-1])
        layers: list[nn.Module] = []
        if self.hidden:
            layers += [nn.Linear(dim, self.hidden), make_activation(self.activation)]
        layers += [nn.Linear(self.hidden or dim, flat), nn.Unflatten(-1, (channels[-1], *sizes[-1]))]
        layers.append(make_activation(self.activation))
        for i in range(len(sizes) - 1, 0, -1):
            out = channels[i - 1] if i > 1 else max(channels[1] // 2, 1)
            layers += [
                nn.ConvTranspose2d(channels[i], out, 4, stride=2, padding=1),
                Trim(*sizes[i - 1]),
                *self._finish(out),
            ]
        return nn.Sequential(*layers, nn.Conv2d(max(channels[1] // 2, 1), shape[0], 3, padding=1))

    def _plan(self, shape: tuple[int, ...]) -> tuple[list[tuple[int, int]], list[int]]:
        """Heights and widths, and channels, from the image inwards."""
        if len(shape) != 3:
            raise ConfigError(
                f"A conv net needs images (C, H, W), not examples of shape {tuple(shape)}; use the net 'mlp'."
            )
        channels, height, width = shape
        sizes, widths = [(height, width)], [channels]
        while (len(sizes) - 1 < self.stages) if self.stages else (min(sizes[-1]) > _SMALLEST or len(sizes) == 1):
            height, width = math.ceil(height / 2), math.ceil(width / 2)
            sizes.append((height, width))
            widths.append(min(self.width * 2 ** (len(sizes) - 2), self.max_width))
        return sizes, widths

    def _finish(self, channels: int) -> list[nn.Module]:
        norms: dict[str, list[nn.Module]] = {
            "none": [],
            "batch": [nn.BatchNorm2d(channels)],
            "group": [nn.GroupNorm(math.gcd(channels, 8), channels)],
        }
        return [*norms[self.norm], make_activation(self.activation)]


class Trim(nn.Module):
    """Keeps the first ``height`` rows and ``width`` columns of ``(B, C, H, W)``."""

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        self.height, self.width = height, width

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W) -> (B, C, height, width)``."""
        return x[..., : self.height, : self.width]
