"""The variational autoencoder whose posteriors are refined, example by example, from what the encoder says."""

from __future__ import annotations

import math
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal

from sandglass import rng
from sandglass.core import Batch, Clock, Model, Spec, Terms
from sandglass.distributions.evidence import decoded_at_once, log_likelihoods
from sandglass.distributions.gaussian_posterior import DiagonalPosterior
from sandglass.distributions.observed import log_prob
from sandglass.distributions.rate import rate, rate_per_dimension
from sandglass.errors import ConfigError
from sandglass.models._base_vae import BaseVAE
from sandglass.nets.attention import twice_differentiable
from sandglass.registry import LikelihoodOption, NetOption, PriorOption, SamplerOption, ScheduleOption, build, register

_FARTHEST = 0.5  # of a step, in the logarithm of a scale; of a mean one of its scales


@register("semi-amortized-vae")
class SemiAmortizedVAE(BaseVAE):
    """Semi-amortised VAE: q(z|x) begins as the encoder's and takes steps up the bound of its example.

    Kim, Wiseman, Miller, Sontag and Rush 2018, "Semi-Amortized Variational Autoencoders" (arXiv 1802.02550). An encoder
    has one function for all examples, so its posteriors are worse than the best Gaussian of each: the amortisation gap.
    Here every posterior takes ``steps`` steps of gradient ascent on its own ``-distortion - beta * rate``, in its means
    and log scales, and the bound and everything else that asks for a posterior is of the refined one.

    A step is a share of the natural gradient: that of a mean times its variance, that of a log scale halved. The share
    is ``step_size`` at first and falls linearly to 0, so that the noise of the last steps is small. A step is at most
    one scale of a mean and 0.5 of a log scale. The expectation is of ``pairs`` of opposite points, a scale away from
    the mean in every dimension with random signs, new ones in every step: of all that is quadratic in each dimension
    that is exact. Outside of training the signs are always the same for all examples, so that codes are repeatable.

    Trained ``through`` the steps, the gradient of the refined bound flows back through all of them to encoder and
    decoder, by second derivatives. Otherwise it stops at the refined posterior: that trains the decoder, and the
    encoder climbs the bound at its own output, with the gradient of the first step.

    Args:
        spec: the data.
        steps: of a posterior, in training and afterwards; 0 for those of a VAE.
        step_size: share of the natural gradient that the first step takes.
        pairs: pairs of opposite points for the gradient of a step.
        through: whether gradients flow back through the steps; a net of one's own then needs second derivatives.
        latent_dim: size of the latent; by default as for the VAE.
        net: network family of encoder and decoder; auto as for the VAE.
        likelihood: p(x|z); auto as for the VAE.
        prior: p(z).
        condition: ``"labels"`` or the name of a companion; empty for an unconditional model.
        masked: whether the encoder also gets the mask of missing values, which are 0 in its input.
        beta: weight of the rate.
        beta_schedule: schedule of beta.
        sampler: of new codes: the prior, or a distribution that is fitted to the codes in a stage after training.

    Raises:
        ConfigError: an invalid value.

    Example:
        >>> model = SemiAmortizedVAE(Spec((6,)), latent_dim=2, steps=3)
        >>> sorted(model.elbo(Batch(torch.randn(5, 6)), Clock.final()).parts)
        ['distortion', 'encoder_bound', 'rate']
    """

    def __init__(
        self,
        spec: Spec,
        *,
        steps: int = 5,
        step_size: float = 0.3,
        pairs: int = 1,
        through: bool = True,
        latent_dim: int | None = None,
        net: NetOption = "auto",
        likelihood: LikelihoodOption = "auto",
        prior: PriorOption = "standard",
        condition: str = "",
        masked: bool = False,
        beta: float = 1.0,
        beta_schedule: ScheduleOption = "warm-up",
        sampler: SamplerOption = "prior",
    ) -> None:
        if steps < 0:
            raise ConfigError(f"The option steps must be at least 0, not {steps}.")
        if not 0 < step_size < math.inf:
            raise ConfigError(f"The option step_size must be a positive number, not {step_size}.")
        if pairs < 1:
            raise ConfigError(f"The option pairs must be at least 1, not {pairs}.")
        super().__init__(
            spec,
            latent_dim=latent_dim,
            net=net,
            likelihood=likelihood,
            prior=prior,
            condition=condition,
            sees="x",  # a refined posterior has seen x, whatever the encoder reads
            masked=masked,
            beta=beta,
            beta_schedule=beta_schedule,
            sampler=sampler,
        )
        self.steps, self.step_size, self.pairs, self.through = steps, step_size, pairs, through

    @classmethod
    def of(cls, vae: Model, **options: Any) -> SemiAmortizedVAE:
        """A trained VAE with refined posteriors, in eval mode; the weights are copies.

        Args:
            vae: a VAE that reads x, such as ``load_model()`` of a run gives.
            options: ``steps``, ``step_size`` and ``pairs``.

        Raises:
            ConfigError: the model is none, or its encoder reads a companion.
        """
        kept = ("latent_dim", "net", "likelihood", "prior", "condition", "masked", "beta", "beta_schedule", "sampler")
        refinable = isinstance(vae, BaseVAE) and isinstance(vae.q.family, DiagonalPosterior)
        if not isinstance(vae, BaseVAE) or not refinable or vae.sees.name != "x":
            raise ConfigError(
                f"Only a VAE whose encoder reads x and gives a gaussian posterior can be refined, not this "
                f"{type(vae).__name__}."
            )
        own = {name: vae.config["options"][name] for name in kept if name in vae.config["options"]} | dict(vae.custom)
        model = build("semi-amortized-vae", vae.spec, **{**own, **options})
        assert isinstance(model, cls)
        known = vae.state_dict()
        model.load_state_dict({name: known[name] for name in model.state_dict()})
        return model.to(device=vae.device, dtype=vae.dtype).eval()

    def elbo(self, batch: Batch, clock: Clock) -> Terms:
        """``distortion + beta * rate`` of the refined posteriors, the batch mean, one draw of z each.

        The part ``encoder_bound`` is the bound of the encoder's posteriors, minus what is minimised of them.
        """
        beta = self.penalty.beta(clock)
        start = super().posterior(batch)
        separate = torch.is_grad_enabled() and self.steps > 0 and not self.through
        q, slopes, first = self.refined(start, batch, beta)
        z = q.rsample()
        bound = self._bound_of(q, z, -log_prob(self.p(z, self.given(batch)), batch.x, batch.mask), batch)
        loss = (bound.distortion + beta * bound.rate).mean()
        if separate:
            mean, log_scale = parameters(start)
            climbs = (slopes[0] * mean + slopes[1] * log_scale).sum(1).mean()
            loss = loss + (climbs - climbs.detach())
        parts = {"distortion": bound.distortion.detach(), "rate": bound.rate.detach()}
        parts |= {"encoder_bound": -first} if self.steps else {}
        return Terms(loss, parts, self.penalty.scalars(clock))

    def posterior(self, batch: Batch) -> Distribution:
        """q(z|x, c) over ``(B, latent_dim)``, refined; missing values of x are left out."""
        return self.refined(super().posterior(batch), batch, self.penalty.beta.final)[0]

    def refined(
        self, q: Distribution, batch: Batch, beta: Tensor | float
    ) -> tuple[Distribution, tuple[Tensor, Tensor], Tensor]:
        """The posterior after all steps, and of the first: slopes of the cost and the cost ``(B,)``, both detached.

        Args:
            q: where it begins: independent normals over ``(B, latent_dim)``.
            batch: the examples.
            beta: weight of the rate.
        """
        through = self.through and self.training and torch.is_grad_enabled()
        mean, log_scale = parameters(q)
        first = slopes = None
        for step in range(self.steps):
            with torch.enable_grad(), twice_differentiable() if through else nullcontext():
                if not (through and mean.requires_grad):
                    mean, log_scale = (t.detach().requires_grad_() for t in (mean, log_scale))
                noise = self.noise(mean, step)
                with self.p.likelihood.at_rest():
                    cost = self.cost(normal(mean, log_scale), noise, batch, beta)
                by_mean, by_scale = torch.autograd.grad(cost.sum(), (mean, log_scale), create_graph=through)
            if first is None:
                first, slopes = cost.detach(), (by_mean.detach(), by_scale.detach())
            scale, size = log_scale.exp(), self.step_size * (1 - step / self.steps)
            away = (size * scale * by_mean).clamp(-1, 1)
            mean = mean - scale * away
            log_scale = log_scale - (0.5 * size * by_scale).clamp(-_FARTHEST, _FARTHEST)
            if not through:
                mean, log_scale = mean.detach(), log_scale.detach()
        if first is None or slopes is None:
            return q, (torch.zeros_like(mean), torch.zeros_like(mean)), torch.zeros_like(mean[:, 0])
        return normal(mean, log_scale), slopes, first

    def noise(self, like: Tensor, step: int) -> Tensor:
        """``(2 pairs, B or 1, latent_dim)`` random signs, the second half minus the first."""
        if self.training:
            half = torch.randint(2, (self.pairs, *like.shape), device=like.device)
        else:
            half = torch.randint(2, (self.pairs, 1, like.shape[1]), generator=rng.generator("refinement", step))
        half = 2 * half.to(like) - 1
        return torch.cat([half, -half])

    def cost(self, q: Independent, noise: Tensor, batch: Batch, beta: Tensor | float) -> Tensor:
        """``(B,)`` ``distortion + beta * rate``, the mean over points ``mean + scale * noise``."""
        z = q.base_dist.loc + q.base_dist.scale * noise
        rows = decoded_at_once(self.p.size, z.device)
        log_px = log_likelihoods(z, self.p, batch.x, batch.mask, self.given(batch), rows)
        p = self.prior(batch)
        each = rate_per_dimension(q, p)
        rates = rate(q, p, z, each)
        return -log_px.mean(0) + beta * (rates if rates.dim() == 1 else rates.mean(0))


def parameters(q: Distribution) -> tuple[Tensor, Tensor]:
    """Means and log scales of independent normals."""
    assert isinstance(q, Independent)
    return q.base_dist.loc, q.base_dist.scale.log()


def normal(mean: Tensor, log_scale: Tensor) -> Independent:
    """Independent normals over ``(B, dim)``."""
    return Independent(Normal(mean, log_scale.exp(), validate_args=False), 1, validate_args=False)
