"""Probabilities of discrete values: what the likelihoods over pixel levels share."""

from __future__ import annotations

import abc
from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, constraints
from torch.types import _size

from sandglass.core import FigureKind, Spec
from sandglass.distributions.likelihood import Likelihood
from sandglass.errors import ConfigError


class OnLevels(Distribution):
    """A distribution over integers ``k`` seen as ``(k - shift) / scale``; levels ``0 .. top`` on [0, 1] for ``top``.

    ``log_prob`` is of a probability, in nats; values between integers count as the nearest one.

    Args:
        base: with ``log_prob``, ``mean`` and ``sample`` over integers.
        scale: what they are divided by, for all or ``(..., D)`` for each.
        shift: what is subtracted first.

    Example:
        >>> p = OnLevels(torch.distributions.Binomial(4, probs=torch.tensor([0.5])), 4)
        >>> p.mean, p.log_prob(torch.tensor([0.25])).exp()
        (tensor([0.5000]), tensor([0.2500]))
    """

    arg_constraints: ClassVar = {}
    support = constraints.real

    def __init__(self, base: Distribution, scale: float | Tensor, shift: float | Tensor = 0.0) -> None:
        self.base, self.scale, self.shift = base, scale, shift
        super().__init__(base.batch_shape, validate_args=False)

    @property
    def mean(self) -> Tensor:
        """On the scale of the values."""
        return (self.base.mean - self.shift) / self.scale

    def log_prob(self, value: Tensor) -> Tensor:
        """In nats, element by element."""
        return self.base.log_prob((value * self.scale + self.shift).round())

    def sample(self, sample_shape: _size = ()) -> Tensor:
        """Values of draws."""
        return (self.base.sample(torch.Size(sample_shape)) - self.shift) / self.scale


class LevelLikelihood(Likelihood):
    """Every element is one of ``spec.levels`` values; the figure is a probability, so it also gives bits/dim.

    Args:
        spec: the data; images, or anything else in [0, 1] with levels.

    Raises:
        ConfigError: data of any real values.
    """

    per_element: ClassVar[int]
    """Numbers that the decoder puts out for an element."""

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        if spec.support == "real":
            raise ConfigError(
                f"{type(self).__name__} needs values with levels, such as pixels; use gaussian for real ones."
            )
        self.event, self.top = len(spec.shape), spec.levels - 1

    @staticmethod
    def kind(spec: Spec) -> FigureKind:
        """A probability."""
        return "mass"

    @abc.abstractmethod
    def family(self, parameters: Tensor) -> Distribution:
        """``(B, *shape, per_element)`` to an integer distribution over ``(B, *shape)``."""

    def numbers(self) -> int:
        """How many numbers an element takes."""
        return self.per_element

    def channels(self, spec: Spec) -> int:
        """So many for each channel, that channel's together."""
        return spec.shape[0] * self.numbers()

    def forward(self, h: Tensor) -> Distribution:
        """``(B, channels, ...)`` to the distribution."""
        parameters = h.unflatten(1, (h.shape[1] // self.numbers(), self.numbers())).movedim(2, -1)
        return Independent(OnLevels(self.family(parameters), self.top), self.event, validate_args=False)
