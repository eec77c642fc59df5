"""A variational autoencoder with categorical latents."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any

import torch
from torch import Tensor
from torch.distributions import Categorical, Distribution, Independent

from sandglass.core import Batch, Bound, Clock, Latent, Phase, Spec, Terms
from sandglass.distributions.conditional import Network, Observation
from sandglass.distributions.evidence import importance_weighted
from sandglass.distributions.observed import log_prob
from sandglass.errors import ConfigError
from sandglass.models._condition import Given, Sees
from sandglass.models._latent import LatentModel
from sandglass.models._penalty import RatePenalty
from sandglass.quantisers.quantiser import members, straight_through
from sandglass.registry import LikelihoodOption, NetOption, OptionsOf, ScheduleOption, register, resolve
from sandglass.schedules.weight import Weight

_COLDEST = 1e-2  # a temperature below has gradients of 0 or none that are finite


@register("categorical-vae")
class CategoricalVAE(LatentModel):
    """A VAE whose latents are categories: whole numbers as the code, each below K, with a uniform prior.

    The posterior is a categorical distribution for each of ``latent_dim`` latents, and the decoder reads their
    categories as unit vectors. Training draws relaxed ones, ``softmax((logits + Gumbel noise) / temperature)``, which
    have a gradient: Jang, Gu and Poole 2016, "Categorical Reparameterization with Gumbel-Softmax" (arXiv 1611.01144);
    Maddison, Mnih and Teh 2016, "The Concrete Distribution" (arXiv 1611.00712). The objective is ``-log p(x|y) + beta *
    rate`` in nats, y being the relaxed draw and the rate ``sum_n KL(q(z_n|x) || uniform)`` in closed form. Bounds,
    likelihoods and all else are of categories: the bound is one on log p(x), which the objective at a temperature is
    not.

    Args:
        spec: the data.
        latent_dim: categorical latents of a code.
        categories: K, how many values each of them has.
        temperature: of the relaxed draws in training; near 0 they are categories, and their gradients vary much.
        temperature_schedule: schedule of the temperature.
        straight_through: whether the decoder reads categories in training, too, whose gradient is that of the relaxed
            draw.
        net: network family of encoder and decoder; auto is conv for images and mlp for rows.
        likelihood: p(x|z); auto as for the VAE.
        condition: what the model is conditioned on: labels, or a companion of each example; nothing when empty.
        sees: what the encoder reads: x or a companion of it; auto is the damaged copy where there is one.
        penalty: what the objective makes of the rate.

    Raises:
        ConfigError: no latent, fewer than 2 categories, or a temperature below 0.01 at the start or at the
            end.

    Example:
        >>> model = CategoricalVAE(Spec((1, 8, 8), "unit"), latent_dim=3, categories=4)
        >>> x = torch.rand(5, 1, 8, 8)
        >>> model.encode(x).shape, model.encode(x).dtype, model.bound(Batch(x)).per_dimension["z"].shape
        (torch.Size([5, 3]), torch.int64, torch.Size([5, 3]))
    """

    provides = (
        *("encode", "decode", "reconstruct", "prior", "interpolate"),
        *("bound", "log_prob", "score", "embed", "complete"),
    )
    p: Observation

    def __init__(
        self,
        spec: Spec,
        *,
        latent_dim: int = 20,
        categories: int = 10,
        temperature: float = 0.5,
        temperature_schedule: ScheduleOption = "constant",
        straight_through: bool = False,
        net: NetOption = "auto",
        likelihood: LikelihoodOption = "auto",
        condition: str = "",
        sees: str = "auto",
        **penalty: Annotated[Any, OptionsOf(RatePenalty)],
    ) -> None:
        super().__init__()
        if latent_dim < 1:
            raise ConfigError(f"A categorical VAE needs latent_dim >= 1, not {latent_dim}.")
        if categories < 2:
            raise ConfigError(f"A latent has at least 2 categories, not {categories}.")
        self.temperature = Weight("temperature", temperature, temperature_schedule)
        if min(self.temperature.final, temperature * self.temperature.schedule(0.0)) < _COLDEST:
            raise ConfigError(
                f"The temperature must be {_COLDEST} or more: give such a one, and a schedule that neither begins nor "
                "ends below, such as linear from start=2 to end=1."
            )
        self.spec, self.categories, self.straight_through = spec, categories, straight_through
        self.latents = (Latent("z", (latent_dim,), "index", categories),)
        self.given, self.sees, self.penalty = Given(condition, spec), Sees(sees, spec), RatePenalty(**penalty)
        self.needs = (*self.given.needs, *self.sees.needs)
        nets = resolve("net", net, spec=spec)
        width, cond = latent_dim * categories, self.given.cond
        self.q = Network.encoder(nets, self.sees.spec.shape, width, cond)
        head = resolve("likelihood", likelihood, spec, spec=spec)
        self.p = Observation(nets, width, spec, head, cond)

    def phases(self) -> Sequence[Phase]:
        """One phase: all parameters, on the relaxed bound."""
        return (Phase("elbo", (self,), self.elbo, scheduled=self.penalty.moves or self.temperature.moves),)

    def elbo(self, batch: Batch, clock: Clock) -> Terms:
        """``distortion + beta * rate``, or with its capacity or free bits, from a relaxed draw; the batch mean."""
        logits = self.logits(batch)
        z = self.relaxed(logits, clock).flatten(1)
        bound = self._bound(logits, -log_prob(self.p(z, self.given(batch)), batch.x, batch.mask))
        loss = (bound.distortion + self.penalty(bound, clock)).mean()
        parts = {"distortion": bound.distortion.detach(), "rate": bound.rate.detach()}
        return Terms(loss, parts, self.penalty.scalars(clock) | self._scalar(clock))

    def logits(self, batch: Batch) -> Tensor:
        """``(B, latent_dim, K)`` the logarithms of q(z|x, c), for each latent but for a constant."""
        return self.q(self.sees(batch), self.given(batch)).unflatten(1, (-1, self.categories))

    def relaxed(self, logits: Tensor, clock: Clock) -> Tensor:
        """``(B, latent_dim, K)`` relaxed draws, whose entries sum to 1; or unit vectors with their gradients."""
        temperature = self.temperature(clock)
        if isinstance(temperature, Tensor):
            temperature = temperature.clamp(min=_COLDEST)
        tiny = torch.finfo(logits.dtype).eps
        noise = -torch.rand_like(logits).clamp(tiny, 1 - tiny).log().neg().log()
        soft = ((logits + noise) / temperature).softmax(-1)
        return straight_through(self.units(soft.argmax(-1)).to(soft.dtype), soft) if self.straight_through else soft

    def _scalar(self, clock: Clock) -> dict[str, Tensor]:
        """The temperature of the draws where it moves, for logging."""
        return {name: value.clamp(min=_COLDEST) for name, value in self.temperature.scalar(clock).items()}

    def bound(self, batch: Batch) -> Bound:
        """The evidence bound from one draw of categories an example, with the rate of every latent."""
        logits = self.logits(batch)
        code = Categorical(logits=logits, validate_args=False).sample()
        p = self.observation(code, self.given(batch))
        return self._bound(logits, -log_prob(p, batch.x, batch.mask))

    def log_prob(self, batch: Batch, k: int = 1) -> Tensor:
        """``(B,)`` lower bound on log p(x) in nats from ``k`` importance-weighted draws; it rises to log p(x) with k.

        Burda, Grosse and Salakhutdinov 2016, "Importance Weighted Autoencoders" (arXiv 1509.00519).
        """
        q = _independent(self.logits(batch))
        c = self.given(batch)
        return importance_weighted(q, self.prior(), self.observation, batch.x, k, batch.mask, c=c, size=self.p.size)

    def score(self, batch: Batch) -> Tensor:
        """``(B,)`` how unusual each example is: the negative bound, in nats, from one draw."""
        return -self.bound(batch).elbo

    def prior(self, given: Batch | None = None) -> Distribution:
        """The uniform distribution over codes ``(latent_dim,)``."""
        return _independent(torch.zeros(self.code_size, self.categories, device=self.device, dtype=self.dtype))

    @torch.no_grad()
    def encode(self, batch: Batch) -> Tensor:
        """``(B, latent_dim)`` whole numbers: the likeliest category of each latent."""
        return self.logits(batch).argmax(-1)

    @torch.no_grad()
    def infer(self, batch: Batch) -> Tensor:
        """``(B, latent_dim)`` draws from the posterior."""
        return Categorical(logits=self.logits(batch), validate_args=False).sample()

    def draw(self, n: int, given: Batch | None = None) -> Tensor:
        """``(n, latent_dim)`` draws from the prior."""
        return self.prior(given).sample((n,))

    def units(self, code: Tensor) -> Tensor:
        """``(..., K)`` whether a category is each one, without a synchronisation."""
        return members(code.long().flatten(), self.categories).view(*code.shape, -1)

    def embed(self, code: Tensor) -> Tensor:
        """``(B, latent_dim)`` codes as unit vectors one after the other, ``(B, latent_dim * K)``."""
        return self.units(code).to(self.dtype).flatten(1)

    def observation(self, code: Tensor, c: Tensor | None = None) -> Distribution:
        """p(x|z, c), from the unit vectors of the categories."""
        return self.p(self.embed(code), c)

    def between(self, a: Tensor, b: Tensor, t: Tensor) -> Tensor:
        """``(B, T, latent_dim)`` codes that take over the categories of b one latent after another."""
        turn = (torch.arange(a.shape[1], device=a.device) + 0.5) / a.shape[1]
        return torch.where(t.to(turn.dtype) > turn, b[:, None], a[:, None])

    def _bound(self, logits: Tensor, distortion: Tensor) -> Bound:
        """With the rate of each latent: log K less its entropy."""
        log_q = logits.log_softmax(-1)
        each = (log_q.exp() * (log_q + math.log(self.categories))).sum(-1)
        return Bound({"x": distortion}, {"z": each.sum(1)}, {"z": each})


def _independent(logits: Tensor) -> Independent:
    return Independent(Categorical(logits=logits, validate_args=False), 1, validate_args=False)
