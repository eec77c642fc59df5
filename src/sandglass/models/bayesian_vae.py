"""The variational autoencoder whose decoder has a distribution over its weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.func import functional_call

from sandglass.core import Batch, Bound, Clock, Spec, Stage, Terms
from sandglass.distributions.evidence import importance_weighted
from sandglass.distributions.observed import log_prob
from sandglass.errors import ConfigError
from sandglass.models._base_vae import BaseVAE
from sandglass.models.vae import VAE
from sandglass.registry import OptionsOf, register


class WeightPosterior(nn.Module):
    """Independent normals over the parameters of a module, whose means are the parameters themselves.

    The prior of each tensor's numbers is N(0, s^2), with the s^2 of the best bound, the mean of ``mean^2 + scale^2``.
    So the KL of a tensor of n numbers is ``n/2 log s^2 - sum log scale``, which is 0 where all means are 0 and all
    scales alike.

    Args:
        module: the module, which is no part of this one.
        scale: of every number to begin with.

    Example:
        >>> line = nn.Linear(2, 1)
        >>> weights = WeightPosterior(line, 0.1)
        >>> sorted(weights.sample()), weights.kl().shape
        (['bias', 'weight'], torch.Size([]))
    """

    def __init__(self, module: nn.Module, scale: float) -> None:
        super().__init__()
        self._module = (module,)
        self.log_scales = nn.ParameterList(torch.full_like(p, math.log(scale)) for p in module.parameters())

    def sample(self) -> dict[str, Tensor]:
        """A draw of all parameters, by name, with gradients."""
        named = zip(self._module[0].named_parameters(), self.log_scales, strict=True)
        return {name: mean + torch.randn_like(mean) * log_scale.exp() for (name, mean), log_scale in named}

    def kl(self) -> Tensor:
        """``()`` KL to the prior, in nats."""
        found = []
        for mean, log_scale in zip(self._module[0].parameters(), self.log_scales, strict=True):
            second = mean.square() + (2 * log_scale).exp()
            found.append(mean.numel() / 2 * second.mean().log() - log_scale.sum())
        return torch.stack(found).sum()


@register("bayesian-vae")
class BayesianVAE(BaseVAE):
    """Bayesian VAE: the decoder's weights have a posterior, so it knows where few examples have told it little.

    The model is ``p(w) prod_n p(z_n) p(x_n|z_n, w)``, and the posterior q(w) an independent normal for every weight of
    the decoder: Kingma and Welling 2014, "Auto-Encoding Variational Bayes" (arXiv 1312.6114), appendix F, with the
    weights drawn as in Blundell, Cornebise, Kavukcuoglu and Wierstra 2015, "Weight Uncertainty in Neural Networks"
    (arXiv 1505.05424). The objective of an example is ``distortion + beta * rate + KL(q(w) || p(w)) / N`` in nats, with
    one draw of the weights for a batch, and N training examples. Each tensor's prior is N(0, s^2) with the best s.

    ``decode``, ``reconstruct``, ``sample`` and ``complete`` are at the mean of the weights. ``bound`` and ``log_prob``
    are lower bounds on the log of the predictive density ``E_q(w)[p(x|w)]``; the KL of the weights is no part of them,
    for it is paid once for all examples.

    Args:
        spec: the data.
        weight_scale: standard deviation of every weight to begin with.
        weight_draws: draws of the weights over which ``log_prob`` averages.
        vae: options of the VAE.

    Raises:
        ConfigError: an invalid value.

    Example:
        >>> model = BayesianVAE(Spec((6,)), latent_dim=2, net="mlp")
        >>> _ = model.count(lambda: [Batch(torch.randn(50, 6))], None)
        >>> sorted(model.elbo(Batch(torch.randn(5, 6)), Clock.final()).parts)
        ['distortion', 'rate', 'weights']
    """

    def __init__(
        self,
        spec: Spec,
        *,
        weight_scale: float = 0.01,
        weight_draws: int = 20,
        **vae: Annotated[Any, OptionsOf(VAE)],
    ) -> None:
        super().__init__(spec, **vae)
        if not 0 < weight_scale < math.inf:
            raise ConfigError(f"The weight_scale must be a finite number above 0, not {weight_scale}.")
        if weight_draws < 1:
            raise ConfigError(f"A Bayesian VAE needs weight_draws >= 1, not {weight_draws}.")
        self.weights, self.weight_draws = WeightPosterior(self.p, weight_scale), weight_draws
        self.register_buffer("examples", torch.zeros((), dtype=torch.int64))

    def stages(self) -> Sequence[Stage]:
        """One, before which the examples are counted; and that of the sampler."""
        return self.begun(Stage("train", tuple(self.phases()), self.count, objective="elbo")), *self.sampler_stage()

    def elbo(self, batch: Batch, clock: Clock) -> Terms:
        """``distortion + beta * rate + KL(q(w) || p(w)) / N``, the batch mean."""
        bound = self.bound(batch)
        weights = (self.weights.kl() / self.examples.clamp(min=1)).expand(len(batch))
        loss = (bound.distortion + self.penalty(bound, clock) + weights).mean()
        parts = {"distortion": bound.distortion, "rate": bound.rate, "weights": weights}
        return Terms(loss, {name: part.detach() for name, part in parts.items()}, self.penalty.scalars(clock))

    def inferred(self, batch: Batch) -> tuple[Distribution, Tensor, Bound]:
        """q(z|x, c), a draw of z per example, and the bound from that draw and one of the weights."""
        q = self.posterior(batch)
        z = q.rsample()
        distortion = -log_prob(self.decoder()(z, self.given(batch)), batch.x, batch.mask)
        return q, z, self._bound_of(q, z, distortion, batch)

    def decoder(self) -> Callable[..., Distribution]:
        """p(x|z, c, w) at a draw of the weights, called as :attr:`p` is."""
        w = self.weights.sample()
        return lambda *args: functional_call(self.p, w, args)

    def log_prob(self, batch: Batch, k: int = 1) -> Tensor:
        """``(B,)`` lower bound on the log predictive density in nats, from ``k`` importance-weighted draws of z.

        They are divided over ``weight_draws`` draws of the weights, or over k if that is less.
        """
        q, c, p = self.posterior(batch), self.given(batch), self.prior()
        times = min(k, self.weight_draws)
        found = []
        for i in range(times):
            n = (i + 1) * k // times - i * k // times
            each = importance_weighted(q, p, self.decoder(), batch.x, n, batch.mask, c=c, size=self.p.size)
            found.append(each + math.log(n / k))
        return torch.stack(found).logsumexp(0)

    @torch.no_grad()
    def uncertainty(self, batch: Batch, draws: int = 20) -> Tensor:
        """``(B, *shape)`` standard deviation of the reconstructions over draws of the weights.

        Raises:
            ConfigError: fewer than two.
        """
        if draws < 2:
            raise ConfigError(f"A standard deviation takes draws >= 2, not {draws}.")
        z, c = self.encode(batch), self.given(batch)
        return torch.stack([self.decoder()(z, c).mean for _ in range(draws)]).std(0)
