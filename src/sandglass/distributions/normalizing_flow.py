"""Priors that are normalizing flows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from sandglass.distributions.conditional import Conditional
from sandglass.errors import ConfigError
from sandglass.registry import register

_ONE = torch.Size()

Family = Literal["maf", "iaf", "spline"]
"""What maps codes to noise."""


@register("spline", kind="prior", family="spline", transforms=3)
@register("iaf", kind="prior", family="iaf")
@register("maf", kind="prior")
class NormalizingFlow(Conditional):
    """A learnt invertible map of standard normal noise, whose density is known.

    Each transform has its numbers depend on those before them, in turn from the first and from the last, by a masked
    network: Germain et al. 2015, "MADE" (arXiv 1502.03509).

    * ``maf`` shifts and scales each number by what those before it were in the code: densities in one pass, draws in as
      many passes as a code has numbers. Papamakarios, Pavlakou and Murray 2017, "Masked Autoregressive Flow for Density
      Estimation" (arXiv 1705.07057).
    * ``iaf`` does so by what they were in the noise: draws in one pass, densities in as many as a code has numbers, so
      it is slow to train by densities. Kingma et al. 2016, "Improving Variational Inference with Inverse Autoregressive
      Flow" (arXiv 1606.04934).
    * ``spline`` is as maf, with monotonic rational-quadratic splines between -5 and 5 in the place of shift and scale:
      Durkan, Bekasov, Murray and Papamakarios 2019, "Neural Spline Flows" (arXiv 1906.04032).

    The networks are those of zuko. They are computed in single precision at least.

    Args:
        dim: number of dimensions.
        family: of the transforms.
        transforms: how many follow each other.
        widths: hidden layers of the network of each.

    Raises:
        ConfigError: an invalid value.

    Example:
        >>> p = NormalizingFlow(3, widths=(8,))()
        >>> p.log_prob(p.sample((5,))).shape
        torch.Size([5])
    """

    def __init__(
        self, dim: int, *, family: Family = "maf", transforms: int = 5, widths: Sequence[int] = (128, 128)
    ) -> None:
        super().__init__()
        if family not in ("maf", "iaf", "spline"):
            raise ConfigError(f"The family of a flow is one of maf, iaf, spline, not '{family}'.")
        if transforms < 1 or any(width < 1 for width in widths):
            raise ConfigError(f"A flow needs transforms and widths >= 1, not {transforms} and {list(widths)}.")
        from zuko.flows import MAF, NSF, Flow
        from zuko.lazy import LazyInverse

        self.dim = dim
        make = NSF if family == "spline" else MAF
        with torch.device("cpu"):  # it computes with the values of its masks, which meta tensors lack
            flow: Any = make(dim, 0, transforms=transforms, hidden_features=tuple(widths))
            if family == "iaf":
                flow = Flow([LazyInverse(each) for each in reversed(flow.transform.transforms)], flow.base)
        self.flow = flow.to(torch.get_default_device())

    def forward(self, h: Tensor | None = None, c: Tensor | None = None, mask: Tensor | None = None) -> Distribution:
        """The distribution over ``(dim,)``; the arguments are ignored."""
        return _Flow(self.flow, self.dim)


class _Flow(Distribution):
    """The distribution of a flow of zuko; its networks do not run in half precision.

    Args:
        flow: without a condition.
        dim: number of dimensions.
    """

    arg_constraints = {}  # noqa: RUF012 # as in every distribution of PyTorch
    has_rsample = True
    support = constraints.real_vector

    def __init__(self, flow: Any, dim: int) -> None:
        self.flow = flow
        super().__init__(_ONE, torch.Size([dim]), validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """``(...)`` of ``(..., dim)``, in nats."""
        with torch.autocast(value.device.type, enabled=False):
            found: Tensor = self.flow().log_prob(value)
        return found

    def rsample(self, sample_shape: torch.Size | list[int] | tuple[int, ...] = _ONE) -> Tensor:
        """``(*sample_shape, dim)``."""
        device = next(self.flow.parameters()).device
        with torch.autocast(device.type, enabled=False):
            z: Tensor = self.flow().rsample(torch.Size(sample_shape))
        return z
