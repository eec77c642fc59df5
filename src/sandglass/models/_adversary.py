"""What all models with a critic share: adversarial losses and optimiser settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from sandglass.core import Spec
from sandglass.distributions.conditional import Network
from sandglass.errors import ConfigError
from sandglass.nets.mlp import MLP

AdversaryName = Literal["non-saturating", "hinge", "least-squares"]
"""The losses in which an example is judged alone."""

PairedName = Literal["relativistic", "non-saturating", "hinge", "least-squares"]
"""All losses; the relativistic one judges pairs of a real and a generated example."""

OPTIM: Mapping[str, Any] = {"lr": 2e-4, "betas": (0.5, 0.999)}
"""Optimiser settings of critic and generator: Radford, Metz and Chintala 2016 (arXiv 1511.06434)."""


class Adversary:
    """The losses of critic and generator, elementwise in the scores of the critic.

    ``non-saturating`` is cross-entropy with the generator's loss ``-log D``: Goodfellow et al. 2014, "Generative
    Adversarial Networks" (arXiv 1406.2661). ``hinge`` is Lim and Ye 2017, "Geometric GAN" (arXiv 1705.02894).
    ``least-squares`` is Mao et al. 2017, "Least Squares Generative Adversarial Networks" (arXiv 1611.04076), with
    targets 1 for real and 0 for generated. ``relativistic`` is Jolicoeur-Martineau 2019, "The relativistic
    discriminator: a key element missing from standard GAN" (arXiv 1807.00734), cross-entropy in the difference of the
    scores of a real and a generated example: no generated example can be lost without the real one beside it, which is
    why modes are not dropped (Sun, Fang and Schwing 2020, "Towards a Better Global Loss Landscape of GANs", arXiv
    2011.04926).

    Args:
        name: one of these.
        paired: whether the scores of real and generated examples come in pairs, which ``relativistic`` requires.

    Raises:
        ConfigError: another name.

    Example:
        >>> adversary = Adversary("hinge")
        >>> adversary.critic(torch.tensor([2.0]), torch.tensor([0.5])), adversary.generator(torch.tensor([0.5]))
        (tensor([1.5000]), tensor([-0.5000]))
    """

    def __init__(self, name: str, *, paired: bool = False) -> None:
        known = get_args(PairedName if paired else AdversaryName)
        if name not in known:
            raise ConfigError(f"The adversary is one of {', '.join(known)}, not '{name}'.")
        self.name = name

    @property
    def compares(self) -> bool:
        """Whether the loss of the generator depends on the scores of real examples."""
        return self.name == "relativistic"

    def critic(self, real: Tensor, fake: Tensor) -> Tensor:
        """The loss of the critic, from the scores of real and generated examples."""
        if self.name == "relativistic":
            return F.softplus(fake - real)
        if self.name == "hinge":
            return F.relu(1 - real) + F.relu(1 + fake)
        if self.name == "least-squares":
            return (1 - real).square() + fake.square()
        return F.softplus(-real) + F.softplus(fake)

    def generator(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        """The loss of the generator, from the scores of its examples, and where :attr:`compares` of the real ones."""
        if self.name == "relativistic":
            assert real is not None
            return F.softplus(real - fake)
        if self.name == "hinge":
            return -fake
        return (1 - fake).square() if self.name == "least-squares" else F.softplus(-fake)


def in_range(h: Tensor, spec: Spec) -> Tensor:
    """Maps the output of a generator to the range of the data: a sigmoid, unless the data is real-valued.

    Example:
        >>> in_range(torch.zeros(1, 2), Spec((2,), "unit"))
        tensor([[0.5000, 0.5000]])
    """
    return h if spec.support == "real" else torch.sigmoid(h)


def code_critic(dim: int, width: int, depth: int) -> Network:
    """The score of a code: ``(B, dim)`` to ``(B, 1)``, by ``depth`` fully connected layers of ``width`` units.

    Raises:
        ConfigError: a width or depth below 1.
    """
    if width < 1 or depth < 1:
        raise ConfigError(f"A critic of codes needs critic_width and critic_depth >= 1, not {width} and {depth}.")
    return Network.encoder(MLP(widths=(width,) * depth, activation="leaky-relu"), (dim,), 1)
