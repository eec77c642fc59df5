"""Wasserstein autoencoders: a deterministic encoder whose codes are made to follow a prior."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from torch import Tensor
from torch.distributions import Distribution

from sandglass.core import Batch, Clock, Phase, Spec, Stage, Terms
from sandglass.distributions.discrepancy import KERNELS
from sandglass.errors import ConfigError
from sandglass.models._adversary import Adversary, AdversaryName, code_critic
from sandglass.models._aggregate import discrepancy
from sandglass.models._prior import check_trained, prior_of
from sandglass.models.autoencoder import PointAutoencoder
from sandglass.registry import OptionsOf, PriorOption, SamplerOption, register

OPTIM: Mapping[str, Any] = {"lr": 1e-3, "betas": (0.5, 0.999)}
"""Optimiser settings of the critic."""


@register("wae")
@register("aae", divergence="adversarial", weight=1.0)
class WassersteinAutoencoder(PointAutoencoder):
    """Wasserstein autoencoder: an autoencoder whose codes, of all examples together, follow a prior.

    The objective of an example is ``-log p(x|z) + weight * D(q(z), p(z))`` in nats, at its code z. q(z) is the
    distribution of the codes of all examples. Tolstikhin, Bousquet, Gelly and Schoelkopf 2018, "Wasserstein
    Auto-Encoders" (arXiv 1711.01558). The divergence D is one of

    * ``mmd``: the squared maximum mean discrepancy, in its unbiased estimate from a batch of codes and as many draws
      from the prior (WAE-MMD);
    * ``adversarial``: a critic learns to tell draws from the prior from codes, and D is the loss of the encoder that
      has to mislead it (WAE-GAN). It is the adversarial autoencoder of Makhzani, Shlens, Jaitly, Goodfellow and Frey
      2016, "Adversarial Autoencoders" (arXiv 1511.05644).

    The discrepancy is a statistic of a batch, or with ``accumulate`` of each of its shards, or of the part of each
    process, which has at least 2 examples. The encoder gives a point, not a distribution, so there is no evidence bound
    and no log p(x); ``score`` is ``-log p(x|z)`` at the code. A WAE with a Gaussian encoder is ``info-vae`` with
    ``beta=0``.

    Args:
        spec: the data.
        divergence: of the codes and the prior: ``mmd`` or ``adversarial``.
        weight: of the divergence.
        kernel: of the discrepancy, only with divergence=mmd: ``imq`` (inverse multiquadratic) or ``rbf`` (Gaussian).
        adversary: losses of critic and encoder, only with divergence=adversarial: ``non-saturating``, ``hinge`` or
            ``least-squares``, see :class:`~sandglass.models._adversary.Adversary`.
        critic_width: units of a hidden layer of the critic, only with divergence=adversarial.
        critic_depth: its hidden layers, only with divergence=adversarial.
        sampler: of new codes: the prior, or a distribution that is fitted to the codes in a stage after training.
        prior: p(z); with divergence=adversarial one without parameters, which no loss would train.
        autoencoder: options of the autoencoder.

    Raises:
        ConfigError: an invalid value.

    Example:
        >>> model = WassersteinAutoencoder(Spec((6,)), latent_dim=2, divergence="adversarial")
        >>> [phase.name for phase in model.phases()], model.sample(3).shape
        (['critic', 'reconstruction'], torch.Size([3, 6]))
    """

    provides = (*PointAutoencoder.provides, "prior")

    def __init__(
        self,
        spec: Spec,
        *,
        divergence: Literal["mmd", "adversarial"] = "mmd",
        weight: float = 100.0,
        kernel: Literal["imq", "rbf"] = "imq",
        adversary: AdversaryName = "non-saturating",
        critic_width: int = 256,
        critic_depth: int = 3,
        prior: PriorOption = "standard",
        sampler: SamplerOption = "prior",
        **autoencoder: Annotated[Any, OptionsOf(PointAutoencoder)],
    ) -> None:
        super().__init__(spec, sampler=sampler, **autoencoder)
        if divergence not in ("mmd", "adversarial"):
            raise ConfigError(f"The divergence is one of mmd, adversarial, not '{divergence}'.")
        if not 0 <= weight < math.inf:
            raise ConfigError(f"The weight of a divergence must be a finite number of at least 0, not {weight}.")
        if kernel not in KERNELS:
            raise ConfigError(f"The kernel is one of {', '.join(KERNELS)}, not '{kernel}'.")
        self.weight, self.kernel, self.adversary = weight, kernel, Adversary(adversary)
        self.pz = prior_of(prior, self.code_size)
        draws = self.pz().has_rsample  # through which the discrepancy trains it
        check_trained(self.pz, divergence == "mmd" and draws)
        self.critic = code_critic(self.code_size, critic_width, critic_depth) if divergence == "adversarial" else None

    def stages(self) -> Sequence[Stage]:
        """One; with a critic no loss can choose the best weights, so the last ones are kept."""
        phases = tuple(self.phases())
        if self.critic is not None:
            return (Stage("train", phases), *self.sampler_stage())
        own = Stage("train", phases, objective="reconstruction", least=2 if self.weight else 1)
        return (own, *self.sampler_stage())

    def phases(self) -> Sequence[Phase]:
        """The update of the critic, if there is one, then that of encoder and decoder."""
        trained = (self.encoder, self.p, self.pz) if self.critic is None else (self.encoder, self.p)
        reconstruction = Phase("reconstruction", trained, self.reconstruction, scheduled=False)
        if self.critic is None:
            return (reconstruction,)
        return Phase("critic", (self.critic,), self.criticise, scheduled=False, optim=OPTIM), reconstruction

    def reconstruction(self, batch: Batch, clock: Clock) -> Terms:
        """``-log p(x|z)`` and the weighted divergence, averaged over the batch."""
        z = self.encode(batch)
        distortion = self.distortion(z, batch)
        parts, scalars = {"distortion": distortion.detach()}, {}
        if self.critic is None:
            divergence = discrepancy(z, self.prior(), self.kernel)
            scalars["mmd"] = divergence.detach()
        else:
            each = self.adversary.generator(self.critic(z).squeeze(-1))
            divergence, parts["misled"] = each.mean(), each.detach()
        return Terms(distortion.mean() + self.weight * divergence, parts, scalars)

    def criticise(self, batch: Batch, clock: Clock) -> Terms:
        """The loss of the critic, on draws from the prior (real) and codes (fake)."""
        assert self.critic is not None
        z = self.encode(batch).detach()
        real, fake = (self.critic(code).squeeze(-1) for code in (self.prior().sample((len(z),)).to(z.dtype), z))
        loss = self.adversary.critic(real, fake)
        return Terms(loss.mean(), {"critic": loss.detach(), "real": real.detach(), "fake": fake.detach()})

    def prior(self, given: Batch | None = None) -> Distribution:
        """p(z) over ``(latent_dim,)``."""
        return self.pz()

    def draw(self, n: int, given: Batch | None = None) -> Tensor:
        """``(n, latent_dim)`` draws from the sampler, by default the prior."""
        return self.prior(given).sample((n,)) if self.density is None else super().draw(n, given)
