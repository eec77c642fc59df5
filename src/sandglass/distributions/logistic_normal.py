"""Codes on the simplex whose log ratios are normal."""

from __future__ import annotations

import abc
import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Distribution
from torch.distributions.constraints import positive, real, simplex
from torch.distributions.kl import register_kl
from torch.types import _size

from sandglass.distributions.conditional import Conditional
from sandglass.distributions.location_scale import scale_from
from sandglass.distributions.posterior import Posterior, Support, concentrations
from sandglass.errors import ConfigError
from sandglass.registry import register


class LogRatios(Distribution, abc.ABC):
    """The base of distributions on the simplex whose ``log(share k / last share)`` are normal.

    Densities are with respect to all shares but the last, as of ``torch.distributions.Dirichlet``.
    """

    support = simplex

    def log_prob(self, value: Tensor) -> Tensor:
        """The log density: that of the log ratios, and of their Jacobian, the product of all shares."""
        logs = value.log()
        return self.log_prob_of_ratios(logs[..., :-1] - logs[..., -1:]) - logs.sum(-1)

    @abc.abstractmethod
    def log_prob_of_ratios(self, ratios: Tensor) -> Tensor:
        """The log density of ``(..., K - 1)`` log ratios."""


class LogisticNormal(LogRatios):
    """Independent log ratios.

    Args:
        loc: ``(*batch, K - 1)``, their means.
        scale: likewise, their standard deviations.
    """

    arg_constraints: ClassVar = {"loc": real, "scale": positive}
    has_rsample = True

    def __init__(self, loc: Tensor, scale: Tensor) -> None:
        self.loc, self.scale = loc, scale
        super().__init__(loc.shape[:-1], torch.Size([loc.shape[-1] + 1]), validate_args=False)

    @property
    def mean(self) -> Tensor:
        """The shares at the mean log ratios, which are their medians; the means of the shares have no formula."""
        return _softmax(self.loc)

    def rsample(self, sample_shape: _size = ()) -> Tensor:
        """``(*sample_shape, *batch, K)``."""
        noise = torch.randn((*sample_shape, *self.loc.shape), dtype=self.loc.dtype, device=self.loc.device)
        return _softmax(self.loc + self.scale * noise)

    def log_prob_of_ratios(self, ratios: Tensor) -> Tensor:
        """The log density of ``(..., K - 1)`` log ratios."""
        squares = ((ratios - self.loc) / self.scale).square()
        return -(0.5 * squares + self.scale.log() + 0.5 * math.log(2 * math.pi)).sum(-1)


class SymmetricLogisticNormal(LogRatios):
    """The softmax of K independent normals of mean 0 and variance 1 / concentration.

    Log ratios have the covariance ``(I + 1 1^T) / concentration``, the inverse of ``concentration (I - 1 1^T / K)``.

    Args:
        concentration: ``(K,)``, all alike.
    """

    arg_constraints: ClassVar = {"concentration": positive}

    def __init__(self, concentration: Tensor) -> None:
        self.concentration = concentration
        super().__init__(torch.Size(), concentration.shape, validate_args=False)

    @property
    def log_normalizer(self) -> Tensor:
        """Half the logarithm of the determinant of ``2 pi`` times the covariance."""
        k = len(self.concentration)
        return 0.5 * ((k - 1) * (2 * math.pi / self.concentration[0]).log() + math.log(k))

    def sample(self, sample_shape: _size = ()) -> Tensor:
        """``(*sample_shape, K)``."""
        alpha = self.concentration
        noise = torch.randn((*sample_shape, len(alpha)), dtype=alpha.dtype, device=alpha.device)
        return torch.softmax(noise / alpha.sqrt(), -1).clamp(min=_least(alpha))

    def squares(self, ratios: Tensor) -> Tensor:
        """``r^T precision r`` of ``(..., K - 1)`` log ratios."""
        alpha = self.concentration
        return alpha[0] * (ratios.square().sum(-1) - ratios.sum(-1).square() / len(alpha))

    def log_prob_of_ratios(self, ratios: Tensor) -> Tensor:
        """The log density of ``(..., K - 1)`` log ratios."""
        return -0.5 * self.squares(ratios) - self.log_normalizer


@register_kl(LogisticNormal, SymmetricLogisticNormal)  # type: ignore[untyped-decorator]
def _kl_symmetric(q: LogisticNormal, p: SymmetricLogisticNormal) -> Tensor:
    """That of the log ratios, both of which are normal."""
    k = len(p.concentration)
    spread = p.concentration[0] * (1 - 1 / k) * q.scale.square().sum(-1)
    entropy = (q.scale.log() + 0.5 * math.log(2 * math.pi * math.e)).sum(-1)
    return 0.5 * (spread + p.squares(q.loc)) + p.log_normalizer - entropy


def _softmax(ratios: Tensor) -> Tensor:
    """``(..., K)`` shares of ``(..., K - 1)`` log ratios; reciprocals in gradients do not overflow."""
    return torch.softmax(F.pad(ratios, (0, 1)), -1).clamp(min=_least(ratios))


def _least(like: Tensor) -> float:
    return float(torch.finfo(like.dtype).tiny ** 0.5)


@register("logistic-normal", kind="posterior")
class LogisticNormalPosterior(Posterior):
    """Shares whose log ratios to the last one are independent normals.

    Srivastava and Sutton 2017, "Autoencoding Variational Inference For Topic Models" (arXiv 1703.01488), there with K
    log ratios of which one is not determined by the shares.

    Args:
        dim: K, how many shares sum to 1; at least 2.

    Raises:
        ConfigError: fewer.

    Example:
        >>> q = LogisticNormalPosterior(3)(torch.zeros(5, 4))
        >>> q.mean[0]
        tensor([0.3333, 0.3333, 0.3333])
    """

    support: Support = "simplex"

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        _check(dim)
        self.width = 2 * (dim - 1)

    def forward(self, h: Tensor) -> Distribution:
        """From means and log variances of the log ratios, ``(B, 2 (K - 1))``."""
        mean, log_variance = h.chunk(2, -1)
        return LogisticNormal(mean, scale_from(0.5 * log_variance))


@register("logistic-normal", kind="prior")
class LogisticNormalPrior(Conditional):
    """The softmax of independent normals: Laplace's approximation of a symmetric Dirichlet distribution.

    In the coordinates of the log ratios the Dirichlet density has its mode at equal shares, and the normal with the
    curvature there is this: of the variance 1 / concentration before the softmax (Hennig et al. 2012, "Kernel Topic
    Models", arXiv 1110.4713).

    Args:
        dim: K, how many shares sum to 1; at least 2.
        concentration: alpha of the Dirichlet distribution; less for codes nearer the corners.

    Raises:
        ConfigError: K is below 2, or a concentration that is not positive.

    Example:
        >>> LogisticNormalPrior(3)().sample().sum().round(decimals=3)
        tensor(1.)
    """

    support: Support = "simplex"
    concentration: Tensor

    def __init__(self, dim: int, *, concentration: float = 1.0) -> None:
        super().__init__()
        _check(dim)
        self.register_buffer("concentration", concentrations(concentration, dim), persistent=False)

    def forward(self, h: Tensor | None = None, c: Tensor | None = None, mask: Tensor | None = None) -> Distribution:
        """The distribution over ``(dim,)``; the arguments are ignored."""
        return SymmetricLogisticNormal(self.concentration)


def _check(dim: int) -> None:
    if dim < 2:
        raise ConfigError(f"Logistic normal codes need latent_dim >= 2, not {dim}: they sum to 1.")
