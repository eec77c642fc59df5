"""Pix2pix: paired translation from one picture to another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from sandglass.core import Batch, Clock, Model, Phase, Spec, Terms
from sandglass.errors import ConfigError
from sandglass.models._adversary import OPTIM, Adversary, AdversaryName
from sandglass.models._condition import Given, companion_of
from sandglass.models._translator import PatchCritic, Translator, each, error
from sandglass.registry import NetOption, ScheduleOption, register, resolve
from sandglass.schedules.weight import Weight

_NET: Mapping[str, Any] = {"name": "conv", "norm": "instance"}


@register("pix2pix")
class Pix2Pix(Model):
    """Pix2pix: a generator from a source picture to x, trained on pairs, and a critic of patches of both.

    Isola, Zhu, Zhou and Efros 2017, "Image-to-Image Translation with Conditional Adversarial Networks" (arXiv
    1611.07004). The generator is a U-Net and minimises ``adversarial loss + l1 * mean |G(source) - x|``; the critic
    gets the source together with x or G(source) and scores every patch. The dropout in the generator is the paper's
    noise: here it is on in training, and in ``sample`` with ``noise``; otherwise translations are deterministic.

    Both networks use Adam with learning rate 2e-4 and betas (0.5, 0.999) unless the run sets a learning rate. No loss
    of a GAN can choose the best weights, so the last are kept; the L1 error is logged as a part. An example whose
    source is absent is left out of all losses.

    Args:
        spec: the data.
        source: name of the companion that is translated.
        l1: weight of the mean absolute difference to x, in units of x. The paper's 100, for pictures in [-1, 1],
            corresponds to 200 for [0, 1].
        l1_schedule: schedule of that weight.
        adversary: ``non-saturating``, ``hinge`` or ``least-squares``.
        dropout: share of the generator's smallest map that is set to 0.
        net: network family of the generator: conv with instance normalisation, as the paper with its batches of one.
        critic: network family of the critic; its number of stages sets the size of a patch, see
            :class:`~sandglass.models._translator.PatchCritic`.

    Raises:
        ConfigError: the data has no such companion, or an invalid value.

    Example:
        >>> spec = Spec((3, 8, 8), "unit", given={"grey": Spec((1, 8, 8), "unit")})
        >>> model = Pix2Pix(spec, source="grey").eval()
        >>> model.translate(Batch(given={"grey": torch.rand(5, 1, 8, 8)})).shape
        torch.Size([5, 3, 8, 8])
    """

    provides = ("translate",)

    def __init__(
        self,
        spec: Spec,
        *,
        source: str = "source",
        l1: float = 100.0,
        l1_schedule: ScheduleOption = "constant",
        adversary: AdversaryName = "non-saturating",
        dropout: float = 0.5,
        net: NetOption = _NET,
        critic: NetOption = "auto",
    ) -> None:
        super().__init__()
        if source in ("", "labels"):
            raise ConfigError(f"Pix2pix translates from a companion of each example, and '{source}' is none.")
        self.spec, self.given, self.adversary = spec, Given(source, spec), Adversary(adversary)
        self.needs = ("complete", *self.given.needs)
        self.l1 = Weight("l1", l1, l1_schedule)
        nets = [resolve("net", choice, spec=spec) for choice in (net, critic)]
        self.generator = Translator(nets[0], companion_of(spec, source), spec, dropout)
        self.critic = PatchCritic(nets[1], spec, self.given.cond)

    def phases(self) -> Sequence[Phase]:
        """The update of the critic, then that of the generator."""
        return (
            Phase("critic", (self.critic,), self.criticise, optim=OPTIM, scheduled=False),
            Phase("generator", (self.generator,), self.generate, optim=OPTIM, scheduled=self.l1.moves),
        )

    def criticise(self, batch: Batch, clock: Clock) -> Terms:
        """The loss of the critic, on patches of real and generated pairs."""
        source, there = self.source(batch), self.paired(batch)
        with torch.no_grad():
            made = self.generator(source)
        real, fake = self.critic(batch.x, source), self.critic(made, source)
        loss = each(self.adversary.critic(real, fake)) * there
        parts = {"critic": loss, "real": each(real) * there, "fake": each(fake) * there}
        return Terms(loss.mean(), {k: v.detach() for k, v in parts.items()})

    def generate(self, batch: Batch, clock: Clock) -> Terms:
        """The loss of the generator: the adversarial term of its patches and the L1 error."""
        source, there = self.source(batch), self.paired(batch)
        made = self.generator(source)
        fooled = each(self.adversary.generator(self.critic(made, source))) * there
        l1 = error(made, batch.x) * there
        parts = {"adversary": fooled.detach(), "l1": l1.detach()}
        return Terms((fooled + self.l1(clock) * l1).mean(), parts, self.l1.scalar(clock, "l1_weight"))

    def source(self, batch: Batch | None, n: int | None = None) -> Tensor:
        """The sources ``(B, *source shape)`` of a batch.

        Raises:
            ConfigError: there are none, or not ``n``.
        """
        source = self.given(batch, n)
        assert source is not None  # it is always conditional
        return source

    def paired(self, batch: Batch) -> Tensor:
        """``(B,)``, 1 where an example has its source and 0 where that is absent."""
        absent = batch.absent.get(self.given.name)
        return batch.x.new_ones(len(batch.x)) if absent is None else (~absent).to(batch.x.dtype)

    def translate(self, batch: Batch, to: str | None = None) -> Tensor:
        """Pictures ``(B, *shape)`` for the sources of a batch; deterministic in eval mode.

        Args:
            batch: with the sources among its companions; its x is not used.
            to: ``"x"`` or None.

        Raises:
            ConfigError: another target, or no sources.
        """
        if to not in (None, "x"):
            raise ConfigError(f"This model translates '{self.given.name}' to x, not to '{to}'.")
        return self.generator(self.source(batch))

    @torch.no_grad()
    def sample(self, n: int, given: Batch | None = None, *, noise: bool = False) -> Tensor:
        """``(n, *shape)`` translations of the given sources; with ``noise`` the dropout is on, as in the paper."""
        return self.generator(self.source(given, n), noise)
