"""Codes on the simplex that follow Dirichlet distributions."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Dirichlet, Distribution

from sandglass.distributions.conditional import Conditional
from sandglass.distributions.posterior import Posterior, Support, concentrations
from sandglass.errors import ConfigError
from sandglass.registry import register

_LEAST = 1e-3  # concentration, below which draws underflow to corners


@register("dirichlet", kind="posterior")
class DirichletPosterior(Posterior):
    """Dirichlet distributions, with concentrations from the encoder through softplus.

    Draws have implicit gradients: Figurnov, Mohamed and Mnih 2018, "Implicit Reparameterization Gradients" (arXiv
    1805.08498). The KL to a Dirichlet prior is in closed form.

    Args:
        dim: K, how many shares sum to 1; at least 3.

    Raises:
        ConfigError: fewer.

    Example:
        >>> import torch
        >>> q = DirichletPosterior(3)(torch.zeros(5, 3))
        >>> q.rsample().sum(-1).round(decimals=3)
        tensor([1., 1., 1., 1., 1.])
    """

    support: Support = "simplex"

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        _check(dim)
        self.width = dim

    def forward(self, h: Tensor) -> Distribution:
        """From ``(B, K)``."""
        return Dirichlet(F.softplus(h) + _LEAST, validate_args=False)


@register("dirichlet", kind="prior")
class DirichletPrior(Conditional):
    """A symmetric Dirichlet distribution.

    Args:
        dim: K, how many shares sum to 1; at least 3.
        concentration: alpha of every share: 1 for uniform on the simplex, less for codes near its corners and edges.

    Raises:
        ConfigError: K is below 3, or a concentration that is not positive.

    Example:
        >>> import torch
        >>> DirichletPrior(3, concentration=1.0)().log_prob(torch.full((3,), 1 / 3))
        tensor(0.6931)
    """

    support: Support = "simplex"
    concentration: Tensor

    def __init__(self, dim: int, *, concentration: float = 1.0) -> None:
        super().__init__()
        _check(dim)
        self.register_buffer("concentration", concentrations(concentration, dim), persistent=False)

    def forward(self, h: Tensor | None = None, c: Tensor | None = None, mask: Tensor | None = None) -> Distribution:
        """The distribution over ``(dim,)``; the arguments are ignored."""
        return Dirichlet(self.concentration, validate_args=False)


def _check(dim: int) -> None:
    if dim < 3:
        raise ConfigError(f"A Dirichlet distribution of codes needs latent_dim >= 3, not {dim}: they sum to 1.")
