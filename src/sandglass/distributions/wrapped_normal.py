"""Codes in a hyperbolic space that follow wrapped normal distributions.

A code is the tangent vector at the origin whose geodesic leads to a point, so codes are real numbers, and the wrapped
normal distribution at the origin, the prior of the papers, is the standard normal one. Geometry is computed in the
Poincaré ball of radius 1 and curvature -1, of which these are coordinates without a boundary.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution
from torch.distributions.constraints import positive, real_vector
from torch.types import _size

from sandglass.distributions.location_scale import scale_from
from sandglass.distributions.posterior import Posterior
from sandglass.errors import ConfigError
from sandglass.registry import register

FARTHEST = 12.0
"""Distance of a point from the origin, at most: there single precision still tells how far it is from the boundary."""

_MEAN = 8.0  # the same of the points of posteriors, and of sqrt(dim) standard deviations, the usual distance of a draw
_ROUNDINGS = 64  # of coordinates, to which a standard deviation is at least equal, or the rate would be of roundings


class WrappedNormal(Distribution):
    """A normal distribution on the tangent space at a point, taken into a hyperbolic space along geodesics.

    Codes are tangent vectors at the origin, and densities are with respect to them.

    Args:
        loc: codes ``(*batch, dim)`` of the points.
        scale: ``(*batch, dim)``, standard deviations of lengths along the axes at the point.
        curvature: c, of a space of curvature -c.
    """

    arg_constraints: ClassVar = {"loc": real_vector, "scale": positive}
    support = real_vector
    has_rsample = True

    def __init__(self, loc: Tensor, scale: Tensor, curvature: float) -> None:
        self.loc, self.scale, self.unit = loc, scale, math.sqrt(curvature)
        self.point = point_of(self.unit * loc)
        super().__init__(loc.shape[:-1], loc.shape[-1:], validate_args=False)

    @property
    def mean(self) -> Tensor:
        """The point from which the mean squared distance is least; the mean of the codes is farther out."""
        return self.loc

    def rsample(self, sample_shape: _size = ()) -> Tensor:
        """``(*sample_shape, *batch, dim)``."""
        noise = torch.randn((*sample_shape, *self.loc.shape), dtype=self.loc.dtype, device=self.loc.device)
        return code_of(added(self.point, point_of(self.unit * self.scale * noise))) / self.unit

    def log_prob(self, value: Tensor) -> Tensor:
        """The log density: the normal one, and by how much geodesics spread from the point and from the origin."""
        v, distance = towards(self.point, point_of(self.unit * value))
        normal = 0.5 * (v / (self.unit * self.scale)).square() + self.scale.log() + 0.5 * math.log(2 * math.pi)
        spread = _log_spread(_norm(self.unit * value).clamp(max=FARTHEST)) - _log_spread(distance)
        return (value.shape[-1] - 1) * spread[..., 0] - normal.sum(-1)


def point_of(v: Tensor) -> Tensor:
    """The point of the ball at the end of the geodesic from the origin in the direction of v, of the length of v.

    Example:
        >>> point_of(torch.tensor([0.0, math.log(3)]))
        tensor([0.0000, 0.5000])
    """
    norm = _norm(v)
    return torch.tanh(norm.clamp(max=FARTHEST) / 2) / norm * v


def code_of(z: Tensor) -> Tensor:
    """The inverse: the tangent vector at the origin of the geodesic to a point, at most :data:`FARTHEST` long."""
    norm = _norm(z)
    return 2 * torch.atanh(norm.clamp(max=math.tanh(FARTHEST / 2))) / norm * z


def added(a: Tensor, b: Tensor) -> Tensor:
    """Möbius addition: b as seen from the origin, carried to a."""
    total = a + b
    squared = total.square().sum(-1, keepdim=True)
    return (squared * a + gap(a) * total) / (squared + gap(a) * gap(b))


def towards(a: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    """The tangent vector at a of the geodesic to z, in lengths ``(..., dim)``, and the distance ``(..., 1)``.

    Differences of points are taken first, so that it is exact for near ones, also close to the boundary.
    """
    step = z - a
    length = _norm(step)
    distance = 2 * torch.asinh(length / (gap(a) * gap(z)).sqrt())
    direction = gap(a) * step - length.square() * a
    return distance / _norm(direction) * direction, distance


def gap(z: Tensor) -> Tensor:
    """``(..., 1)``: 1 less the squared norm."""
    return 1 - z.square().sum(-1, keepdim=True)


def _log_spread(r: Tensor) -> Tensor:
    """``log(sinh(r) / r)``."""
    r = r.clamp(min=1e-3)
    return r + torch.log1p(-torch.exp(-2 * r)) - math.log(2) - r.log()


def _norm(v: Tensor) -> Tensor:
    """``(..., 1)`` norms, with a gradient at 0."""
    return (v.square().sum(-1, keepdim=True) + torch.finfo(v.dtype).tiny ** 0.75).sqrt()


@register("wrapped-normal", kind="posterior")
class WrappedNormalPosterior(Posterior):
    """Wrapped normal distributions in a hyperbolic space, where the room grows with distance as in a tree.

    Mathieu et al. 2019, "Continuous Hierarchical Representations with Poincaré Variational Auto-Encoders" (arXiv
    1901.06033); Nagano et al. 2019, "A Wrapped Normal Distribution on Hyperbolic Space for Gradient-Based Learning"
    (arXiv 1902.02992). Codes are tangent vectors at the origin, in place of coordinates in the ball, so the prior is
    ``standard``, which is the wrapped normal distribution at the origin.

    Args:
        dim: size of a code; a few.
        curvature: c, of a space of curvature -c; towards 0 this is ``gaussian``.

    Raises:
        ConfigError: a curvature that is not positive, or so large that draws leave what single precision can tell.

    Example:
        >>> WrappedNormalPosterior(2)(torch.zeros(5, 4)).rsample().shape
        torch.Size([5, 2])
    """

    def __init__(self, dim: int, *, curvature: float = 1.0) -> None:
        super().__init__(dim)
        if not 0 < curvature < float("inf"):
            raise ConfigError(f"A curvature must be a finite number above 0, not {curvature}.")
        if curvature * dim > _MEAN**2:
            raise ConfigError(
                f"A curvature of {curvature:g} takes codes of {dim} numbers farther than single precision can tell; it "
                f"can be at most {_MEAN**2 / dim:g}."
            )
        self.curvature, self.width = curvature, 2 * dim

    def forward(self, h: Tensor) -> Distribution:
        """From codes and log variances, ``(B, 2 dim)``."""
        unit = math.sqrt(self.curvature)
        loc, log_variance = h.chunk(2, -1)
        loc = loc * (_MEAN / _norm(unit * loc)).clamp(max=1)
        rounding = 2 * torch.finfo(h.dtype).eps / gap(point_of(unit * loc)) / unit
        scale = scale_from(0.5 * log_variance).clamp(max=_MEAN / math.sqrt(self.dim) / unit)
        return WrappedNormal(loc, scale + _ROUNDINGS * rounding, self.curvature)

    def between(self, a: Tensor, b: Tensor, t: Tensor) -> Tensor:
        """``(B, T, dim)`` codes on the geodesic between codes ``(B, dim)``, at fractions ``(1, T, 1)`` of the way."""
        unit = math.sqrt(self.curvature)
        start, end = (point_of(unit * v)[:, None] for v in (a, b))
        return code_of(added(start, point_of(t * towards(start, end)[0]))) / unit
