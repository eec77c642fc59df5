"""Families of posteriors q(z|x, c), and the encoder that gives their parameters."""

from __future__ import annotations

import abc
from typing import Literal

from torch import Tensor, nn
from torch.distributions import Distribution

from sandglass.distributions.conditional import Conditional, Network, at_least_single

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
        q: Distribution = self.family(at_least_single(self.trunk(h, c, mask)))
        return q
