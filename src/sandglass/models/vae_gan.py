"""The variational autoencoder that measures reconstructions by the features of a critic."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from sandglass.core import Batch, Clock, Phase, Spec, Stage, Terms
from sandglass.distributions.conditional import at_least_single
from sandglass.distributions.observed import log_prob
from sandglass.errors import ConfigError
from sandglass.models._adversary import OPTIM as OPTIM_2016
from sandglass.models._adversary import Adversary, PairedName
from sandglass.models._augmentation import Augmentation
from sandglass.models._base_vae import BaseVAE
from sandglass.models._latent import sized
from sandglass.models.gan import GAN, OPTIM, Critic, steepness
from sandglass.models.vae import VAE
from sandglass.registry import NetOption, OptionsOf, register, resolve

_PENALISED = 0.25  # share of a batch for which the gradient penalties, most of the cost of an update, are computed


@register("vae-gan")
class VAEGAN(BaseVAE):
    """VAE-GAN: a VAE that measures reconstructions by the features of a critic, which also judges its samples.

    Larsen, Soenderby, Larochelle and Winther 2016, "Autoencoding beyond pixels using a learned similarity metric"
    (arXiv 1512.09300). With f the n features of the last hidden layer of the critic D, each example's divided by their
    root mean square, an example's reconstruction x' costs ``n/2 * mean((f(x) - f(x'))^2)``: up to a constant
    ``-log N(f(x); f(x'), 1)``, in nats. Encoder, decoder and critic are trained in turn, each on a loss of its own:

    * encoder: ``feature distortion + pixels * distortion + beta * rate``;
    * decoder: ``gamma * (feature distortion + pixels * distortion) + adversarial loss`` of reconstructions and of
      decoded draws from the prior, half each;
    * critic: the adversarial loss of examples against both, with gradient penalties ``r1`` and ``r2`` as in ``gan``.

    ``bound`` and ``log_prob`` are those of the VAE with this encoder, decoder and prior: true lower bounds on log p(x)
    of the pixels, which training hardly raises, for it wants likeness in features; they are far below a VAE's. With
    ``pixels=0``, as in the paper, nothing trains the parameters of the likelihood beyond its mean, and they say
    nothing.

    The losses depend on the current critic, so they are not comparable between epochs: a moving average of the last
    weights is kept. It learns from data without missing values, by which the critic would tell it from samples.

    Args:
        spec: the data.
        pixels: how much of the pixels' likelihood stays in the reconstruction cost, 1 for all of it; by default 1, and
            0.02 for photographs as levels, whose likelihood is some 50 times as large.
        gamma: weight of the reconstruction cost beside the adversarial loss, for the decoder.
        adversary: ``relativistic``, ``non-saturating``, ``hinge`` or ``least-squares``, see
            :class:`~sandglass.models._adversary.Adversary`.
        r1: weight of the gradient penalty ``r1 / 2 * |grad critic(x)|^2`` at real examples.
        r2: weight of the same penalty at reconstructions and samples.
        ada: target of the adaptive augmentation of pictures, see ``gan``; 0 for none.
        critic: network family of the critic; auto is resnet without normalisation for images and mlp for rows.
        vae: options of the VAE.

    Raises:
        ConfigError: an invalid value.

    Example:
        >>> model = VAEGAN(Spec((1, 8, 8), "unit"), latent_dim=4, net="mlp", likelihood="bernoulli")
        >>> [phase.name for phase in model.phases()], model.sample(3).shape
        (['critic', 'encoder', 'decoder'], torch.Size([3, 1, 8, 8]))
    """

    def __init__(
        self,
        spec: Spec,
        *,
        pixels: float | None = None,
        gamma: float = 0.03,
        adversary: PairedName = "relativistic",
        r1: float = 0.1,
        r2: float = 0.1,
        ada: float = 0.6,
        critic: NetOption = "auto",
        **vae: Annotated[Any, OptionsOf(VAE)],
    ) -> None:
        super().__init__(spec, **vae)
        pixels = self.defaults(spec)["pixels"] if pixels is None else pixels
        for name, value in (("pixels", pixels), ("gamma", gamma), ("r1", r1), ("r2", r2)):
            if not 0 <= value < math.inf:
                raise ConfigError(f"The weight {name} must be a finite number of at least 0, not {value}.")
        self.needs = ("complete", *self.needs)
        self.pixels, self.gamma, self.r1, self.r2 = pixels, gamma, r1, r2
        self.adversary = Adversary(adversary, paired=True)
        nets = resolve("net", critic, spec=spec, own=self.defaults(spec)["critic"])
        self.critic = Critic(nets, spec.shape, self.given.cond)
        self.critic.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # faster, as in ``gan``
        self.ada = Augmentation(spec, ada) if ada and spec.is_image else None

    @staticmethod
    def defaults(spec: Spec) -> dict[str, Any]:
        """Those of the VAE, what ``auto`` is for the critic, and how much of the pixels stays in."""
        pixels = 0.02 if spec.is_image and spec.support == "levels" else 1.0
        return {**sized(spec), "critic": GAN.defaults(spec)["net"], "pixels": pixels}

    def stages(self) -> Sequence[Stage]:
        """One, with a moving average of the weights, whose last are kept; and that of the sampler."""
        return (self.begun(Stage("train", tuple(self.phases()), ema=0.999)), *self.sampler_stage())

    def phases(self) -> Sequence[Phase]:
        """The updates of the critic, the encoder and the decoder."""
        optim = OPTIM if self.adversary.compares else OPTIM_2016
        critic = (self.critic, self.ada) if self.ada else (self.critic,)
        follow = self.ada and self.ada.follow
        return (
            Phase("critic", critic, self.criticise, optim=optim, scheduled=False, follow=follow),
            Phase("encoder", (self.q, self.pz), self.elbo, optim=optim, scheduled=self.penalty.moves),
            Phase("decoder", (self.p,), self.generate, optim=optim, scheduled=False),
        )

    def criticise(self, batch: Batch, clock: Clock) -> Terms:
        """The loss of the critic, on examples, their reconstructions and samples, with the gradient penalties."""
        c = self.given(batch)
        with torch.no_grad():
            pictures = batch.x, self.observed(self.infer(batch), batch).mean, self.drawn(batch)
            x, rebuilt, drawn = (self.shown(each) for each in pictures)
        real, first, second = (self.critic(each, c) for each in (x, rebuilt, drawn))
        loss = (self.adversary.critic(real, first) + self.adversary.critic(real, second)) / 2
        fake = (first + second) / 2
        parts = {"critic": loss.detach(), "real": real.detach(), "fake": fake.detach()}
        total, scalars, statistics = loss.mean(), {}, {}
        if torch.is_grad_enabled():
            n = max(math.ceil(_PENALISED * len(x)), 2)
            odd = torch.arange(len(x), device=x.device).view(-1, *[1] * (x.dim() - 1)) % 2 == 1
            for name, weight, at in (("r1", self.r1, x), ("r2", self.r2, torch.where(odd, rebuilt, drawn))):
                if weight:
                    penalty = steepness(self.critic, at[:n], None if c is None else c[:n]).mean()
                    total, scalars[name] = total + weight / 2 * penalty, penalty.detach()
            if self.ada:
                scalars["augmented"] = self.ada.p.clone()
                statistics = self.ada.statistics(real, fake)
        return Terms(total, parts, scalars, statistics)

    def elbo(self, batch: Batch, clock: Clock) -> Terms:
        """The loss of the encoder: the reconstruction cost and the rate, from one draw of z each."""
        q = self.posterior(batch)
        z = q.rsample()
        p = self.observed(z, batch)
        distortion = -log_prob(p, batch.x, batch.mask)
        bound, likeness = self._bound_of(q, z, distortion, batch), self.unlikeness(batch.x, p.mean)
        loss = (likeness + self.pixels * distortion + self.penalty(bound, clock)).mean()
        parts = {"feature_distortion": likeness, "distortion": distortion, "rate": bound.rate}
        return Terms(loss, {name: part.detach() for name, part in parts.items()}, self.penalty.scalars(clock))

    def generate(self, batch: Batch, clock: Clock) -> Terms:
        """The loss of the decoder: the reconstruction cost with its weight, and the adversarial loss."""
        with torch.no_grad():
            z = self.infer(batch)
            real = self.critic(self.shown(batch.x), self.given(batch)) if self.adversary.compares else None
        p = self.observed(z, batch)
        cost = self.unlikeness(batch.x, p.mean) - self.pixels * log_prob(p, batch.x, batch.mask)
        fakes = (self.critic(self.shown(made), self.given(batch)) for made in (p.mean, self.drawn(batch)))
        misled = torch.stack([self.adversary.generator(fake, real) for fake in fakes]).mean(0)
        return Terms((self.gamma * cost + misled).mean(), {"cost": cost.detach(), "generator": misled.detach()})

    def unlikeness(self, x: Tensor, made: Tensor) -> Tensor:
        """``(B,)`` feature distortion of reconstructions ``made``, in nats."""
        with torch.no_grad():
            wanted = self.features(x)
        return 0.5 * (wanted - self.features(made)).square().sum(1)

    def features(self, x: Tensor) -> Tensor:
        """``(B, n)`` features of the critic's last hidden layer, with a mean square of 1 for every example."""
        h = at_least_single(self.critic.network.body(x))
        return h / (h.square().mean(1, keepdim=True) + 1e-8).sqrt()

    def observed(self, z: Tensor, batch: Batch) -> Distribution:
        """p(x|z, c) of codes ``(B, latent_dim)``, under the conditions of a batch."""
        return self.observation(z, self.given(batch))

    def drawn(self, batch: Batch) -> Tensor:
        """``(B, *shape)`` decoded draws from the prior, under the conditions of a batch."""
        return self.observed(self.prior().sample((len(batch),)), batch).mean

    def shown(self, x: Tensor) -> Tensor:
        """``(B, *shape)`` as the critic sees it."""
        return x if self.ada is None else self.ada(x)
