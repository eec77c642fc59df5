"""The variational autoencoder and its weighted form."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from sandglass.core import Batch, Clock, Phase, Spec, Terms
from sandglass.distributions.conditional import DiagonalGaussian, Observation
from sandglass.distributions.evidence import importance_weighted
from sandglass.distributions.observed import fill, log_prob
from sandglass.distributions.rate import rate, rate_per_dimension
from sandglass.errors import ConfigError
from sandglass.models._latent import LatentModel
from sandglass.registry import LikelihoodOption, NetOption, PriorOption, ScheduleOption, register, resolve
from sandglass.schedules.weight import Weight


@register("vae")
@register("beta-vae", beta=4.0)
@register("cyclical-vae", beta_schedule="cyclical")
@register("capacity-vae", beta=1000.0, capacity=25.0)
class VAE(LatentModel):
    """Variational autoencoder: an encoder q(z|x), a decoder p(x|z) and a prior p(z), trained on the evidence bound.

    The objective of an example is ``distortion + beta * rate`` in nats, with distortion ``-E[log p(x|z)]`` summed over
    elements and rate ``KL(q(z|x) || p(z))`` summed over latent dimensions. With beta = 1 it is the negative bound of
    Kingma and Welling 2014, "Auto-Encoding Variational Bayes" (arXiv 1312.6114); other weights are Higgins et al. 2017,
    "beta-VAE: Learning Basic Visual Concepts with a Constrained Variational Framework" (ICLR 2017).

    Two options replace the rate in the objective, and nowhere else. A capacity C makes it ``|rate - C|`` of each
    example: Burgess et al. 2018, "Understanding disentangling in beta-VAE" (arXiv 1804.03599), whose gamma is beta.
    Free bits make it the sum over latent dimensions of ``max(free_bits, rate of the dimension)``, with the mean over
    the batch inside the maximum: Kingma et al. 2016, "Improving Variational Inference with Inverse Autoregressive
    Flow" (arXiv 1606.04934). The parts, the reports and the bound keep the rate itself.

    Args:
        spec: the data.
        latent_dim: size of the latent.
        beta: weight of the rate; above 1 constrains the latent space, below 1 favours reconstruction.
        beta_schedule: what beta is multiplied by over time.
        capacity: rate that each example is held to, in nats; 0 for none.
        capacity_schedule: what the capacity is multiplied by over time.
        free_bits: rate of a latent dimension, in nats, that is not pressed further down; 0 for none.
        net: network family of encoder and decoder; auto is conv for images and mlp for rows.
        likelihood: p(x|z); auto is bernoulli for values in [0, 1], gaussian for real ones, and mixed for tables
            with columns of other kinds.
        prior: p(z).

    Example:
        >>> import torch
        >>> _ = torch.manual_seed(0)
        >>> model = VAE(Spec((1, 8, 8), "unit"), latent_dim=2, net="mlp", likelihood="bernoulli")
        >>> x = torch.rand(5, 1, 8, 8)
        >>> terms = model.elbo(Batch(x), Clock())
        >>> sorted(terms.parts), model.encode(x).shape
        (['distortion', 'rate'], torch.Size([5, 2]))
    """

    objective = "elbo"
    masks = True
    provides = ("encode", "decode", "reconstruct", "posterior", "prior", "interpolate", "log_prob", "bound_parts")

    def __init__(
        self,
        spec: Spec,
        *,
        latent_dim: int = 16,
        beta: float = 1.0,
        beta_schedule: ScheduleOption = "constant",
        capacity: float = 0.0,
        capacity_schedule: ScheduleOption = "linear",
        free_bits: float = 0.0,
        net: NetOption = "auto",
        likelihood: LikelihoodOption = "auto",
        prior: PriorOption = "standard",
    ) -> None:
        super().__init__()
        if latent_dim < 1 or not 0 <= free_bits < math.inf:
            raise ConfigError(f"A VAE needs latent_dim >= 1 and free_bits >= 0, not {latent_dim} and {free_bits}.")
        if capacity and free_bits:
            raise ConfigError("A VAE takes a capacity or free_bits, not both: each says what the rate is to be.")
        self.spec, self.latent_dim, self.free_bits = spec, latent_dim, free_bits
        self.beta = Weight("beta", beta, beta_schedule)
        self.capacity = Weight("capacity", capacity, capacity_schedule)
        nets = resolve("net", net, spec=spec)
        self.posterior = DiagonalGaussian(nets.encoder(spec.shape, 2 * latent_dim))
        self.likelihood = Observation(nets, latent_dim, spec, resolve("likelihood", likelihood, spec, spec=spec))
        self.prior = resolve("prior", prior, latent_dim)
        if free_bits:
            some_q = DiagonalGaussian(nn.Identity())(torch.zeros(1, 2 * latent_dim))
            if rate_per_dimension(some_q, self.prior()) is None:
                raise ConfigError("free_bits needs a prior with a rate for each latent dimension, such as standard.")

    def phases(self) -> Sequence[Phase]:
        """One player: everything, on the weighted bound."""
        return (Phase("elbo", (self,), self.elbo, scheduled=self.beta.moves or self.capacity.moves),)

    def elbo(self, batch: Batch, clock: Clock) -> Terms:
        """``distortion + beta * rate``, or with what stands for the rate; averaged over the batch, one draw of z each.

        A weight that moves is a part too, the same for every example.
        """
        distortion, rates, q = self._bound(batch.x, batch.mask, batch.clean)
        loss = (distortion + self.beta(clock) * self._pressed(rates, q, clock)).mean()
        moving = self.beta.part(clock, len(rates)) | self.capacity.part(clock, len(rates))
        return Terms(loss, {"distortion": distortion.detach(), "rate": rates.detach(), **moving})

    def _pressed(self, rates: Tensor, q: Distribution, clock: Clock) -> Tensor:
        """What the objective presses down: the rates ``(B,)``, their distance from a capacity, or all but free bits."""
        if self.capacity.value:
            return (rates - self.capacity(clock)).abs()
        each = rate_per_dimension(q, self.prior()) if self.free_bits else None
        return rates if each is None else each.mean(0).clamp(min=self.free_bits).sum()

    def bound_parts(
        self, x: Tensor, mask: Tensor | None = None, *, clean: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Distortion and rate of ``(B, *shape)`` from one draw, each ``(B,)`` in nats: the bound is minus their sum.

        With a mask of that shape the distortion, and so the bound, is of the observed entries alone. With ``clean``,
        z is drawn given ``x`` and ``clean`` is what p(x|z) is asked for.
        """
        return self._bound(x, mask, x if clean is None else clean)[:2]

    def _bound(self, x: Tensor, mask: Tensor | None, clean: Tensor) -> tuple[Tensor, Tensor, Distribution]:
        q = self.posterior(fill(x, mask))
        z = q.rsample()
        return -log_prob(self.likelihood(z), clean, mask), rate(q, self.prior(), z), q

    def rates(self, x: Tensor) -> Tensor | None:
        """``(B, latent_dim)`` rate of every latent dimension in nats, None where it does not factorise."""
        return rate_per_dimension(self.posterior(x), self.prior())

    def log_prob(self, x: Tensor, k: int = 1, mask: Tensor | None = None) -> Tensor:
        """``(B,)`` lower bound on log p(x) in nats from ``k`` importance-weighted draws; it rises to log p(x) with k.

        With a mask it is of the observed entries alone. Burda, Grosse and Salakhutdinov 2016, "Importance Weighted
        Autoencoders" (arXiv 1509.00519). Each example is encoded once, and the draws are decoded in pieces, so memory
        does not grow with k.
        """
        q, p = self.posterior(fill(x, mask)), self.prior()
        size = self.likelihood.likelihood.channels(self.spec) * math.prod(self.spec.shape[1:])
        return importance_weighted(q, p, self.likelihood, x, k, mask, size=size)

    def encode(self, x: Tensor) -> Tensor:
        """``(B, latent_dim)`` posterior means; the same for the same input."""
        return self.posterior(x).mean

    def draw(self, n: int) -> Tensor:
        """``(n, latent_dim)`` draws from the prior."""
        return self.prior().sample((n,))
