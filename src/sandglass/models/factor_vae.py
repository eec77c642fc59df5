"""The variational autoencoder whose total correlation is estimated by a critic."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import torch
from torch import Tensor

from sandglass.core import Batch, Clock, Phase, Spec, Stage, Terms
from sandglass.errors import ConfigError
from sandglass.models._adversary import Adversary, code_critic
from sandglass.models._base_vae import BaseVAE
from sandglass.models.vae import VAE
from sandglass.registry import OptionsOf, register

OPTIM: Mapping[str, Any] = {"lr": 1e-3, "betas": (0.5, 0.9)}
"""Optimiser settings of the critic: the betas of Kim and Mnih 2018, and a rate for short runs; theirs is 1e-4."""


@register("factor-vae")
class FactorVAE(BaseVAE):
    """FactorVAE: a VAE with a penalty on the total correlation of its codes, which a critic estimates.

    Kim and Mnih 2018, "Disentangling by Factorising" (arXiv 1802.05983). The objective of an example is ``distortion +
    beta * rate + gamma * T(z)`` in nats. The critic T learns, by cross-entropy, to tell draws from q(z), the mean of
    q(z|x) over the examples, from draws of the product of its marginals: codes of a batch, each of whose dimensions is
    permuted over the batch. At its optimum ``T(z) = log q(z) - sum_j log q(z_j)``, whose mean is the total correlation.

    The bound and log_prob are those of the VAE: the plain evidence bound with beta = 1. The loss depends on the current
    critic, so it is not comparable between epochs, and the last weights are kept. Dimensions are permuted over a batch,
    or with ``accumulate`` over each of its shards, or over the part of each process: at least 2 examples. A capacity or
    free bits replace the rate alone.

    Args:
        spec: the data.
        gamma: weight of the total correlation, in addition to its weight in the rate.
        critic_width: units of a hidden layer of the critic.
        critic_depth: its hidden layers.
        vae: options of the VAE.

    Raises:
        ConfigError: an invalid value.

    Example:
        >>> model = FactorVAE(Spec((6,)), latent_dim=2)
        >>> [phase.name for phase in model.phases()], sorted(model.elbo(Batch(torch.randn(5, 6)), Clock()).parts)
        (['elbo', 'critic'], ['distortion', 'rate', 'total_correlation'])
    """

    def __init__(
        self,
        spec: Spec,
        *,
        gamma: float = 10.0,
        critic_width: int = 256,
        critic_depth: int = 3,
        **vae: Annotated[Any, OptionsOf(VAE)],
    ) -> None:
        super().__init__(spec, **vae)
        if not 0 <= gamma < math.inf:
            raise ConfigError(f"The weight gamma must be a finite number of at least 0, not {gamma}.")
        if self.q.family.support != "real":
            raise ConfigError("Permuted codes are codes only where they are real numbers: choose another posterior.")
        self.gamma, self.adversary = gamma, Adversary("non-saturating")  # the cross-entropy: its optimum is the ratio
        self.critic = code_critic(self.code_size, critic_width, critic_depth)

    def stages(self) -> Sequence[Stage]:
        """One, whose last weights are kept, and that of the sampler."""
        return (self.begun(Stage("train", tuple(self.phases()), least=2)), *self.sampler_stage())

    def phases(self) -> Sequence[Phase]:
        """The update of the VAE, then that of the critic, as in the paper."""
        return (
            Phase("elbo", (self.q, self.p, self.pz), self.elbo, scheduled=self.penalty.moves),
            Phase("critic", (self.critic,), self.criticise, scheduled=False, optim=OPTIM),
        )

    def elbo(self, batch: Batch, clock: Clock) -> Terms:
        """The VAE's objective and ``gamma`` times the estimated total correlation, one draw of z each."""
        _, z, bound = self.inferred(batch)
        ratio = self.critic(z).squeeze(-1)
        loss = (bound.distortion + self.penalty(bound, clock) + self.gamma * ratio).mean()
        parts = {"distortion": bound.distortion, "rate": bound.rate, "total_correlation": ratio}
        return Terms(loss, {name: part.detach() for name, part in parts.items()}, self.penalty.scalars(clock))

    def criticise(self, batch: Batch, clock: Clock) -> Terms:
        """The cross-entropy of the critic between codes and codes with permuted dimensions."""
        with torch.no_grad():
            z = self.infer(batch)
        joint, product = self.critic(z).squeeze(-1), self.critic(permuted(z)).squeeze(-1)
        loss = self.adversary.critic(joint, product)
        return Terms(loss.mean(), {"critic": loss.detach(), "joint": joint.detach(), "product": product.detach()})


def permuted(z: Tensor) -> Tensor:
    """``(B, dim)`` codes each of whose dimensions is permuted over the batch on its own; its values stay.

    Example:
        >>> z = torch.tensor([[0.0, 10.0], [1.0, 11.0], [2.0, 12.0]])
        >>> sorted(permuted(z)[:, 1].tolist())
        [10.0, 11.0, 12.0]
    """
    return z.gather(0, torch.rand(z.shape, device=z.device).argsort(0))
