"""The variational autoencoder and its weighted form."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from sandglass.core import Batch, Clock, Phase, Spec, Terms
from sandglass.distributions.conditional import DiagonalGaussian, Observation
from sandglass.distributions.evidence import importance_weighted
from sandglass.distributions.observed import fill, log_prob
from sandglass.distributions.rate import rate, rate_per_dimension
from sandglass.errors import ConfigError
from sandglass.models._latent import LatentModel
from sandglass.registry import LikelihoodOption, NetOption, PriorOption, register, resolve


@register("vae")
@register("beta-vae", beta=4.0)
class VAE(LatentModel):
    """Variational autoencoder: an encoder q(z|x), a decoder p(x|z) and a prior p(z), trained on the evidence bound.

    The objective of an example is ``distortion + beta * rate`` in nats, with distortion ``-E[log p(x|z)]`` summed over
    elements and rate ``KL(q(z|x) || p(z))`` summed over latent dimensions. With beta = 1 it is the negative bound of
    Kingma and Welling 2014, "Auto-Encoding Variational Bayes" (arXiv 1312.6114); other weights are Higgins et al. 2017,
    "beta-VAE: Learning Basic Visual Concepts with a Constrained Variational Framework" (ICLR 2017).

    Args:
        spec: the data.
        latent_dim: size of the latent.
        beta: weight of the rate; above 1 constrains the latent space, below 1 favours reconstruction.
        warmup: epochs over which the weight rises from 0 to beta, 0 for none.
        net: network family of encoder and decoder; auto is conv for images and mlp for rows.
        likelihood: p(x|z); auto is bernoulli for values in [0, 1] and gaussian for real ones.
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
        warmup: float = 0.0,
        net: NetOption = "auto",
        likelihood: LikelihoodOption = "auto",
        prior: PriorOption = "standard",
    ) -> None:
        super().__init__()
        if latent_dim < 1 or beta < 0 or warmup < 0:
            raise ConfigError(
                f"A VAE needs latent_dim >= 1, beta >= 0 and warmup >= 0, not {latent_dim}, {beta} and {warmup}."
            )
        self.spec, self.latent_dim, self.beta, self.warmup = spec, latent_dim, beta, warmup
        nets = resolve("net", net, spec=spec)
        self.posterior = DiagonalGaussian(nets.encoder(spec.shape, 2 * latent_dim))
        self.likelihood = Observation(nets, latent_dim, spec, resolve("likelihood", likelihood, spec, spec=spec))
        self.prior = resolve("prior", prior, latent_dim)

    def phases(self) -> Sequence[Phase]:
        """One player: everything, on the weighted bound."""
        return (Phase("elbo", (self,), self.elbo, scheduled=self.warmup > 0),)

    def elbo(self, batch: Batch, clock: Clock) -> Terms:
        """``distortion + weight * rate``, averaged over the batch; one draw of z an example."""
        distortion, rates = self.bound_parts(batch.x, batch.mask, clean=batch.clean)
        loss = (distortion + self.weight(clock) * rates).mean()
        return Terms(loss, {"distortion": distortion.detach(), "rate": rates.detach()})

    def weight(self, clock: Clock) -> Tensor | float:
        """The rate's weight at this time."""
        return self.beta * (clock.epoch / self.warmup).clamp(max=1) if self.warmup else self.beta

    def bound_parts(
        self, x: Tensor, mask: Tensor | None = None, *, clean: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Distortion and rate of ``(B, *shape)`` from one draw, each ``(B,)`` in nats: the bound is minus their sum.

        With a mask of that shape the distortion, and so the bound, is of the observed entries alone. With ``clean``,
        z is drawn given ``x`` and ``clean`` is what p(x|z) is asked for.
        """
        q = self.posterior(fill(x, mask))
        z = q.rsample()
        return -log_prob(self.likelihood(z), x if clean is None else clean, mask), rate(q, self.prior(), z)

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
