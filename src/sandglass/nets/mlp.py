"""Fully connected networks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from sandglass.core import Spec
from sandglass.errors import ConfigError
from sandglass.nets._activation import activation as make_activation
from sandglass.registry import register


@register("mlp", kind="net")
@register("linear", kind="net", widths=())
class MLP:
    """Fully connected layers, for rows and for small images.

    Args:
        widths: hidden layers of the encoder, from the data inwards; none makes a linear map.
        decoder_widths: hidden layers of the decoder, from the latent outwards; the encoder's, mirrored, when not given.
        activation: relu, leaky-relu, silu, gelu, elu, tanh or softplus.
        dropout: share of hidden units silenced in training.

    Example:
        >>> import torch
        >>> net = MLP(widths=(128, 64))
        >>> net.encoder((1, 28, 28), 4)(torch.zeros(2, 1, 28, 28)).shape
        torch.Size([2, 4])
        >>> net.decoder(2, (3, 37, 53))(torch.zeros(2, 2)).shape
        torch.Size([2, 3, 37, 53])
    """

    def __init__(
        self,
        *,
        widths: Sequence[int] = (512,),
        decoder_widths: Sequence[int] | None = None,
        activation: str = "relu",
        dropout: float = 0.0,
    ) -> None:
        self.widths = tuple(int(w) for w in widths)
        self.decoder_widths = self.widths[::-1] if decoder_widths is None else tuple(int(w) for w in decoder_widths)
        if any(w < 1 for w in self.widths + self.decoder_widths):
            raise ConfigError(f"Widths must be at least 1, not {list(self.widths)} and {list(self.decoder_widths)}.")
        if not 0 <= dropout < 1:
            raise ConfigError(f"The dropout must be in [0, 1), not {dropout}.")
        make_activation(activation)
        self.activation = activation
        self.dropout = dropout

    @staticmethod
    def natural(spec: Spec) -> bool:
        """Whether ``"auto"`` picks this: for rows."""
        return not spec.is_image

    def encoder(self, shape: tuple[int, ...], out: int) -> nn.Module:
        """``(B, *shape) -> (B, out)``."""
        return nn.Sequential(nn.Flatten(), *self._layers([math.prod(shape), *self.widths, out]))

    def decoder(self, dim: int, shape: tuple[int, ...]) -> nn.Module:
        """``(B, dim) -> (B, *shape)``."""
        return nn.Sequential(*self._layers([dim, *self.decoder_widths, math.prod(shape)]), nn.Unflatten(-1, shape))

    def _layers(self, sizes: list[int]) -> list[nn.Module]:
        layers: list[nn.Module] = []
        for a, b in pairwise(sizes[:-1]):
            layers += [nn.Linear(a, b), make_activation(self.activation)]
            layers += [nn.Dropout(self.dropout)] if self.dropout else []
        return [*layers, nn.Linear(sizes[-2], sizes[-1])]
