"""Codes on the unit sphere: the uniform prior, and what its families of posteriors share."""

from __future__ import annotations

import abc
import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Distribution
from torch.distributions.constraints import Constraint, positive
from torch.types import _size

from sandglass.distributions.conditional import Conditional
from sandglass.distributions.posterior import Posterior, Support
from sandglass.errors import ConfigError
from sandglass.registry import register

LOG_CONCENTRATION = (-10.0, 14.0)
"""Bounds of log concentrations: at e^14 draws are 0.001 from their mean, which single precision still tells apart."""

_OFF = 1e-3  # by which directions are shifted, so that an output of zeros has one, too


class _UnitVectors(Constraint):
    event_dim = 1

    def check(self, value: Tensor) -> Tensor:
        return (torch.linalg.vector_norm(value, dim=-1) - 1).abs() < 1e-4


unit_vectors = _UnitVectors()
"""The constraint of codes on a sphere."""


class UniformSphere(Distribution):
    """The uniform distribution of unit vectors.

    Args:
        like: a tensor ``(dim,)``, of the type and on the device that draws have.
    """

    arg_constraints: ClassVar = {}
    support = unit_vectors

    def __init__(self, like: Tensor) -> None:
        self.like = like
        super().__init__(torch.Size(), like.shape, validate_args=False)

    def sample(self, sample_shape: _size = ()) -> Tensor:
        """``(*sample_shape, dim)``."""
        noise = torch.randn(self._extended_shape(sample_shape), dtype=self.like.dtype, device=self.like.device)
        return F.normalize(noise, dim=-1)

    def log_prob(self, value: Tensor) -> Tensor:
        """Minus the logarithm of the area, everywhere."""
        return torch.full_like(value[..., 0], -log_area(value.shape[-1]))


@register("uniform-sphere", kind="prior")
class UniformSpherePrior(Conditional):
    """The uniform distribution of unit vectors.

    Args:
        dim: numbers of a vector, at least 2; the sphere has one dimension less.

    Raises:
        ConfigError: fewer.

    Example:
        >>> UniformSpherePrior(3)().log_prob(torch.tensor([0.0, 0.0, 1.0]))  # of an area of 4 pi
        tensor(-2.5310)
    """

    support: Support = "sphere"
    zero: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        check_sphere(dim)
        self.register_buffer("zero", torch.zeros(dim), persistent=False)

    def forward(self, h: Tensor | None = None, c: Tensor | None = None, mask: Tensor | None = None) -> Distribution:
        """The distribution over ``(dim,)``; the arguments are ignored."""
        return UniformSphere(self.zero)


class Rotational(Distribution, abc.ABC):
    """A distribution of unit vectors z that depends on the angle to one direction only.

    Args:
        direction: unit vectors ``(*batch, dim)``.
        concentration: ``(*batch)``, 0 for the uniform distribution.
    """

    arg_constraints: ClassVar = {"direction": unit_vectors, "concentration": positive}
    support = unit_vectors
    has_rsample = True

    def __init__(self, direction: Tensor, concentration: Tensor) -> None:
        self.direction, self.concentration = direction, concentration
        super().__init__(concentration.shape, direction.shape[-1:], validate_args=False)

    @abc.abstractmethod
    def versed(self, shape: torch.Size) -> Tensor:
        """Draws of ``1 - cos(angle)``, in (0, 2), with gradients at the concentration."""

    @property
    def mean(self) -> Tensor:
        """The mean direction, which is on the sphere; the mean vector is inside, on the same ray."""
        return self.direction

    def rsample(self, sample_shape: _size = ()) -> Tensor:
        """``(*sample_shape, *batch, dim)``.

        A uniform tangent at the first axis is carried to the direction by the Householder reflection that takes to it
        the nearer of both poles' opposites, so gradients are bounded at every direction.
        """
        shape = self._extended_shape(sample_shape)
        y = self.versed(shape[:-1])[..., None].clamp(1e-12, 2 - 1e-6)  # the root below has a gradient
        first, rest = self.direction[..., :1], self.direction[..., 1:]
        noise = F.normalize(torch.randn_like(rest.expand(*shape[:-1], -1)), dim=-1)
        across = F.pad(noise, (1, 0))
        pole = F.pad(torch.where(first < 0, -1.0, 1.0).to(first), (0, rest.shape[-1]))
        across = across - (rest * noise).sum(-1, keepdim=True) / (1 + first.abs()) * (self.direction + pole)
        return (1 - y) * self.direction + (y * (2 - y)).sqrt() * across

    def versed_of(self, value: Tensor) -> Tensor:
        """``1 - cos(angle)`` of unit vectors; their difference is exact where they are near."""
        return 0.5 * (value - self.direction).square().sum(-1)


class SpherePosterior(Posterior, abc.ABC):
    """Posteriors of unit vectors, from a direction and a log concentration: ``dim + 1`` numbers.

    Args:
        dim: numbers of a code, at least 2; the sphere has one dimension less.

    Raises:
        ConfigError: fewer.
    """

    support: Support = "sphere"

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        check_sphere(dim)
        self.width = dim + 1

    @abc.abstractmethod
    def of(self, direction: Tensor, concentration: Tensor) -> Distribution:
        """The distribution of directions ``(B, dim)`` and concentrations ``(B,)``."""

    def forward(self, h: Tensor) -> Distribution:
        """From ``(B, dim + 1)``."""
        away = h[..., : self.dim] + F.pad(h.new_full((1,), _OFF), (0, self.dim - 1))
        return self.of(F.normalize(away, dim=-1), self.dim * h[..., self.dim].clamp(*LOG_CONCENTRATION).exp())

    def between(self, a: Tensor, b: Tensor, t: Tensor) -> Tensor:
        """``(B, T, dim)`` codes on the great circle through codes ``(B, dim)``, at fractions ``(1, T, 1)`` of the way.

        Opposite codes have many, of which one is taken.
        """
        a, b = (F.normalize(v, dim=-1)[:, None] for v in (a, b))
        angle = 2 * torch.atan2(*(torch.linalg.vector_norm(v, dim=-1, keepdim=True) for v in (a - b, a + b)))
        axis = F.one_hot(a.abs().argmin(-1), self.dim).to(a)
        across, other = (v - (v * a).sum(-1, keepdim=True) * a for v in (b, axis))
        lost = torch.linalg.vector_norm(across, dim=-1, keepdim=True) < 1e-6
        return torch.cos(t * angle) * a + torch.sin(t * angle) * F.normalize(torch.where(lost, other, across), dim=-1)


def log_area(dim: int) -> float:
    """The logarithm of the area of the unit sphere in ``dim`` dimensions.

    Example:
        >>> round(math.exp(log_area(2)) / math.pi, 6)
        2.0
    """
    return math.log(2) + dim / 2 * math.log(math.pi) - math.lgamma(dim / 2)


def check_sphere(dim: int) -> None:
    """Checks that there is a sphere.

    Raises:
        ConfigError: fewer than 2 dimensions.
    """
    if dim < 2:
        raise ConfigError(f"Codes on a sphere need latent_dim >= 2, not {dim}.")
