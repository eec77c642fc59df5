"""The penalty on the rate: its weight, a capacity, free bits."""

from __future__ import annotations

import math

from torch import Tensor

from sandglass.core import Bound, Clock, total
from sandglass.errors import ConfigError
from sandglass.registry import ScheduleOption
from sandglass.schedules.weight import Weight, Weights


class RatePenalty(Weights):
    """The penalty on the rate in an objective; logged parts, reports and the bound have the rate itself.

    With beta = 1 the objective is the negative bound of Kingma and Welling 2014, "Auto-Encoding Variational Bayes"
    (arXiv 1312.6114); other weights are Higgins et al. 2017, "beta-VAE" (ICLR 2017). A capacity C makes it
    ``|rate - C|`` of each example: Burgess et al. 2018, "Understanding disentangling in beta-VAE" (arXiv 1804.03599),
    whose gamma is beta. Free bits make it the sum over latent dimensions of ``max(free_bits, rate of the dimension)``,
    with the mean over the batch inside the maximum: Kingma et al. 2016, "Improving Variational Inference with Inverse
    Autoregressive Flow" (arXiv 1606.04934).

    Args:
        beta: weight of the rate; above 1 constrains the latent space, below 1 favours reconstruction.
        beta_schedule: schedule of beta.
        capacity: target rate of each example, in nats; 0 for none.
        capacity_schedule: schedule of the capacity.
        free_bits: rate of a latent dimension, in nats, below which it is not penalised; 0 for none.

    Raises:
        ConfigError: an invalid value, or both a capacity and free bits.

    Example:
        >>> import torch
        >>> bound = Bound({"x": torch.tensor([3.0])}, {"z": torch.tensor([2.0])})
        >>> RatePenalty(beta=4.0)(bound, Clock())
        tensor([8.])
    """

    def __init__(
        self,
        *,
        beta: float = 1.0,
        beta_schedule: ScheduleOption = "constant",
        capacity: float = 0.0,
        capacity_schedule: ScheduleOption = "linear",
        free_bits: float = 0.0,
    ) -> None:
        if not 0 <= free_bits < math.inf:
            raise ConfigError(f"free_bits must be finite and at least 0, not {free_bits}.")
        if capacity and free_bits:
            raise ConfigError("Give a capacity or free_bits, not both: each says what the rate is to be.")
        self.free_bits = free_bits
        self.beta = Weight("beta", beta, beta_schedule)
        self.capacity = Weight("capacity", capacity, capacity_schedule)

    @property
    def weights(self) -> tuple[Weight, ...]:
        """The weights that can follow a schedule."""
        return self.beta, self.capacity

    @property
    def moves(self) -> bool:
        """Whether it depends on the clock."""
        return any(weight.moves for weight in self.weights)

    def __call__(self, bound: Bound, clock: Clock) -> Tensor:
        """``(B,)``, or ``()`` with free bits: the penalty that is added to the distortion.

        Raises:
            ConfigError: free bits, and a rate that is not a sum over latent dimensions.
        """
        return self.beta(clock) * self._rate(bound, clock)

    def _rate(self, bound: Bound, clock: Clock) -> Tensor:
        if self.capacity.value:
            return (bound.rate - self.capacity(clock)).abs()
        if not self.free_bits:
            return bound.rate
        self.check(bound)
        return total({k: each.mean(0).clamp(min=self.free_bits).sum() for k, each in bound.per_dimension.items()})

    def check(self, bound: Bound) -> None:
        """Checks that free bits are possible: that all rates of a bound are sums over dimensions.

        Raises:
            ConfigError: they are not.
        """
        if self.free_bits and bound.per_dimension.keys() != bound.rates.keys():
            raise ConfigError("free_bits needs a prior with a rate for each latent dimension, such as standard.")

    def scalars(self, clock: Clock) -> dict[str, Tensor]:
        """The current values of the weights that follow a schedule."""
        return {name: value for weight in self.weights for name, value in weight.scalar(clock).items()}
