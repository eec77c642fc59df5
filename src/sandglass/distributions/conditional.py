"""Conditional distributions and their networks: q(z|x, c), p(x|z, c) and p(z|c)."""

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
    """A conditional distribution; q(z|x, c), p(x|z, c) and p(z|c) share this type."""

    @abc.abstractmethod
    def forward(self, h: Tensor | None = None, c: Tensor | None = None, mask: Tensor | None = None) -> Distribution:
        """The distribution given ``h`` and the condition ``c``; ``mask`` is True where h is observed."""


class Network(nn.Module):
    """An encoder or decoder network whose output has at least single precision.

    Args:
        module: the network.

    Example:
        >>> Network(nn.Linear(3, 4))(torch.zeros(5, 3)).shape
        torch.Size([5, 4])
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    @classmethod
    def encoder(cls, net: Net, shape: tuple[int, ...], out: int, cond: Condition = 0, masked: bool = False) -> Network:
        """``(B, *shape)`` to ``(B, out)``; unused options are not passed, so a custom net need not accept them."""
        return cls(net.encoder(shape, out, **_used(cond=cond, masked=masked)))

    @classmethod
    def decoder(cls, net: Net, dim: int, shape: tuple[int, ...], cond: Condition = 0) -> Network:
        """``(B, dim)`` to ``(B, *shape)``."""
        return cls(net.decoder(dim, shape, **_used(cond=cond)))

    def forward(self, h: Tensor | None = None, c: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """The output for ``h`` and the condition ``c``, with missing values where ``mask`` is False."""
        return at_least_single(self.module(h, **_used(c=c, mask=mask)))


class DiagonalGaussian(Conditional):
    """``q(z|x)``: independent normals with means and log variances from a network.

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
        """The distribution given ``h`` and ``c``."""
        mean, log_variance = at_least_single(self.trunk(h, **_used(c=c, mask=mask))).chunk(2, -1)
        return Independent(Normal(mean, scale_from(0.5 * log_variance), validate_args=False), 1, validate_args=False)


class ObservationModel(Conditional):
    """``p(x|z, c)`` over whole examples, given codes ``(B, D)``.

    Attributes:
        size: decoder output values per example.
        kind: of the likelihood: a density, a probability mass, a cross-entropy or a cost.
    """

    size: int
    kind: FigureKind


class Observation(ObservationModel):
    """``p(x|z)``: a decoder with a likelihood on its output.

    Args:
        net: the decoder's network family.
        dim: size of the latent.
        spec: specification of the data.
        likelihood: of the decoder's output.
        cond: the condition of the decoder, besides the latent.
        part: indices of the ``dim`` dimensions of a longer code that it uses; by default the whole code.
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
        """The distribution given latents ``(B, dim)``, or longer codes that contain them, and ``c``."""
        h = h if self.part is None or h is None else h[..., self.part]
        return self.likelihood(self.trunk(h, c))


def at_least_single(h: Tensor) -> Tensor:
    """Converts half-precision outputs to float32, for accurate statistics and likelihoods."""
    return h.float() if h.dtype in (torch.float16, torch.bfloat16) else h


def _used(**options: Any) -> dict[str, Any]:
    """The options that are set."""
    return {k: v for k, v in options.items() if isinstance(v, Tensor) or v}
