"""Codes on the unit sphere that follow power spherical distributions."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributions import Dirichlet, Distribution
from torch.distributions.kl import register_kl

from sandglass.distributions.sphere import Rotational, SpherePosterior, UniformSphere, log_area
from sandglass.registry import register


class PowerSpherical(Rotational):
    """The density ``(1 + cos(angle))^concentration / Z`` of unit vectors.

    With ``m = (dim - 1) / 2``, half of ``1 + cos(angle)`` follows Beta(m + concentration, m).
    """

    @property
    def alpha(self) -> Tensor:
        """``(*batch)``: m + concentration, the first parameter of that beta distribution."""
        return self.concentration + self.m

    @property
    def m(self) -> float:
        """The second one."""
        return (self.event_shape[0] - 1) / 2

    @property
    def log_normalizer(self) -> Tensor:
        """``(*batch)``: the logarithm of Z, less concentration * log 2."""
        return _wide(lambda a: torch.lgamma(a) - torch.lgamma(a + self.m), self.alpha) + (
            2 * self.m * math.log(2) + self.m * math.log(math.pi)
        )

    def log_prob(self, value: Tensor) -> Tensor:
        """The log density with respect to the area."""
        half = (1 - 0.5 * self.versed_of(value)).clamp(min=torch.finfo(value.dtype).tiny)
        return self.concentration * half.log() - self.log_normalizer

    def versed(self, shape: torch.Size) -> Tensor:
        """Draws of ``1 - cos(angle)``; both parts of the beta variable are drawn, so that small ones are exact."""
        alpha = self.alpha.expand(shape)
        parts = torch.stack([alpha, torch.full_like(alpha, self.m)], -1)
        return 2 * Dirichlet(parts, validate_args=False).rsample()[..., 1]


@register_kl(PowerSpherical, UniformSphere)  # type: ignore[untyped-decorator]
def _kl_uniform(q: PowerSpherical, p: UniformSphere) -> Tensor:
    """Minus the entropy, and the logarithm of the area."""
    mean_log = _wide(lambda a: torch.digamma(a) - torch.digamma(a + q.m), q.alpha)
    return q.concentration * mean_log - q.log_normalizer + log_area(q.event_shape[0])


def _wide(f: Callable[[Tensor], Tensor], a: Tensor) -> Tensor:
    """A difference of large values of which little is left, in float64 where the device has it."""
    return f(a) if a.device.type == "mps" else f(a.double()).to(a.dtype)


@register("power-spherical", kind="posterior")
class PowerSphericalPosterior(SpherePosterior):
    """Power spherical distributions: near von Mises-Fisher ones, and simpler to draw from.

    De Cao and Aziz 2020, "The Power Spherical distribution" (arXiv 2006.04437). Draws need no rejection, and the KL to
    the uniform distribution is in closed form. They are near von Mises-Fisher ones of half the concentration, with
    less density on the far side.

    Args:
        dim: numbers of a code, at least 2; the sphere has one dimension less.

    Raises:
        ConfigError: fewer.

    Example:
        >>> q = PowerSphericalPosterior(3)(torch.zeros(5, 4))
        >>> q.rsample().square().sum(-1).round(decimals=3)
        tensor([1., 1., 1., 1., 1.])
    """

    def of(self, direction: Tensor, concentration: Tensor) -> Distribution:
        """The distribution of directions ``(B, dim)`` and concentrations ``(B,)``."""
        return PowerSpherical(direction, concentration)
