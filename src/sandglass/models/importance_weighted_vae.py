"""Variational autoencoders that are trained on bounds of several importance-weighted draws."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor
from torch.distributions import Categorical, Distribution

from sandglass.core import Batch, Clock, Spec, Terms
from sandglass.distributions.evidence import decoded_at_once, log_likelihoods
from sandglass.errors import ConfigError
from sandglass.models._base_vae import BaseVAE
from sandglass.registry import (
    LikelihoodOption,
    NetOption,
    PosteriorOption,
    PriorOption,
    SamplerOption,
    ScheduleOption,
    register,
)

_LATENTS = 2**24  # numbers of the draws of z that are kept at once to fill in missing values

Estimator = Literal["total", "stl", "dreg"]
"""Gradient estimators of the encoder."""


@register("miwae", draws=20, masked=True)
@register("dreg-vae", estimator="dreg")
@register("combination-iwae", elbo_weight=0.05)
@register("partially-iwae", bounds=4, draws=4, partially=True)
@register("multiply-iwae", bounds=4, draws=4)
@register("iwae")
class ImportanceWeightedVAE(BaseVAE):
    """VAE trained on a tighter bound on log p(x), from several importance-weighted draws of z for each example.

    With K draws z_k from q(z|x) and ``log w_k = log p(x|z_k) + log p(z_k) - log q(z_k|x)``, the objective is the bound
    ``log (1/K) sum_k w_k`` in nats. It is the evidence bound for K = 1 and rises to log p(x) with K: Burda, Grosse and
    Salakhutdinov 2016, "Importance Weighted Autoencoders" (IWAE, arXiv 1509.00519).

    The larger K is, the less of the gradient of the encoder stands out from its noise. Rainforth et al. 2018, "Tighter
    Variational Bounds are Not Necessarily Better" (arXiv 1802.04537), have three objectives against this: the mean of
    M ``bounds`` of K ``draws`` each (multiply-IWAE, which they and pythae call MIWAE); that bound for the encoder and
    the one of all M K draws for decoder and prior (``partially``, PIWAE); and the bound mixed with the evidence bound
    (``elbo_weight``, CIWAE). Another way is the gradient estimator of the encoder. ``stl`` leaves out the score
    function: Roeder, Wu and Duvenaud 2017, "Sticking the Landing" (arXiv 1703.09194); it has a bias for K > 1. ``dreg``
    has none: Tucker, Lawson, Gu and Maddison 2019, "Doubly Reparameterized Gradient Estimators for Monte Carlo
    Objectives" (arXiv 1810.04152).

    With missing values the bound is that of the observed ones, and ``complete`` uses importance weights: Mattei and
    Frellsen 2019, "MIWAE: Deep Generative Modelling and Imputation of Incomplete Data Sets" (arXiv 1812.02633).

    ``bound`` is the evidence bound from one draw, as for the VAE; ``log_prob(x, k)`` is the bound from k draws. In the
    objective, beta is the weight of ``log p(z) - log q(z|x)`` in log w; the objective is a bound once beta is 1.

    Args:
        spec: the data.
        draws: K, draws of z for each of the bounds.
        bounds: M, bounds whose mean is the objective; M K draws are decoded for each example.
        partially: whether decoder and prior are trained on the one bound of all M K draws.
        elbo_weight: weight of the evidence bound, from the same draws, in a mean with the tighter one; from 0 to 1.
        estimator: of the gradient of the encoder: ``total``, ``stl`` or ``dreg``.
        imputations: draws of z for each example by which ``complete`` fills in missing values.
        latent_dim: size of the latent; by default as for the VAE.
        net: network family of encoder and decoder; auto as for the VAE.
        likelihood: p(x|z); auto as for the VAE.
        posterior: family of q(z|x, c).
        prior: p(z), where the codes of the posterior lie.
        condition: ``"labels"`` or the name of a companion; empty for an unconditional model.
        sees: input of the encoder: ``"x"`` or a companion; auto is the damaged copy if there is one.
        masked: whether the encoder also gets the mask of missing values, which are 0 in its input.
        beta: weight of ``log p(z) - log q(z|x)``.
        beta_schedule: schedule of beta.
        sampler: of new codes: the prior, or a distribution that is fitted to the codes in a stage after training.

    Raises:
        ConfigError: an invalid value.

    Example:
        >>> model = ImportanceWeightedVAE(Spec((6,)), draws=8, latent_dim=2)
        >>> terms = model.elbo(Batch(torch.randn(5, 6)), Clock.final())
        >>> sorted(terms.parts), model.log_prob(torch.randn(5, 6), k=8).shape
        (['bound', 'distortion', 'rate'], torch.Size([5]))
    """

    def __init__(
        self,
        spec: Spec,
        *,
        draws: int = 8,
        bounds: int = 1,
        partially: bool = False,
        elbo_weight: float = 0.0,
        estimator: Estimator = "total",
        imputations: int = 1000,
        latent_dim: int | None = None,
        net: NetOption = "auto",
        likelihood: LikelihoodOption = "auto",
        posterior: PosteriorOption = "gaussian",
        prior: PriorOption = "standard",
        condition: str = "",
        sees: str = "auto",
        masked: bool = False,
        beta: float = 1.0,
        beta_schedule: ScheduleOption = "warm-up",
        sampler: SamplerOption = "prior",
    ) -> None:
        for name, number in (("draws", draws), ("bounds", bounds), ("imputations", imputations)):
            if number < 1:
                raise ConfigError(f"The option {name} must be at least 1, not {number}.")
        if not 0 <= elbo_weight <= 1:
            raise ConfigError(f"The option elbo_weight must be from 0 to 1, not {elbo_weight}.")
        if estimator not in ("total", "stl", "dreg"):
            raise ConfigError(f"The option estimator is one of total, stl, dreg, not '{estimator}'.")
        super().__init__(
            spec,
            latent_dim=latent_dim,
            net=net,
            likelihood=likelihood,
            posterior=posterior,
            prior=prior,
            condition=condition,
            sees=sees,
            masked=masked,
            beta=beta,
            beta_schedule=beta_schedule,
            sampler=sampler,
        )
        self.draws, self.bounds, self.partially = draws, bounds, partially
        self.elbo_weight, self.estimator, self.imputations = elbo_weight, estimator, imputations

    def elbo(self, batch: Batch, clock: Clock) -> Terms:
        """The negative bound of the decoder, the batch mean; its gradients are those of each network's own bound.

        The part ``bound`` is the bound that the decoder is trained on; where the encoder has another one, it is
        ``encoder_bound``. ``distortion`` and ``rate`` are means over the draws.
        """
        beta = self.penalty.beta(clock)
        q, c = self.posterior(batch), self.given(batch)
        z = q.rsample(torch.Size([self.bounds * self.draws]))
        separate = torch.is_grad_enabled() and (self.partially or self.estimator != "total")
        at = z.detach().requires_grad_() if separate else z
        log_px = log_likelihoods(at, self.p, batch.x, batch.mask, c)
        log_pz, log_q = self.prior(batch).log_prob(at), q.log_prob(at)
        log_w = log_px + beta * (log_pz - log_q)
        bound, parts = self.objective(log_w, self.partially), {}
        if self.partially:
            parts["encoder_bound"] = self.objective(log_w).detach()
        if separate:
            (slope,) = torch.autograd.grad(log_w.sum(), at, retain_graph=True)
            decoder, encoder, path = self.shares(log_w.detach(), beta)
            each = decoder * (log_px + beta * log_pz) - encoder * beta * log_q + path * (slope * z).sum(-1)
            trained = each.sum(0)
            bound = bound.detach() + (trained - trained.detach())
        parts |= {"distortion": -log_px.mean(0).detach(), "rate": (log_q - log_pz).mean(0).detach()}
        return Terms(-bound.mean(), {"bound": bound.detach(), **parts}, self.penalty.scalars(clock))

    def objective(self, log_w: Tensor, whole: bool = False) -> Tensor:
        """``(B,)``, the bound in nats.

        Args:
            log_w: ``(M * K, B)`` log weights of the draws.
            whole: whether it is that of all draws together, not the mean of M bounds.
        """
        groups = log_w.unflatten(0, (1, -1) if whole else (self.bounds, -1))
        tight = (groups.logsumexp(1) - math.log(groups.shape[1])).mean(0)
        return tight.lerp(log_w.mean(0), self.elbo_weight) if self.elbo_weight else tight

    def shares(self, log_w: Tensor, beta: Tensor | float) -> tuple[Tensor, Tensor, Tensor]:
        """By draw, the weights of the gradients of log w by decoder, encoder and z, each ``(M * K, B)``.

        The gradient of the encoder has two terms, through the density q(z|x) at a fixed z and through the path of z.
        The sum of both with the same weight, that of the objective's derivative by log w, is the gradient of the
        objective. ``stl`` leaves out the first; ``dreg`` replaces it by its equal in expectation, reparameterized once
        more: the path with the weight of the derivative of the weights, ``-beta (w - w^2)`` for normalised weights w.

        Args:
            log_w: log weights of the draws.
            beta: weight of ``log p(z) - log q(z|x)`` in them.
        """
        normalised = log_w.unflatten(0, (self.bounds, -1)).softmax(1).flatten(0, 1)
        elbo = self.elbo_weight / len(log_w)
        tight = (1 - self.elbo_weight) / self.bounds
        encoder = tight * normalised + elbo
        decoder = (1 - self.elbo_weight) * log_w.softmax(0) + elbo if self.partially else encoder
        if self.estimator == "total":
            return decoder, encoder, encoder
        score = beta * (normalised - normalised.square()) if self.estimator == "dreg" else 0.0
        return decoder, torch.zeros_like(encoder), tight * (normalised - score) + elbo

    @torch.no_grad()
    def complete(self, batch: Batch, draws: int = 0) -> Batch:
        """The examples with missing values filled in, by self-normalised importance sampling of z given the others.

        Args:
            batch: the examples, with a mask.
            draws: 0 for the estimated mean of the missing values given the observed ones; n for n random completions of
                all examples, concatenated: z is drawn again by its weight, and the values from p(x|z).
        """
        if batch.mask is None:
            return super().complete(batch, draws)
        many = batch.map(lambda t: t.repeat(max(draws, 1), *[1] * (t.dim() - 1)))
        size = max(1, _LATENTS // (self.imputations * self.code_size))
        rows = [slice(start, start + size) for start in range(0, len(batch), size)]
        found = [self._filled(batch.map(lambda t, cut=cut: t[cut]), draws) for cut in rows]  # type: ignore[misc]
        return replace(many, x=torch.cat(found, 1).flatten(0, 1), mask=None)

    def _filled(self, batch: Batch, draws: int) -> Tensor:
        """``(max(draws, 1), B, *shape)``: means or random completions of a few examples."""
        z, weights = self.weighted(batch, self.imputations)
        if not draws:
            return torch.where(batch.mask, batch.x, self._mean(z, weights, batch))[None]  # type: ignore[arg-type]
        many = batch.map(lambda t: t.repeat(draws, *[1] * (t.dim() - 1)))
        place = Categorical(probs=weights.T, validate_args=False).sample((draws,))
        code = z.gather(0, place[..., None].expand(-1, -1, z.shape[-1])).flatten(0, 1)
        drawn = self.observation(code, self.given(many)).sample()
        return torch.where(many.mask, many.x, drawn).unflatten(0, (draws, -1))  # type: ignore[arg-type]

    def weighted(self, batch: Batch, draws: int) -> tuple[Tensor, Tensor]:
        """Draws of z from q(z|x), ``(draws, B, latent_dim)``, and their normalised weights ``(draws, B)``."""
        q, c = self.posterior(batch), self.given(batch)
        z = q.rsample(torch.Size([draws]))
        rows = decoded_at_once(self.p.size, z.device)
        log_px = log_likelihoods(z, self.p, batch.x, batch.mask, c, rows)
        return z, (log_px + self.prior().log_prob(z) - q.log_prob(z)).softmax(0)

    def _mean(self, z: Tensor, weights: Tensor, batch: Batch) -> Tensor:
        """``(B, *shape)``, the weighted mean of the means of p(x|z, c), a few draws at once."""
        c, total = self.given(batch), torch.zeros_like(batch.x)
        at_once = max(1, decoded_at_once(self.p.size, z.device) // len(batch))
        for some, weight in zip(z.split(at_once), weights.split(at_once), strict=True):
            given = None if c is None else c.repeat(len(some), *[1] * (c.dim() - 1))
            p: Distribution = self.observation(some.flatten(0, 1), given)
            total += torch.einsum("kb,kb...->b...", weight, p.mean.unflatten(0, some.shape[:2]))
        return total
