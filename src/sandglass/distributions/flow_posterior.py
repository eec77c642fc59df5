"""Posteriors that are normalizing flows of a diagonal Gaussian, with parameters from the encoder."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal, constraints

from sandglass.distributions.location_scale import scale_from
from sandglass.distributions.posterior import Posterior
from sandglass.errors import ConfigError
from sandglass.registry import register

_ONE = torch.Size()
_HALVINGS = 60  # of the interval in which the inverse of a planar flow lies


class FlowPosterior(Posterior):
    """A flow of a diagonal Gaussian: ``z = f(e)``, and ``log q(z|x) = log q(e|x) - log |det df/de|``.

    Args:
        dim: size of a code.
        more: numbers that the encoder gives besides means and log variances.
    """

    def __init__(self, dim: int, more: int) -> None:
        super().__init__(dim)
        self.width = 2 * dim + more

    def forward(self, h: Tensor) -> Distribution:
        """From means, log variances, and what the flow depends on."""
        mean, log_variance, more = h.split([self.dim, self.dim, self.width - 2 * self.dim], -1)
        return Flowed(self, mean, scale_from(0.5 * log_variance), more)

    @abc.abstractmethod
    def flow(self, e: Tensor, more: Tensor) -> tuple[Tensor, Tensor]:
        """``(..., B, dim)`` noise to codes, and ``log |det df/de|``, ``(..., B)``."""

    @abc.abstractmethod
    def inverse(self, z: Tensor, more: Tensor) -> tuple[Tensor, Tensor]:
        """Codes to noise, and ``log |det df/de|`` there, both with gradients."""


class Flowed(Distribution):
    """The distribution of a :class:`FlowPosterior`; the density of its last draw is not computed again.

    Args:
        family: the flow.
        loc: ``(B, dim)`` of the noise.
        scale: ``(B, dim)`` of the noise.
        more: ``(B, n)``, what the flow depends on.
    """

    arg_constraints = {}  # noqa: RUF012 # as in every distribution of PyTorch
    has_rsample = True
    support = constraints.real_vector

    def __init__(self, family: FlowPosterior, loc: Tensor, scale: Tensor, more: Tensor) -> None:
        self.family, self.more = family, more
        self.base = Independent(Normal(loc, scale, validate_args=False), 1, validate_args=False)
        self._last: tuple[Tensor, Tensor] | None = None
        super().__init__(loc.shape[:-1], loc.shape[-1:], validate_args=False)

    @property
    def mean(self) -> Tensor:
        """``(B, dim)``: the image of the mean of the noise, for the mean has no closed form."""
        with torch.autocast(self.more.device.type, enabled=False):
            return self.family.flow(self.base.mean, self.more)[0]

    def rsample(self, sample_shape: torch.Size | list[int] | tuple[int, ...] = _ONE) -> Tensor:
        """``(*sample_shape, B, dim)``."""
        with torch.autocast(self.more.device.type, enabled=False):
            e = self.base.rsample(torch.Size(sample_shape))
            z, log_det = self.family.flow(e, self.more.expand(*e.shape[:-1], -1))
        self._last = z, self.base.log_prob(e) - log_det
        return z

    def log_prob(self, value: Tensor) -> Tensor:
        """``(..., B)`` of ``(..., B, dim)``, in nats."""
        if self._last is not None and value is self._last[0]:
            return self._last[1]
        shape = torch.broadcast_shapes(value.shape[:-1], self.batch_shape)
        with torch.autocast(self.more.device.type, enabled=False):
            e, log_det = self.family.inverse(value.expand(*shape, -1), self.more.expand(*shape, -1))
        return self.base.log_prob(e) - log_det


@register("planar", kind="posterior")
class PlanarPosterior(FlowPosterior):
    """Planar flows ``z + u tanh(w z + b)``, of which the encoder gives u, w and b.

    Rezende and Mohamed 2015, "Variational Inference with Normalizing Flows" (arXiv 1505.05770), with u so that every
    flow is invertible. The density of codes other than its last draws takes a search for the inverse, along w.

    Args:
        dim: size of a code.
        transforms: how many follow each other.

    Raises:
        ConfigError: fewer than one.

    Example:
        >>> q = PlanarPosterior(2, transforms=3)(torch.zeros(5, 19))
        >>> q.log_prob(q.rsample()).shape
        torch.Size([5])
    """

    def __init__(self, dim: int, *, transforms: int = 8) -> None:
        _check(transforms)
        super().__init__(dim, transforms * (2 * dim + 1))
        self.transforms = transforms

    def flow(self, e: Tensor, more: Tensor) -> tuple[Tensor, Tensor]:
        """Noise to codes."""
        z, total = e, e.new_zeros(e.shape[:-1])
        for u, w, b in self._parts(more):
            height = torch.tanh((w * z).sum(-1, keepdim=True) + b)
            total = total + torch.log1p((1 - height.square()).squeeze(-1) * (u * w).sum(-1))
            z = z + u * height
        return z, total

    def inverse(self, z: Tensor, more: Tensor) -> tuple[Tensor, Tensor]:
        """Codes to noise: the height a along w solves ``a + (w u) tanh(a + b) = w z``, which rises with a."""
        total = z.new_zeros(z.shape[:-1])
        for u, w, b in reversed(self._parts(more)):
            target, slope = (w * z).sum(-1, keepdim=True), (w * u).sum(-1, keepdim=True)
            with torch.no_grad():
                low, high = target - slope.abs() - 1, target + slope.abs() + 1
                for _ in range(_HALVINGS):
                    middle = (low + high) / 2
                    above = middle + slope * torch.tanh(middle + b) > target
                    low, high = torch.where(above, low, middle), torch.where(above, middle, high)
                a = (low + high) / 2
                steep = 1 + slope * (1 - torch.tanh(a + b).square())
            a = (
                a - (a + slope * torch.tanh(a + b) - target) / steep
            )  # a Newton step, whose gradient is that of the root
            height = torch.tanh(a + b)
            total = total + torch.log1p((1 - height.square()).squeeze(-1) * slope.squeeze(-1))
            z = z - u * height
        return z, total

    def _parts(self, more: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
        """u, w and b of each transform; u is moved along w so that ``w u > -1``."""
        parts = []
        for each in more.unflatten(-1, (self.transforms, -1)).unbind(-2):
            u, w, b = each.split([self.dim, self.dim, 1], -1)
            slope = (w * u).sum(-1, keepdim=True)
            u = u + (F.softplus(slope) - 1 - slope) * w / (w.square().sum(-1, keepdim=True) + 1e-8)
            parts.append((u, w, b))
        return parts


@register("radial", kind="posterior")
class RadialPosterior(FlowPosterior):
    """Radial flows ``z + b (z - c) / (a + |z - c|)``, of which the encoder gives a, b and the centre c.

    Rezende and Mohamed 2015, "Variational Inference with Normalizing Flows" (arXiv 1505.05770). The inverse is the root
    of a quadratic.

    Args:
        dim: size of a code.
        transforms: how many follow each other.

    Raises:
        ConfigError: fewer than one.

    Example:
        >>> q = RadialPosterior(2, transforms=3)(torch.zeros(5, 16))
        >>> q.log_prob(q.rsample()).shape
        torch.Size([5])
    """

    def __init__(self, dim: int, *, transforms: int = 8) -> None:
        _check(transforms)
        super().__init__(dim, transforms * (dim + 2))
        self.transforms = transforms

    def flow(self, e: Tensor, more: Tensor) -> tuple[Tensor, Tensor]:
        """Noise to codes."""
        z, total = e, e.new_zeros(e.shape[:-1])
        for centre, a, b in self._parts(more):
            away = z - centre
            radius = _norm(away)
            total = total + self._log_det(radius, a, b)
            z = z + b / (a + radius) * away
        return z, total

    def inverse(self, z: Tensor, more: Tensor) -> tuple[Tensor, Tensor]:
        """Codes to noise: the radius r solves ``r (1 + b / (a + r)) = |z - c|``."""
        total = z.new_zeros(z.shape[:-1])
        for centre, a, b in reversed(self._parts(more)):
            away = z - centre
            far = _norm(away)
            p = a + b - far
            radius = (-p + (p.square() + 4 * a * far).sqrt()) / 2
            total = total + self._log_det(radius, a, b)
            z = centre + away / (1 + b / (a + radius))
        return z, total

    def _log_det(self, radius: Tensor, a: Tensor, b: Tensor) -> Tensor:
        ratio = b / (a + radius)
        across = (self.dim - 1) * torch.log1p(ratio)
        return (across + torch.log1p(ratio - b * radius / (a + radius).square())).squeeze(-1)

    def _parts(self, more: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Centre, ``a > 0`` and ``b > -a`` of each transform; b is 0 where the encoder gives 0."""
        parts = []
        for each in more.unflatten(-1, (self.transforms, -1)).unbind(-2):
            centre, a, b = each.split([self.dim, 1, 1], -1)
            a = F.softplus(a) + 1e-3
            parts.append((centre, a, a * 0.99 * F.elu(b)))
        return parts


