"""Distributions that depend on something, and their networks: q(z|x, c), p(x|z, c) and p(z|c)."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from sandglass.core import FigureKind, Spec
from sandglass.distributions.likelihood import Likelihood
from sandglass.distributions.location_scale import scale_from
from sandglass.nets.net import Condition, Net


class Conditional(nn.Module, abc.ABC):
    """A distribution that may depend on something: q(z|x, c), p(x|z, c) and p(z|c) are one type."""

    @abc.abstractmethod
    def forward(self, h: Tensor | None = None, c: Tensor | None = None, mask: Tensor | None = None) -> Distribution:
        """The distribution given ``h`` under the condition ``c``; ``mask`` says what of h was observed."""


class Network(nn.Module):
    """An encoder or decoder of a family, its output never in less than single precision.

    Args:
        module: what the family made.

    Example:
        >>> Network(nn.Linear(3, 4))(torch.zeros(5, 3)).shape
        torch.Size([5, 4])
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    @classmethod
    def encoder(cls, net: Net, shape: tuple[int, ...], out: int, cond: Condition = 0, masked: bool = False) -> Network:
        """``(B, *shape)`` to ``(B, out)``; a family of a person's own need not know what is not asked of it."""
        return cls(net.encoder(shape, out, **_asked(cond=cond, masked=masked)))

    @classmethod
    def decoder(cls, net: Net, dim: int, shape: tuple[int, ...], cond: Condition = 0) -> Network:
        """``(B, dim)`` to ``(B, *shape)``."""
        return cls(net.decoder(dim, shape, **_asked(cond=cond)))

    def forward(self, h: Tensor | None = None, c: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """The output for ``h`` under the condition ``c``, with gaps where ``mask`` is False."""
        return at_least_single(self.module(h, **_asked(c=c, mask=mask)))


class DiagonalGaussian(Conditional):
    """``q(z|x)``: independent normals whose means and log variances a network puts out.

    Args:
        trunk: ``(B, ...) -> (B, 2 dim)``.

    Example:
        >>> DiagonalGaussian(nn.Linear(3, 4))(torch.zeros(5, 3)).rsample().shape
        torch.Size([5, 2])
    """

    def __init__(self, trunk: nn.Module) -> None:
        super().__init__()
        self.trunk = trunk

    def forward(self, h: Tensor | None = None, c: Tensor | None = None, mask: Tensor | None = None) -> Distribution:
        """The distribution given ``h`` under ``c``."""
        mean, log_variance = at_least_single(self.trunk(h, **_asked(c=c, mask=mask))).chunk(2, -1)
        return Independent(Normal(mean, scale_from(0.5 * log_variance), validate_args=False), 1, validate_args=False)


class ObservationModel(Conditional):
    """``p(x|z, c)`` over whole examples, given codes ``(B, D)``.

    Attributes:
        size: numbers that the decoder puts out for an example.
        kind: what the figures of its likelihood are of.
    """

    size: int
    kind: FigureKind


class Observation(ObservationModel):
    """``p(x|z)``: a decoder and the likelihood that reads its output.

    Args:
        net: the family the decoder is of.
        dim: size of the latent.
        spec: the data.
        likelihood: the head.
        cond: what the decoder is conditioned on beside the latent.
        part: the ``dim`` places of a longer code that it reads; all of the code when not given.
    """

    part: Tensor | None

    def __init__(
        self,
        net: Net,
        dim: int,
        spec: Spec,
        likelihood: Likelihood,
        cond: Condition = 0,
        part: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.register_buffer("part", None if part is None else torch.tensor(part), persistent=False)
        shape = (likelihood.channels(spec), *spec.shape[1:])
        self.trunk = Network.decoder(net, dim, shape, cond)
        self.likelihood = likelihood
        self.size, self.kind = torch.Size(shape).numel(), likelihood.kind(spec)

    def forward(self, h: Tensor | None = None, c: Tensor | None = None, mask: Tensor | None = None) -> Distribution:
        """The distribution given latents ``(B, dim)``, or codes that they are a part of, under ``c``."""
        h = h if self.part is None or h is None else h[..., self.part]
        return self.likelihood(self.trunk(h, c))


def at_least_single(h: Tensor) -> Tensor:
    """Half-precision outputs in float32, so that statistics and likelihoods are never taken in less."""
    return h.float() if h.dtype in (torch.float16, torch.bfloat16) else h


def _asked(**options: Any) -> dict[str, Any]:
    """Those options that ask for something."""
    return {k: v for k, v in options.items() if isinstance(v, Tensor) or v}
