"""The generative adversarial network: two players, two phases."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from sandglass.core import Batch, Clock, Latent, Model, Phase, Spec, Stage, Terms
from sandglass.distributions.conditional import Network
from sandglass.errors import ConfigError
from sandglass.models._adversary import OPTIM as OPTIM_2016
from sandglass.models._adversary import Adversary, PairedName, in_range
from sandglass.models._augmentation import Augmentation
from sandglass.models._condition import Given
from sandglass.models._prior import check_trained, prior_of
from sandglass.nets.attention import twice_differentiable
from sandglass.nets.net import Condition, Net
from sandglass.registry import NetOption, PriorOption, ScheduleOption, register, resolve
from sandglass.schedules.weight import Weight

OPTIM: Mapping[str, Any] = {"lr": 5e-4, "betas": (0.0, 0.99)}
"""Optimiser settings with the relativistic loss: the betas of Huang et al. 2024, and a rate for short runs."""

_FOR_PICTURES: Mapping[str, Any] = {"name": "resnet", "width": 16, "norm": "none", "activation": "leaky-relu"}


@register("gan")
@register("hinge-gan", adversary="hinge", r1=1.0, r2=0.0)
@register("conditional-gan", condition="labels")
@register("projection-gan", condition="labels")
class GAN(Model):
    """Generative adversarial network: a generator from noise, and a critic that tells its images from real ones.

    Goodfellow et al. 2014, "Generative Adversarial Networks" (arXiv 1406.2661). The default is the loss of Huang et al.
    2024, "The GAN is dead; long live the GAN! A Modern Baseline GAN" (arXiv 2501.05441): ``relativistic``, with the
    penalties ``r1`` on the gradient at real images (Mescheder, Geiger and Nowozin 2018, "Which Training Methods for
    GANs do actually Converge?", arXiv 1801.04406) and ``r2`` at generated ones, with which it converges locally. The
    losses of 2014 to 2017 are other values of ``adversary``.

    The critic sees pictures through an augmentation whose probability adapts to how well it separates the two kinds,
    which matters on some thousands of pictures or fewer, see :class:`~sandglass.models._augmentation.Augmentation`. The
    samples are those of a moving average of the generator: see the training option ``ema``, here 0.999 by default.

    With a condition c, the generator gets it as input and the critic judges the pair of x and c, by the projection of
    Miyato and Koyama 2018, "cGANs with Projection Discriminator" (arXiv 1802.05637): the score is that of x alone plus
    the product of an embedding of c with the features of x.

    Both networks use Adam, with learning rate 5e-4 and betas (0, 0.99) for the relativistic loss, 2e-4 and (0.5, 0.999)
    for others, unless the run sets a learning rate. The data must have no missing values, by which the critic would
    tell it from samples.

    Args:
        spec: the data.
        latent_dim: size of the noise.
        adversary: ``relativistic``, ``non-saturating``, ``hinge`` or ``least-squares``, see
            :class:`~sandglass.models._adversary.Adversary`.
        r1: weight of the gradient penalty ``r1 / 2 * |grad critic(x)|^2`` at real examples.
        r1_schedule: schedule of that weight.
        r2: weight of the same penalty at generated examples.
        r2_schedule: schedule of that weight.
        penalised: share of every batch for which the penalties are computed; they are most of the cost of an update.
        ada: target of the adaptive augmentation of pictures: how far the critic may separate training examples from
            samples, from 0 (as by chance) to 1 (all), before both are augmented more; 0 for no augmentation.
        minibatch_std: whether the critic also sees how much the features vary over a batch: Karras et al. 2018,
            "Progressive Growing of GANs" (arXiv 1710.10196).
        net: network family of generator and critic; auto is resnet without normalisation for images and mlp for rows.
        prior: the noise.
        condition: ``"labels"`` or the name of a companion; empty for an unconditional model.

    Example:
        >>> model = GAN(Spec((1, 8, 8), "unit"), latent_dim=4, net="mlp")
        >>> [p.name for p in model.phases()], model.sample(3).shape
        (['critic', 'generator'], torch.Size([3, 1, 8, 8]))
    """

    provides = ("decode", "prior")
    earlier = MappingProxyType(
        {"r2": 0.0, "r2_schedule": {"name": "constant"}, "penalised": 1.0, "ada": 0.0, "minibatch_std": False}
    )

    def __init__(
        self,
        spec: Spec,
        *,
        latent_dim: int = 32,
        adversary: PairedName = "relativistic",
        r1: float = 0.1,
        r1_schedule: ScheduleOption = "constant",
        r2: float = 0.1,
        r2_schedule: ScheduleOption = "constant",
        penalised: float = 0.25,
        ada: float = 0.6,
        minibatch_std: bool = False,
        net: NetOption = "auto",
        prior: PriorOption = "standard",
        condition: str = "",
    ) -> None:
        super().__init__()
        if latent_dim < 1:
            raise ConfigError(f"A GAN needs latent_dim >= 1, not {latent_dim}.")
        if not 0 < penalised <= 1:
            raise ConfigError(f"The share of a batch that is penalised must be in (0, 1], not {penalised}.")
        self.pz = prior_of(prior, latent_dim, None)
        check_trained(self.pz, False)
        self.spec, self.latents = spec, (Latent("z", (latent_dim,), getattr(self.pz, "support", "real")),)
        self.adversary, self.penalised = Adversary(adversary, paired=True), penalised
        self.r1, self.r2 = Weight("r1", r1, r1_schedule), Weight("r2", r2, r2_schedule)
        self.given = Given(condition, spec)
        self.needs = ("complete", *self.given.needs)
        nets = resolve("net", net, spec=spec, own=self.defaults(spec)["net"])
        self.generator = Network.decoder(nets, latent_dim, spec.shape, self.given.cond)
        self.critic = Critic(nets, spec.shape, self.given.cond, minibatch_std=minibatch_std)
        # Statistics of a batch need two examples.
        self.least = 2 if any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in self.critic.modules()) else 1
        self.ada = Augmentation(spec, ada) if ada and spec.is_image else None
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # by a third faster in bf16

    @staticmethod
    def defaults(spec: Spec) -> dict[str, Any]:
        """What ``auto`` is for its network; None for the usual choice."""
        return {"net": _FOR_PICTURES if spec.is_image else None}

    def stages(self) -> Sequence[Stage]:
        """One, with a moving average of the weights."""
        return (Stage("train", tuple(self.phases()), ema=0.999),)

    def phases(self) -> Sequence[Phase]:
        """The update of the critic, then that of the generator."""
        optim = OPTIM if self.adversary.compares else OPTIM_2016
        critic = (self.critic, self.ada) if self.ada else (self.critic,)
        moves = self.r1.moves or self.r2.moves
        return (
            Phase("critic", critic, self.criticise, optim=optim, scheduled=moves, follow=self.ada and self.ada.follow),
            Phase("generator", (self.generator,), self.generate, optim=optim, scheduled=False),
        )

    def criticise(self, batch: Batch, clock: Clock) -> Terms:
        """The loss of the critic, on real and generated images, with the gradient penalties."""
        c, x = self.given(batch), self.shown(batch.x)
        with torch.no_grad():
            made = self.shown(self.decode(self.draw(len(x)), batch))
        real, fake = self.critic(x, c), self.critic(made, c)
        loss = self.adversary.critic(real, fake)
        parts = {"critic": loss.detach(), "real": real.detach(), "fake": fake.detach()}
        total, scalars = loss.mean(), self.r1.scalar(clock, "r1_weight") | self.r2.scalar(clock, "r2_weight")
        statistics: Mapping[str, Tensor] = {}
        if torch.is_grad_enabled():
            n = max(math.ceil(self.penalised * len(x)), self.least)
            for name, weight, at in (("r1", self.r1, x), ("r2", self.r2, made)):
                if weight.value > 0:
                    penalty = steepness(self.critic, at[:n], None if c is None else c[:n]).mean()
                    total = total + weight(clock) / 2 * penalty
                    scalars[name] = penalty.detach()
            if self.ada:
                scalars["augmented"] = self.ada.p.clone()
                statistics = self.ada.statistics(real, fake)
        return Terms(total, parts, scalars, statistics)

    def generate(self, batch: Batch, clock: Clock) -> Terms:
        """The loss of the generator."""
        c = self.given(batch)
        fake = self.critic(self.shown(self.decode(self.draw(len(batch)), batch)), c)
        real = None
        if self.adversary.compares:
            with torch.no_grad():
                real = self.critic(self.shown(batch.x), c)
        loss = self.adversary.generator(fake, real)
        return Terms(loss.mean(), {"generator": loss.detach()})

    def shown(self, x: Tensor) -> Tensor:
        """``(B, *shape)`` as the critic sees it."""
        return x if self.ada is None else self.ada(x)

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
        minibatch_std: whether a hidden layer also sees the features with their standard deviation over the batch.

    Example:
        >>> from sandglass.nets.mlp import MLP
        >>> Critic(MLP(widths=(8,)), (2,), cond=3)(torch.zeros(5, 2), torch.eye(3)[[0, 1, 2, 0, 1]]).shape
        torch.Size([5])
    """

    def __init__(self, net: Net, shape: tuple[int, ...], cond: Condition = 0, *, minibatch_std: bool = False) -> None:
        super().__init__()
        self.network: Any = net.encoder(shape, 1)
        size = cond if isinstance(cond, int) else math.prod(cond)
        head: Any = self.network.head
        width = head.in_features if size or minibatch_std else 0
        self.embedding = nn.Linear(size, width, bias=False) if size else None
        self.batch = None
        if minibatch_std:
            self.batch = nn.Sequential(nn.Linear(width + 1, _HIDDEN), nn.LeakyReLU(0.2), nn.Linear(_HIDDEN, 1))

    def forward(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        """``(B,)`` logits of ``(B, *shape)`` under the conditions ``(B, ...)``."""
        if self.embedding is None and self.batch is None:
            return self.network(x).squeeze(-1).to(x.dtype)
        h = self.network.body(x)
        score = self.network.head(h).squeeze(-1)
        if self.batch is not None:
            score = score + self.batch(with_deviation(h)).squeeze(-1)
        if self.embedding is not None and c is not None:
            score = score + (self.embedding(c.flatten(1).to(h.dtype)) * h).sum(1)
        return score.to(x.dtype)


_HIDDEN = 256


def with_deviation(h: Tensor) -> Tensor:
    """``(B, n + 1)``: features ``(B, n)`` joined by their standard deviation over the batch, averaged over features.

    Example:
        >>> with_deviation(torch.tensor([[1.0, 4.0], [3.0, 8.0]]))
        tensor([[1.0000, 4.0000, 1.5000],
                [3.0000, 8.0000, 1.5000]])
    """
    deviation = (h.float().var(0, correction=0) + 1e-8).sqrt().mean().to(h.dtype)
    return torch.cat([h, deviation.expand(len(h), 1)], 1)


def steepness(critic: Critic, x: Tensor, c: Tensor | None) -> Tensor:
    """``(B,)`` squared norms of the gradients of the scores at ``x``, differentiable, in the precision of ``x``."""
    x = x.detach().requires_grad_()
    with torch.autocast(x.device.type, enabled=False), twice_differentiable():
        (slope,) = torch.autograd.grad(critic(x, c).sum(), x, create_graph=True)
    return slope.flatten(1).square().sum(1)