@register("iaf", kind="posterior")
@register("spline", kind="posterior", family="spline", transforms=2)
class AutoregressivePosterior(FlowPosterior):
    """Inverse autoregressive flows, whose networks also read a context from the encoder.

    Each number of a code is moved by what the numbers before it were in the noise, so draws and their density take
    one pass: Kingma et al. 2016, "Improving Variational Inference with Inverse Autoregressive Flow" (arXiv 1606.04934);
    with splines, Durkan et al. 2019, "Neural Spline Flows" (arXiv 1906.04032). The density of codes other than its last
    draws takes as many passes as a code has numbers. The networks are those of zuko.

    Args:
        dim: size of a code.
        family: of the transforms: ``affine`` or ``spline``.
        transforms: how many follow each other, in turn from the first number and from the last.
        context: numbers that the encoder gives to the networks.
        widths: hidden layers of the network of each.

    Raises:
        ConfigError: an invalid value.

    Example:
        >>> q = AutoregressivePosterior(3, context=4, widths=(8,))(torch.zeros(5, 10))
        >>> q.log_prob(q.rsample()).shape
        torch.Size([5])
    """

    def __init__(
        self,
        dim: int,
        *,
        family: Literal["affine", "spline"] = "affine",
        transforms: int = 4,
        context: int = 64,
        widths: Sequence[int] = (128,),
    ) -> None:
        _check(transforms)
        if family not in ("affine", "spline"):
            raise ConfigError(f"The family of a flow is affine or spline, not '{family}'.")
        if context < 1 or any(width < 1 for width in widths):
            raise ConfigError(f"A flow needs context and widths >= 1, not {context} and {list(widths)}.")
        super().__init__(dim, context)
        from zuko.flows import MAF, NSF

        make = NSF if family == "spline" else MAF
        with torch.device("cpu"):  # it computes with the values of its masks, which meta tensors lack
            flow: Any = make(dim, context, transforms=transforms, hidden_features=tuple(widths))
        self.steps = flow.transform.to(torch.get_default_device())

    def flow(self, e: Tensor, more: Tensor) -> tuple[Tensor, Tensor]:
        """Noise to codes."""
        z, log_det = self.steps(more).call_and_ladj(e)
        return z, log_det

    def inverse(self, z: Tensor, more: Tensor) -> tuple[Tensor, Tensor]:
        """Codes to noise."""
        e, log_det = self.steps(more).inv.call_and_ladj(z)
        return e, -log_det


def _norm(x: Tensor) -> Tensor:
    """``(..., 1)``, with a gradient at 0."""
    return (x.square().sum(-1, keepdim=True) + 1e-12).sqrt()


def _check(transforms: int) -> None:
    if transforms < 1:
        raise ConfigError(f"A flow needs transforms >= 1, not {transforms}.")
