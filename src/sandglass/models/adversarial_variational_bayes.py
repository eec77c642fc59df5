"""The variational autoencoder whose posterior is implicit: draws without a density."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from sandglass.core import Batch, Bound, Clock, Latent, Phase, Spec, Stage, Terms
from sandglass.distributions.conditional import Network, Observation
from sandglass.distributions.evidence import importance_weighted
from sandglass.distributions.location_scale import scale_from
from sandglass.distributions.observed import log_prob
from sandglass.errors import ConfigError
from sandglass.models._adversary import Adversary
from sandglass.models._condition import Given, Sees
from sandglass.models._latent import LatentModel, sized
from sandglass.models._penalty import RatePenalty
from sandglass.models._prior import check_trained, prior_of
from sandglass.models._sampling import sampling
from sandglass.nets.mlp import MLP
from sandglass.nets.net import Net
from sandglass.registry import (
    LikelihoodOption,
    NetOption,
    PriorOption,
    SamplerOption,
    ScheduleOption,
    register,
    resolve,
)
from sandglass.samplers.sampler import Sampler

OPTIM: Mapping[str, Any] = {"lr": 1e-3, "betas": (0.5, 0.9)}
"""Optimiser settings of the critic."""

_PAIRS = 16  # antithetic pairs of noise from which the moments of a posterior are computed
_SMALLEST = 1e-4  # standard deviation of a posterior
_LARGEST = 100.0  # square of a number of a code as the critic sees it


@register("avb")
class AdversarialVariationalBayes(LatentModel):
    """AVB: a VAE whose posterior is any distribution that a network makes of noise; a critic estimates the rate.

    Mescheder, Nowozin and Geiger 2017, "Adversarial Variational Bayes" (arXiv 1701.04722). A code is ``z = mean(x) +
    scale(x) * (e + g(x, e))`` with normal noise e and a network g, which begins at 0: q(z|x) begins as the Gaussian of
    the VAE, and can take any shape. It has draws but no density, so the log ratio in the rate is the output of a critic
    T that learns, by cross-entropy, to tell draws from q(z|x) from draws of a known distribution r, given x:

    * ``contrast=adaptive``: r is the Gaussian with the mean and variances of q(z|x), and ``log q(z|x) - log p(z)`` is
      estimated by ``T + log r(z|x) - log p(z)``. The critic sees z minus the mean and divided by the scale of r. It is
      the adaptive contrast of the paper: what is left to estimate is small, 0 for a Gaussian.
    * ``contrast=prior``: r is p(z), and T is the estimate.

    The objective of an example is ``distortion + beta * rate`` in nats, from one draw of z and with that estimate.

    **There is no evidence bound in the parts**: a critic that lags behind makes the rate too small, so ``bound`` and
    ``posterior`` are not offered, and ``score`` is an estimate. ``log_prob`` is a true lower bound in expectation, from
    importance-weighted draws of the Gaussian r with the moments of q(z|x), whose density is known; where q(z|x) is far
    from Gaussian it takes more draws. The loss depends on the current critic, so it is not comparable between epochs,
    and the last weights are kept.

    Args:
        spec: the data.
        latent_dim: size of the latent; by default 16 for rows, and for images 8 to 256 by their size.
        contrast: what the critic tells draws of q(z|x) from: ``adaptive`` or ``prior``.
        width: units of the two hidden layers of g and of the critic, and number of features of x that each of them
            gets.
        net: network family of the encoder, the decoder and the critic's view of x; auto is resnet for images and mlp
            for rows.
        likelihood: p(x|z); auto is that of the VAE.
        prior: p(z); with contrast=prior one without parameters, which no loss would train.
        sees: input of the encoder: ``"x"`` or a companion; auto is the damaged copy if there is one.
        masked: whether encoder and critic also get the mask of missing values, which are 0 in their input.
        beta: weight of the estimated rate.
        beta_schedule: schedule of beta.
        sampler: of new codes: the prior, or a distribution that is fitted to the codes in a stage after training.

    Raises:
        ConfigError: an invalid value.

    Example:
        >>> model = AdversarialVariationalBayes(Spec((6,)), latent_dim=2)
        >>> [phase.name for phase in model.phases()], model.infer(Batch(torch.zeros(5, 6))).shape
        (['critic', 'elbo'], torch.Size([5, 2]))
    """

    provides = (
        *("encode", "decode", "reconstruct", "prior", "interpolate"),
        *("log_prob", "score", "embed", "complete"),
    )
    defaults = staticmethod(sized)

    def __init__(
        self,
        spec: Spec,
        *,
        latent_dim: int | None = None,
        contrast: Literal["adaptive", "prior"] = "adaptive",
        width: int = 128,
        net: NetOption = "auto",
        likelihood: LikelihoodOption = "auto",
        prior: PriorOption = "standard",
        sees: str = "auto",
        masked: bool = False,
        beta: float = 1.0,
        beta_schedule: ScheduleOption = "warm-up",
        sampler: SamplerOption = "prior",
    ) -> None:
        super().__init__()
        latent_dim = self.defaults(spec)["latent_dim"] if latent_dim is None else latent_dim
        if latent_dim < 1 or width < 1:
            raise ConfigError(f"AVB needs latent_dim >= 1 and width >= 1, not {latent_dim} and {width}.")
        if contrast not in ("adaptive", "prior"):
            raise ConfigError(f"The contrast is one of adaptive, prior, not '{contrast}'.")
        self.spec, self.latents = spec, (Latent("z", (latent_dim,)),)
        self.given, self.sees = Given("", spec), Sees(sees, spec)
        self.needs, self.masked, self.contrast = self.sees.needs, masked, contrast
        self.penalty = RatePenalty(beta=beta, beta_schedule=beta_schedule)
        nets = resolve("net", net, spec=spec, own=self.defaults(spec)["net"])
        shape = self.sees.spec.shape
        self.encoder = ImplicitEncoder(nets, shape, latent_dim, width, masked)
        self.critic = PairCritic(nets, shape, latent_dim, width, masked)
        self.adversary = Adversary("non-saturating")  # the cross-entropy: its optimum is the log density ratio
        self.p = Observation(nets, latent_dim, spec, resolve("likelihood", likelihood, spec, spec=spec))
        self.pz = prior_of(prior, latent_dim)
        check_trained(self.pz, contrast == "adaptive")
        self.density: Sampler | None = resolve("sampler", sampler, latent_dim)

    def stages(self) -> Sequence[Stage]:
        """One, whose last weights are kept, and that of the sampler."""
        return (Stage("train", tuple(self.phases())), *sampling(self.density, self.infer))

    def phases(self) -> Sequence[Phase]:
        """The update of the critic, then that of encoder, decoder and prior."""
        own = (self.encoder, self.p, self.pz) if isinstance(self.pz, nn.Module) else (self.encoder, self.p)
        return (
            Phase("critic", (self.critic,), self.criticise, scheduled=False, optim=OPTIM),
            Phase("elbo", own, self.elbo, scheduled=self.penalty.moves),
        )

    def elbo(self, batch: Batch, clock: Clock) -> Terms:
        """``distortion + beta * rate`` with the estimated rate: the batch mean, one draw of z each."""
        bound = self.estimate(batch)
        loss = (bound.distortion + self.penalty(bound, clock)).mean()
        parts = {"distortion": bound.distortion.detach(), "rate": bound.rate.detach()}
        return Terms(loss, parts, self.penalty.scalars(clock))

    def criticise(self, batch: Batch, clock: Clock) -> Terms:
        """The cross-entropy of the critic between draws from q(z|x) and from the known distribution r."""
        with torch.no_grad():
            q = self.inferred(batch)
            r, z = self.contrasted(q), q.draw()
            other = r.sample() if self.contrast == "adaptive" else r.sample((len(z),)).to(z.dtype)
        real, fake = (self.ratio(batch, r, each) for each in (z, other))
        loss = self.adversary.critic(real, fake)
        return Terms(loss.mean(), {"critic": loss.detach(), "real": real.detach(), "fake": fake.detach()})

    def estimate(self, batch: Batch) -> Bound:
        """Distortion and estimated rate, from one draw of z an example: near a bound, but none."""
        q = self.inferred(batch)
        r, z = self.contrasted(q), q.draw()
        rate = self.ratio(batch, r, z)
        if self.contrast == "adaptive":
            rate = rate + r.log_prob(z) - self.prior().log_prob(z)
        return Bound({"x": -log_prob(self.p(z), batch.x, batch.mask)}, {"z": rate})

    def inferred(self, batch: Batch) -> Implicit:
        """q(z|x)."""
        encoded: Implicit = self.encoder(self.sees(batch), batch.mask if self.masked else None)
        return encoded

    def contrasted(self, q: Implicit) -> Distribution:
        """The known distribution r, through which no gradient flows."""
        return q.gaussian() if self.contrast == "adaptive" else self.prior()

    def ratio(self, batch: Batch, r: Distribution, z: Tensor) -> Tensor:
        """``(B,)`` estimates of log q(z|x) - log r(z), in nats."""
        z = (z - r.mean) / r.stddev if self.contrast == "adaptive" else z
        return self.critic(self.sees(batch), z, batch.mask if self.masked else None)

    def log_prob(self, batch: Batch, k: int = 1) -> Tensor:
        """``(B,)`` lower bound on log p(x) in nats, in expectation, that rises to log p(x) with ``k`` draws.

        The draws are from the Gaussian with the moments of q(z|x), with their importance weights: Burda, Grosse and
        Salakhutdinov 2016, "Importance Weighted Autoencoders" (arXiv 1509.00519). Missing values are left out.
        """
        r = self.inferred(batch).gaussian()
        return importance_weighted(r, self.prior(), self.p, batch.x, k, batch.mask, size=self.p.size)

    def score(self, batch: Batch) -> Tensor:
        """``(B,)`` how unusual each example is: distortion and estimated rate in nats, from one draw."""
        return -self.estimate(batch).elbo

    def prior(self, given: Batch | None = None) -> Distribution:
        """p(z) over ``(latent_dim,)``."""
        return self.pz()

    def encode(self, batch: Batch) -> Tensor:
        """``(B, latent_dim)`` posterior means, from fixed noise; the same for the same examples."""
        return self.inferred(batch).gaussian().mean

    def infer(self, batch: Batch) -> Tensor:
        """``(B, latent_dim)`` draws from the posterior."""
        return self.inferred(batch).draw()

    def draw(self, n: int, given: Batch | None = None) -> Tensor:
        """``(n, latent_dim)`` draws from the sampler, by default the prior."""
        return self.prior(given).sample((n,)) if self.density is None else self.density.sample(n)


@dataclass(frozen=True)
class Implicit:
    """q(z|x) of some examples, from which can be drawn: ``center + scale * (e + g(features, e))`` of normal noise e.

    Args:
        center: ``(B, dim)``.
        scale: ``(B, dim)``.
        features: ``(B, width)``.
        g: ``(n, width + dim) -> (n, dim)``.
        noise: ``(n, dim)`` fixed noise for its moments.
    """

    center: Tensor
    scale: Tensor
    features: Tensor
    g: Callable[[Tensor], Tensor]
    noise: Tensor

    def draw(self) -> Tensor:
        """``(B, dim)`` draws, one an example."""
        return self._of(torch.randn_like(self.center)[:, None])[:, 0]

    @torch.no_grad()
    def gaussian(self) -> Distribution:
        """The Gaussian with its mean and variances, without a gradient: always the same, from the fixed noise."""
        z = self._of(self.noise.expand(len(self.center), *self.noise.shape))
        scale = z.std(1, correction=0).clamp(min=_SMALLEST)
        return Independent(Normal(z.mean(1), scale, validate_args=False), 1, validate_args=False)

    def _of(self, noise: Tensor) -> Tensor:
        """``(B, n, dim)`` codes of noise ``(B, n, dim)``."""
        joined = torch.cat([self.features[:, None].expand(-1, noise.shape[1], -1), noise], -1)
        bent = self.g(joined.flatten(0, 1)).unflatten(0, joined.shape[:2])
        return self.center[:, None] + self.scale[:, None] * (noise + bent)


class ImplicitEncoder(nn.Module):
    """q(z|x) that begins as a Gaussian, see :class:`Implicit`.

    Args:
        net: the family of its network.
        shape: of the input.
        dim: size of the latent.
        width: features of x, and units of the hidden layers of g.
        masked: whether a mask of missing values is an input.

    Example:
        >>> from sandglass.nets.mlp import MLP
        >>> q = ImplicitEncoder(MLP(widths=(8,)), (6,), 2, 4)(torch.zeros(5, 6))
        >>> q.draw().shape, q.gaussian().mean.shape
        (torch.Size([5, 2]), torch.Size([5, 2]))
    """

    noise: Tensor

    def __init__(self, net: Net, shape: tuple[int, ...], dim: int, width: int, masked: bool = False) -> None:
        super().__init__()
        self.sizes = (dim, dim, width)
        self.trunk = Network.encoder(net, shape, 2 * dim + width, masked=masked)
        self.g = Network.encoder(MLP(widths=(width, width), activation="silu"), (width + dim,), dim)
        last: Any = self.g.module
        nn.init.zeros_(last.head.weight)
        nn.init.zeros_(last.head.bias)
        with torch.device("cpu"):  # arithmetic on the device meta imports a compiler
            half = torch.randn(_PAIRS, dim)
            noise = torch.cat([half, -half]) / half.square().mean(0).sqrt()
        self.register_buffer("noise", noise.to(torch.get_default_device()))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Implicit:
        """q(z|x) of examples ``(B, *shape)``."""
        center, log_variance, features = self.trunk(x, mask=mask).split(self.sizes, 1)
        return Implicit(center, scale_from(0.5 * log_variance), features, self.g, self.noise.to(center.dtype))


class PairCritic(nn.Module):
    """The score of an example and a code together.

    Args:
        net: the family of the network that sees the example.
        shape: of an example.
        dim: size of the code.
        width: features of x, and units of the hidden layers.
        masked: whether a mask of missing values is an input.

    Example:
        >>> from sandglass.nets.mlp import MLP
        >>> PairCritic(MLP(widths=(8,)), (6,), 2, 4)(torch.zeros(5, 6), torch.zeros(5, 2)).shape
        torch.Size([5])
    """

    def __init__(self, net: Net, shape: tuple[int, ...], dim: int, width: int, masked: bool = False) -> None:
        super().__init__()
        self.trunk = Network.encoder(net, shape, width, masked=masked)
        self.head = Network.encoder(MLP(widths=(width, width), activation="silu"), (width + 2 * dim,), 1)

    def forward(self, x: Tensor, z: Tensor, mask: Tensor | None = None) -> Tensor:
        """``(B,)`` scores of examples ``(B, *shape)`` with codes ``(B, dim)``; squares of codes are inputs, too."""
        features = self.trunk(x, mask=mask)
        squares = z.square().clamp(max=_LARGEST)
        score: Tensor = self.head(torch.cat([features, z, squares], -1)).squeeze(-1)
        return score
