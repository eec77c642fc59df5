"""The standard normal prior."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal
from torch.distributions.kl import register_kl

from sandglass.distributions.conditional import Conditional
from sandglass.registry import register


class Standard(Normal):
    """Standard normals as a type of their own, for which the KL divergence has a cheaper formula."""


@register_kl(Normal, Standard)  # type: ignore[untyped-decorator]
def _kl_normal_standard(q: Normal, p: Standard) -> Tensor:
    """``(mean^2 + scale^2 - 1) / 2 - log(scale)``."""
    return 0.5 * (q.loc.square() + q.scale.square() - 1) - q.scale.log()


@register("standard", kind="prior")
class StandardNormal(Conditional):
    """Independent normals of mean 0 and standard deviation 1.

    Args:
        dim: number of dimensions.

    Example:
        >>> StandardNormal(3)().log_prob(torch.zeros(3)).shape
        torch.Size([])
    """

    zero: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("zero", torch.zeros(dim), persistent=False)

    def forward(self, h: Tensor | None = None, c: Tensor | None = None, mask: Tensor | None = None) -> Distribution:
        """The distribution over ``(dim,)``; the arguments are ignored."""
        return Independent(Standard(self.zero, torch.ones_like(self.zero), validate_args=False), 1, validate_args=False)
