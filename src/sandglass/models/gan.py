"""The generative adversarial network: two players, two phases."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from sandglass.core import Batch, Clock, Latent, Model, Phase, Spec, Terms
from sandglass.distributions.conditional import Network
from sandglass.errors import ConfigError
from sandglass.models._adversary import OPTIM, Adversary, AdversaryName, in_range
from sandglass.models._condition import Given
from sandglass.nets.attention import twice_differentiable
from sandglass.nets.net import Condition, Net
from sandglass.registry import NetOption, PriorOption, ScheduleOption, register, resolve
from sandglass.schedules.weight import Weight


@register("gan")
@register("hinge-gan", adversary="hinge")
@register("conditional-gan", condition="labels")
@register("projection-gan", condition="labels")
class GAN(Model):
    """Generative adversarial network: a generator from noise, and a critic that tells its images from real ones.

    Goodfellow et al. 2014, "Generative Adversarial Networks" (arXiv 1406.2661), with its non-saturating generator loss;
    ``hinge`` is Lim and Ye 2017, "Geometric GAN" (arXiv 1705.02894), and ``least-squares`` Mao et al. 2017 (arXiv
    1611.04076); ``r1`` is the gradient penalty on real images of Mescheder, Geiger and Nowozin 2018, "Which Training
    Methods for GANs do actually Converge?" (arXiv 1801.04406).

    With a condition c, the generator gets it as input and the critic judges the pair of x and c, by the projection of
    Miyato and Koyama 2018, "cGANs with Projection Discriminator" (arXiv 1802.05637): the score is that of x alone plus
    the product of an embedding of c with the features of x.

    Both networks use Adam with learning rate 2e-4 and betas (0.5, 0.999) unless the run sets a learning rate. The data
    must have no missing values, by which the critic would tell it from samples.

    Args:
        spec: the data.
        latent_dim: size of the noise.
        adversary: ``non-saturating``, ``hinge`` or ``least-squares``, see
            :class:`~sandglass.models._adversary.Adversary`.
        r1: weight of the gradient penalty ``r1 / 2 * |grad critic(x)|^2``; 0 is the form of 2014, which collapses.
        r1_schedule: schedule of that weight.
        net: network family of generator and critic; auto is conv for images and mlp for rows.
        prior: the noise.
        condition: ``"labels"`` or the name of a companion; empty for an unconditional model.

    Example:
        >>> model = GAN(Spec((1, 8, 8), "unit"), latent_dim=4, net="mlp")
        >>> [p.name for p in model.phases()], model.sample(3).shape
        (['critic', 'generator'], torch.Size([3, 1, 8, 8]))
    """

    provides = ("decode", "prior")

    def __init__(
        self,
        spec: Spec,
        *,
        latent_dim: int = 32,
        adversary: AdversaryName = "non-saturating",
        r1: float = 1.0,
        r1_schedule: ScheduleOption = "constant",
        net: NetOption = "auto",
        prior: PriorOption = "standard",
        condition: str = "",
    ) -> None:
        super().__init__()
        if latent_dim < 1:
            raise ConfigError(f"A GAN needs latent_dim >= 1, not {latent_dim}.")
        self.spec, self.latents, self.adversary = spec, (Latent("z", (latent_dim,)),), Adversary(adversary)
        self.r1 = Weight("r1", r1, r1_schedule)
        self.given = Given(condition, spec)
        self.needs = ("complete", *self.given.needs)
        nets = resolve("net", net, spec=spec)
        self.generator = Network.decoder(nets, latent_dim, spec.shape, self.given.cond)
        self.critic = Critic(nets, spec.shape, self.given.cond)
        self.pz = resolve("prior", prior, latent_dim)

    def phases(self) -> Sequence[Phase]:
        """The update of the critic, then that of the generator."""
        return (
            Phase("critic", (self.critic,), self.criticise, optim=OPTIM, scheduled=self.r1.moves),
            Phase("generator", (self.generator,), self.generate, optim=OPTIM, scheduled=False),
        )

    def criticise(self, batch: Batch, clock: Clock) -> Terms:
        """The loss of the critic, on real and generated images, with the gradient penalty."""
        x, c = batch.x.detach().requires_grad_(self.r1.value > 0 and torch.is_grad_enabled()), self.given(batch)
        fake = self.critic(self.decode(self.draw(len(x)), batch).detach(), c)
        with twice_differentiable() if x.requires_grad else nullcontext():
            real = self.critic(x, c)
        loss = self.adversary.critic(real, fake)
        parts = {"critic": loss.detach(), "real": real.detach(), "fake": fake.detach()}
        if x.requires_grad:
            (slope,) = torch.autograd.grad(real.sum(), x, create_graph=True)
            penalty = slope.flatten(1).square().sum(1)
            loss = loss + self.r1(clock) / 2 * penalty
            parts["r1"] = penalty.detach()
        return Terms(loss.mean(), parts, self.r1.scalar(clock, "r1_weight"))

    def generate(self, batch: Batch, clock: Clock) -> Terms:
        """The loss of the generator."""
        fake = self.critic(self.decode(self.draw(len(batch)), batch), self.given(batch))
        loss = self.adversary.generator(fake)
        return Terms(loss.mean(), {"generator": loss.detach()})

    def prior(self, given: Batch | None = None) -> Distribution:
        """p(z) over ``(latent_dim,)``."""
        return self.pz()

    def draw(self, n: int) -> Tensor:
        """``(n, latent_dim)`` noise."""
        return self.prior().sample((n,))

    def decode(self, code: Tensor, given: Batch | None = None) -> Tensor:
        """``(B, latent_dim)`` noise to ``(B, *shape)``, in [0, 1] where the data is."""
        return in_range(self.generator(code, self.given(given, code.shape[0])).to(code.dtype), self.spec)

    @torch.no_grad()
    def sample(self, n: int, given: Batch | None = None, *, noise: bool = False) -> Tensor:
        """``(n, *shape)`` generated examples; ``noise`` changes nothing."""
        return self.decode(self.draw(n), given)


class Critic(nn.Module):
    """The logit of being real, of an example or of an example and its condition together.

    Args:
        net: the family of its network.
        shape: of an example.
        cond: of the condition.

    Example:
        >>> from sandglass.nets.mlp import MLP
        >>> Critic(MLP(widths=(8,)), (2,), cond=3)(torch.zeros(5, 2), torch.eye(3)[[0, 1, 2, 0, 1]]).shape
        torch.Size([5])
    """

    def __init__(self, net: Net, shape: tuple[int, ...], cond: Condition = 0) -> None:
        super().__init__()
        self.network: Any = net.encoder(shape, 1)
        size = cond if isinstance(cond, int) else math.prod(cond)
        width = self.network.head.in_features if size else 0  # type: ignore[union-attr]
        self.embedding = nn.Linear(size, width, bias=False) if size else None  # type: ignore[arg-type]

    def forward(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        """``(B,)`` logits of ``(B, *shape)`` under the conditions ``(B, ...)``."""
        if self.embedding is None or c is None:
            return self.network(x).squeeze(-1).to(x.dtype)
        h = self.network.body(x)
        match = (self.embedding(c.flatten(1).to(h.dtype)) * h).sum(1)
        return (self.network.head(h).squeeze(-1) + match).to(x.dtype)
