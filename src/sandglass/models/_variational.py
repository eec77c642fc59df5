"""What all variational models share."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.distributions import Distribution

from sandglass.core import Batch, Bound, Clock, Phase, Stage, Terms
from sandglass.models._latent import LatentModel
from sandglass.models._penalty import RatePenalty
from sandglass.models._sampling import sampling
from sandglass.samplers.sampler import Sampler


class VariationalModel(LatentModel):
    """A posterior q(z|x, c), a prior p(z) and a bound on log p(x), trained together by one phase.

    Attributes:
        penalty: on the rate, in the objective.
        pz: the prior.
        density: the sampler of new codes; None where it is the prior.
    """

    provides: tuple[str, ...] = (
        *("encode", "decode", "reconstruct", "posterior", "prior", "interpolate"),
        *("bound", "log_prob", "score", "embed", "complete"),
    )
    penalty: RatePenalty
    pz: Any
    density: Sampler | None

    def __init__(self) -> None:
        super().__init__()
        self.density = None

    @abc.abstractmethod
    def elbo(self, batch: Batch, clock: Clock) -> Terms:
        """The objective."""

    @abc.abstractmethod
    def bound(self, batch: Batch) -> Bound:
        """The evidence bound from one draw an example."""

    @abc.abstractmethod
    def posterior(self, batch: Batch) -> Distribution:
        """q over codes ``(B, D)``."""

    def phases(self) -> Sequence[Phase]:
        """One phase: all parameters but those of the sampler, on the weighted bound."""
        return (Phase("elbo", self.trained(), self.elbo, scheduled=self.penalty.moves),)

    def trained(self) -> tuple[nn.Module, ...]:
        """The modules that the objective trains."""
        return (self,) if self.density is None else tuple(m for m in self.children() if m is not self.density)

    def sampler_stage(self) -> tuple[Stage, ...]:
        """The stage in which the sampler is fitted to draws from q(z|x), if there is one."""
        return sampling(self.density, self.posterior)

    def score(self, batch: Batch) -> Tensor:
        """``(B,)`` how unusual each example is: the negative bound, in nats, from one draw."""
        return -self.bound(batch).elbo

    def prior(self, given: Batch | None = None) -> Distribution:
        """p over codes ``(D,)``."""
        return self.pz()

    def encode(self, batch: Batch) -> Tensor:
        """``(B, D)`` posterior means; the same for the same examples."""
        return self.posterior(batch).mean

    def infer(self, batch: Batch) -> Tensor:
        """``(B, D)`` draws from the posterior."""
        return self.posterior(batch).sample()
