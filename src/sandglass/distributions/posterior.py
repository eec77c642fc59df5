"""Families of posteriors q(z|x, c), and the encoder that gives their parameters."""

from __future__ import annotations

import abc
import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from sandglass.distributions.conditional import Conditional, Network, at_least_single
from sandglass.errors import ConfigError

Support = Literal["real", "simplex", "sphere"]
"""Where codes lie."""


class Posterior(nn.Module, abc.ABC):
    """A family of distributions over codes, from the output of an encoder.

    Attributes:
        width: numbers of the encoder's output.
        support: where its codes lie; a prior has the same.

    Args:
        dim: size of a code.
    """

    width: int
    support: Support = "real"

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    @abc.abstractmethod
    def forward(self, h: Tensor) -> Distribution:
        """``(B, width)`` to q(z|x, c) over ``(B, dim)``; draws have gradients, and there is a mean."""

    def between(self, a: Tensor, b: Tensor, t: Tensor) -> Tensor:
        """``(B, T, dim)`` codes between codes ``(B, dim)``, at fractions ``(1, T, 1)`` of the way."""
        return a[:, None] * (1 - t) + b[:, None] * t


class Inference(Conditional):
    """``q(z|x, c)``: an encoder and a family of posteriors.

    Args:
        trunk: the encoder, ``(B, ...)`` to ``(B, family.width)``.
        family: of the posterior.
    """

    def __init__(self, trunk: Network, family: Posterior) -> None:
        super().__init__()
        self.trunk, self.family = trunk, family

    def forward(self, h: Tensor | None = None, c: Tensor | None = None, mask: Tensor | None = None) -> Distribution:
        """The distribution given ``h`` and ``c``."""
        q: Distribution = self.family(self.parameters_of(h, c, mask))
        return q

    def parameters_of(self, h: Tensor | None, c: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """``(B, family.width)`` what the encoder gives."""
        return at_least_single(self.trunk(h, c, mask))


def concentrations(value: float, shares: int) -> Tensor:
    """``(shares,)`` equal concentrations of a prior on the simplex.

    Raises:
        ConfigError: they are not positive.
    """
    if not 0 < value < math.inf:
        raise ConfigError(f"A concentration must be a finite number above 0, not {value}.")
    return torch.zeros(shares).fill_(value)
