"""Priors that are trained on codes, in the place of the one that the codes were trained under."""

from __future__ import annotations

from torch import Tensor

from sandglass.errors import ConfigError
from sandglass.registry import PriorOption, register, resolve
from sandglass.samplers.sampler import TrainedSampler


@register("spline", kind="sampler", prior="spline")
@register("iaf", kind="sampler", prior="iaf")
@register("maf", kind="sampler", prior="maf")
class TrainedPrior(TrainedSampler):
    """A prior trained by maximum likelihood on codes.

    Args:
        dim: size of a code.
        prior: with parameters, such as a flow.

    Raises:
        ConfigError: the prior has no parameters.

    Example:
        >>> sampler = TrainedPrior(2, prior={"name": "maf", "widths": [8]})
        >>> sampler.loss(torch.zeros(5, 2)).shape, sampler.sample(3).shape
        (torch.Size([5]), torch.Size([3, 2]))
    """

    def __init__(self, dim: int, *, prior: PriorOption = "maf") -> None:
        super().__init__(dim)
        self.pz = resolve("prior", prior, dim)
        if not any(True for _ in self.pz.parameters()):
            raise ConfigError("A prior that is trained on codes needs parameters; choose another one.")

    def cost(self, z: Tensor) -> Tensor:
        """``(B,)`` negative log densities of normalised codes ``(B, dim)``, in nats."""
        log_density: Tensor = self.pz().log_prob(z)
        return -log_density

    def draw(self, n: int) -> Tensor:
        """``(n, dim)`` normalised codes."""
        z: Tensor = self.pz().sample((n,))
        return z
