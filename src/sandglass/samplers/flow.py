"""Normalizing flows that are trained on codes."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from sandglass.distributions.normalizing_flow import Family, NormalizingFlow
from sandglass.registry import register
from sandglass.samplers.sampler import TrainedSampler


@register("spline", kind="sampler", family="spline", transforms=3)
@register("iaf", kind="sampler", family="iaf")
@register("maf", kind="sampler")
class FlowSampler(TrainedSampler):
    """A normalizing flow, trained by maximum likelihood on codes.

    Args:
        dim: size of a code.
        family: of the transforms: ``maf``, ``iaf`` or ``spline``, see
            :class:`~sandglass.distributions.normalizing_flow.NormalizingFlow`.
        transforms: how many follow each other.
        widths: hidden layers of the network of each.

    Raises:
        ConfigError: an invalid value.

    Example:
        >>> import torch
        >>> sampler = FlowSampler(2, widths=(8,))
        >>> sampler.loss(torch.zeros(5, 2)).shape, sampler.sample(3).shape
        (torch.Size([5]), torch.Size([3, 2]))
    """

    def __init__(
        self, dim: int, *, family: Family = "maf", transforms: int = 5, widths: Sequence[int] = (128, 128)
    ) -> None:
        super().__init__(dim)
        self.pz = NormalizingFlow(dim, family=family, transforms=transforms, widths=widths)

    def cost(self, z: Tensor) -> Tensor:
        """``(B,)`` negative log densities of normalised codes ``(B, dim)``, in nats."""
        log_density: Tensor = self.pz().log_prob(z)
        return -log_density

    def draw(self, n: int) -> Tensor:
        """``(n, dim)`` normalised codes."""
        z: Tensor = self.pz().sample((n,))
        return z
