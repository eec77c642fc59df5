"""Mixtures, and priors that are mixtures of learnt Gaussians."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from sandglass.distributions.conditional import Conditional
from sandglass.distributions.gaussian_posterior import DiagonalPosterior
from sandglass.distributions.posterior import Posterior
from sandglass.errors import ConfigError
from sandglass.registry import register

_ONE = torch.Size()
_AT_ONCE = 2**24  # numbers of codes times components in memory without gradients


class Mixture(Distribution):
    """A mixture of members of a family of posteriors.

    Args:
        family: of the components.
        h: ``(K, family.width)``, their parameters.
        log_weight: ``(K,)``, normalised; or ``(B, K)`` for ``log_prob`` of ``(..., B, dim)``.
    """

    arg_constraints = {}  # noqa: RUF012 # as in every distribution of PyTorch

    def __init__(self, family: Posterior, h: Tensor, log_weight: Tensor) -> None:
        self.family, self.h, self.log_weight = family, h, log_weight
        self.components: Distribution = family(h)
        super().__init__(_ONE, torch.Size([family.dim]), validate_args=False)

    @property
    def support(self) -> Any:
        """That of the components."""
        return self.components.support

    @property
    def mean(self) -> Tensor:
        """``(dim,)``."""
        return self.log_weight.exp() @ self.components.mean

    @property
    def variance(self) -> Tensor:
        """``(dim,)``."""
        second = self.components.variance + self.components.mean.square()
        return self.log_weight.exp() @ second - self.mean.square()

    def log_prob(self, value: Tensor) -> Tensor:
        """``(...)`` of ``(..., dim)``, in nats; without gradients a part at a time."""
        if torch.is_grad_enabled() or self.log_weight.dim() > 1:
            each: Tensor = self.components.log_prob(value.unsqueeze(-2)) + self.log_weight
            return each.logsumexp(-1)
        rows = value.reshape(-1, 1, value.shape[-1]).split(max(1, _AT_ONCE // (len(self.log_weight) * value.shape[-1])))
        found = [(self.components.log_prob(part) + self.log_weight).logsumexp(-1) for part in rows]
        return torch.cat(found).reshape(value.shape[:-1])

    def sample(self, sample_shape: torch.Size | list[int] | tuple[int, ...] = _ONE) -> Tensor:
        """``(*sample_shape, dim)``."""
        with torch.no_grad():
            which = torch.multinomial(self.log_weight.exp(), math.prod(sample_shape), replacement=True)
            z: Tensor = self.family(self.h[which]).sample()
        return z.view(*sample_shape, -1)


@register("mixture", kind="prior")
class MixturePrior(Conditional):
    """A mixture of Gaussians with learnt weights, means and standard deviations.

    With the evidence bound, codes of different clusters can lie apart: Dilokthanakul et al. 2016, "Deep Unsupervised
    Clustering with Gaussian Mixture Variational Autoencoders" (arXiv 1611.02648), here without a posterior over the
    component, whose best choice given z is known. Means start as draws from the standard normal, scales at 1.

    Args:
        dim: size of a code.
        components: number of Gaussians.

    Raises:
        ConfigError: fewer than one.

    Example:
        >>> p = MixturePrior(2, components=3)()
        >>> p.log_prob(p.sample((5,))).shape
        torch.Size([5])
    """

    def __init__(self, dim: int, *, components: int = 10) -> None:
        super().__init__()
        if components < 1:
            raise ConfigError(f"A mixture needs components >= 1, not {components}.")
        self.family = DiagonalPosterior(dim)
        with torch.device("cpu"):  # arithmetic on the device meta imports a compiler
            h = torch.cat([torch.randn(components, dim), torch.zeros(components, dim)], 1)
        self.h = nn.Parameter(h.to(torch.get_default_device()))
        self.logits = nn.Parameter(torch.zeros(components))

    def forward(self, h: Tensor | None = None, c: Tensor | None = None, mask: Tensor | None = None) -> Distribution:
        """The distribution over ``(dim,)``; the arguments are ignored."""
        return Mixture(self.family, self.h, self.logits.log_softmax(0))


@register("hierarchical-mixture", kind="prior")
class HierarchicalMixturePrior(Conditional):
    """A mixture of mixtures of Gaussians: clusters within groups, ``p(z) = sum_g p(g) sum_k p(k|g) N(z; m_gk, s_gk)``.

    A Gaussian's mean and log variance are its group's plus its own, so that the clusters of a group begin near each
    other and move together; all are learnt. As a density it is a mixture of ``groups * components``, and :meth:`group`
    tells the coarse clusters from the fine ones.

    Args:
        dim: size of a code.
        groups: of clusters.
        components: Gaussians of each group.

    Raises:
        ConfigError: fewer than one of either.

    Example:
        >>> prior = HierarchicalMixturePrior(2, groups=3, components=4)
        >>> z = prior().sample((5,))
        >>> prior().log_prob(z).shape, prior.group(z).shape
        (torch.Size([5]), torch.Size([5, 3]))
    """

    def __init__(self, dim: int, *, groups: int = 5, components: int = 4) -> None:
        super().__init__()
        if groups < 1 or components < 1:
            raise ConfigError(f"A mixture needs groups >= 1 and components >= 1, not {groups} and {components}.")
        self.family = DiagonalPosterior(dim)
        with torch.device("cpu"):  # arithmetic on the device meta imports a compiler
            centres = torch.cat([torch.randn(groups, dim), torch.zeros(groups, dim)], 1)
            offsets = torch.cat([0.3 * torch.randn(groups, components, dim), torch.zeros(groups, components, dim)], 2)
        self.centres = nn.Parameter(centres.to(torch.get_default_device()))
        self.offsets = nn.Parameter(offsets.to(torch.get_default_device()))
        self.logits = nn.Parameter(torch.zeros(groups))
        self.shares = nn.Parameter(torch.zeros(groups, components))

    def forward(self, h: Tensor | None = None, c: Tensor | None = None, mask: Tensor | None = None) -> Mixture:
        """The distribution over ``(dim,)``; the arguments are ignored."""
        log_weight = self.logits.log_softmax(0)[:, None] + self.shares.log_softmax(1)
        return Mixture(self.family, (self.centres[:, None] + self.offsets).flatten(0, 1), log_weight.flatten())

    def group(self, z: Tensor) -> Tensor:
        """``(..., groups)`` probabilities of the groups given codes ``(..., dim)``."""
        p = self()
        each = p.components.log_prob(z.unsqueeze(-2)) + p.log_weight
        return each.unflatten(-1, self.shares.shape).logsumexp(-1).softmax(-1)
