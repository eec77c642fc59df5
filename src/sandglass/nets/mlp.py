"""Fully connected networks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from sandglass.core import Spec
from sandglass.errors import ConfigError
from sandglass.nets._activation import activation as make_activation
from sandglass.nets.frame import Cond, Flat, Guided, Layers, cond_shape
from sandglass.registry import register


@register("mlp", kind="net")
@register("linear", kind="net", widths=())
class MLP:
    """Fully connected layers, for rows and for small images.

    A vector condition and the mask of missing values are concatenated with the flattened input or the code. An image
    condition is flattened for the encoder; for the decoder it is encoded to a vector by a network of the same family.

    The gated layers are those of Tomczak and Welling 2018, "VAE with a VampPrior" (arXiv 1705.07120); the residual
    blocks are pre-activated as in He et al. 2016, "Identity Mappings in Deep Residual Networks" (arXiv 1603.05027),
    with layer normalisation.

    Args:
        widths: widths of the encoder's hidden layers, from the input on; empty for a linear map.
        decoder_widths: widths of the decoder's hidden layers, from the latent on; by default those of the encoder,
            reversed.
        activation: relu, leaky-relu, silu, gelu, elu, tanh or softplus; not used by gated layers.
        dropout: dropout probability of hidden units.
        block: type of hidden layer: ``plain`` (linear, activation), ``gated`` (linear times the sigmoid of another
            linear) or ``residual`` (linear where the width changes, then a residual connection over two layers).

    Example:
        >>> import torch
        >>> net = MLP(widths=(128, 64))
        >>> net.encoder((1, 28, 28), 4)(torch.zeros(2, 1, 28, 28)).shape
        torch.Size([2, 4])
        >>> net.decoder(2, (3, 37, 53))(torch.zeros(2, 2)).shape
        torch.Size([2, 3, 37, 53])
        >>> net.decoder(2, (6,), cond=10)(torch.zeros(2, 2), torch.zeros(2, 10)).shape
        torch.Size([2, 6])
    """

    def __init__(
        self,
        *,
        widths: Sequence[int] = (512,),
        decoder_widths: Sequence[int] | None = None,
        activation: str = "relu",
        dropout: float = 0.0,
        block: Literal["plain", "residual", "gated"] = "plain",
    ) -> None:
        self.widths = tuple(int(w) for w in widths)
        self.decoder_widths = self.widths[::-1] if decoder_widths is None else tuple(int(w) for w in decoder_widths)
        if any(w < 1 for w in self.widths + self.decoder_widths):
            raise ConfigError(f"Widths must be at least 1, not {list(self.widths)} and {list(self.decoder_widths)}.")
        if not 0 <= dropout < 1:
            raise ConfigError(f"The dropout must be in [0, 1), not {dropout}.")
        if block not in ("plain", "residual", "gated"):
            raise ConfigError(f"The option block must be one of plain, residual, gated, not '{block}'.")
        if block == "gated" and activation != "relu":
            raise ConfigError("A gated layer has no activation; omit the option activation, or choose another block.")
        make_activation(activation)
        self.activation, self.dropout, self.block = activation, dropout, block

    @staticmethod
    def natural(spec: Spec) -> bool:
        """Whether ``"auto"`` selects this: for rows."""
        return not spec.is_image

    def encoder(self, shape: tuple[int, ...], out: int, *, cond: Cond = 0, masked: bool = False) -> Layers:
        """``(B, *shape) -> (B, out)``, with a condition and, if ``masked``, a mask.

        Raises:
            ConfigError: the shape of the condition is invalid.
        """
        inputs = Flat(shape, cond, masked)
        return Layers(nn.Flatten(), *self._layers([*inputs.joined, *self.widths, out]), inputs=inputs)

    def decoder(self, dim: int, shape: tuple[int, ...], *, cond: Cond = 0) -> nn.Module:
        """``(B, dim) -> (B, *shape)``, with a condition.

        Raises:
            ConfigError: the shape of the condition is invalid.
        """
        condition = cond_shape(cond)
        if len(condition) > 1 and self.decoder_widths:
            width = self.decoder_widths[0]
            return Guided(condition, self.encoder(condition, width), self.decoder(dim, shape, cond=width))
        inputs = Flat((dim,), cond)
        layers = self._layers([*inputs.joined, *self.decoder_widths, math.prod(shape)])
        return Layers(*layers, nn.Unflatten(-1, shape), inputs=inputs)

    def _layers(self, sizes: list[int]) -> list[nn.Module]:
        layers: list[nn.Module] = []
        for a, b in pairwise(sizes[:-1]):
            layers += self._hidden(a, b)
        return [*layers, nn.Linear(sizes[-2], sizes[-1])]

    def _hidden(self, a: int, b: int) -> list[nn.Module]:
        if self.block == "residual":
            return [Residual(a, b, self.activation, self.dropout)]
        dropout = [nn.Dropout(self.dropout)] if self.dropout else []
        if self.block == "gated":
            return [Gated(a, b), *dropout]
        return [nn.Linear(a, b), make_activation(self.activation), *dropout]


class Gated(nn.Module):
    """A linear map times the sigmoid of another.

    Args:
        a: width of the input.
        b: width of the output.

    Example:
        >>> Gated(3, 2)(torch.zeros(5, 3)).shape
        torch.Size([5, 2])
    """

    def __init__(self, a: int, b: int) -> None:
        super().__init__()
        self.value, self.gate = nn.Linear(a, b), nn.Linear(a, b)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, a) -> (B, b)``."""
        return self.value(x) * torch.sigmoid(self.gate(x))


class Residual(nn.Module):
    """A linear map where the width changes, then a residual connection over two pre-activated layers.

    Args:
        a: width of the input.
        b: width of the output.
        activation: name of the activation.
        dropout: dropout probability of the hidden units between the two layers.

    Example:
        >>> Residual(3, 2, "relu")(torch.zeros(5, 3)).shape
        torch.Size([5, 2])
    """

    def __init__(self, a: int, b: int, activation: str, dropout: float = 0.0) -> None:
        super().__init__()
        self.lift = nn.Identity() if a == b else nn.Linear(a, b)
        first, second = ([nn.LayerNorm(b), make_activation(activation)] for _ in range(2))
        drop = [nn.Dropout(dropout)] if dropout else []
        self.change = nn.Sequential(*first, nn.Linear(b, b), *second, *drop, nn.Linear(b, b))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, a) -> (B, b)``."""
        h = self.lift(x)
        return h + self.change(h)
