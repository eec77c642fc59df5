"""What models with several levels of latents share: the code has them in the coordinates of their priors."""

from __future__ import annotations

from torch import Tensor

from sandglass.core import Batch, Clock, Terms
from sandglass.distributions.evidence import importance_weighted
from sandglass.models._condition import Sees
from sandglass.models._variational import VariationalModel


class LevelledModel(VariationalModel):
    """A bound with a rate for each level, and a code whose prior is the standard normal.

    Attributes:
        sees: reads what the encoder sees from a batch.
    """

    sees: Sees

    def elbo(self, batch: Batch, clock: Clock) -> Terms:
        """``distortion + beta * rate``, or with its capacity or free bits: the batch mean, one draw of z each."""
        bound = self.bound(batch)
        loss = (bound.distortion + self.penalty(bound, clock)).mean()
        rates = {f"rate_{name}": each.detach() for name, each in bound.rates.items()} if len(bound.rates) > 1 else {}
        parts = {"distortion": bound.distortion.detach(), "rate": bound.rate.detach(), **rates}
        return Terms(loss, parts, self.penalty.scalars(clock))

    def log_prob(self, batch: Batch, k: int = 1) -> Tensor:
        """``(B,)`` lower bound on log p(x) in nats from ``k`` importance-weighted draws; it rises to log p(x) with k.

        Of the observed entries alone where some are missing. Burda, Grosse and Salakhutdinov 2016, "Importance Weighted
        Autoencoders" (arXiv 1509.00519).
        """
        q, c = self.posterior(batch), self.given(batch)
        return importance_weighted(q, self.prior(), self.p, batch.x, k, batch.mask, c=c, size=self.p.size)

    def draw(self, n: int, given: Batch | None = None) -> Tensor:
        """``(n, D)`` draws from the prior."""
        return self.prior(given).sample((n,))
