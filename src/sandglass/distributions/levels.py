"""Base classes of likelihoods over discrete levels, such as pixel values."""

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
    """An integer distribution rescaled to ``(k - shift) / scale``; with scale ``top``, levels ``0 .. top`` on [0, 1].

    ``log_prob`` is the log of a probability mass, in nats; values are rounded to the nearest level.

    Args:
        base: an integer distribution with ``log_prob``, ``mean`` and ``sample``.
        scale: divisor, one for all or ``(..., D)``.
        shift: subtracted before the division.

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
        """The mean, rescaled."""
        return (self.base.mean - self.shift) / self.scale

    def log_prob(self, value: Tensor) -> Tensor:
        """In nats, element by element."""
        return self.base.log_prob((value * self.scale + self.shift).round())

    def sample(self, sample_shape: _size = ()) -> Tensor:
        """Rescaled draws."""
        return (self.base.sample(torch.Size(sample_shape)) - self.shift) / self.scale


class LevelLikelihood(Likelihood):
    """Every element takes one of ``spec.levels`` values; a probability mass, so bits/dim are available.

    Args:
        spec: specification of the data: images, or other data in [0, 1] with discrete levels.

    Raises:
        ConfigError: the data is real-valued.
    """

    per_element: ClassVar[int]
    """Decoder outputs per element."""

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        if spec.support == "real":
            raise ConfigError(
                f"{type(self).__name__} needs discrete levels, such as pixel values; use gaussian for real values."
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
        """Decoder outputs per element."""
        return self.per_element

    def channels(self, spec: Spec) -> int:
        """:meth:`numbers` outputs for each channel, grouped by channel."""
        return spec.shape[0] * self.numbers()

    def forward(self, h: Tensor) -> Distribution:
        """``(B, channels, ...)`` to the distribution."""
        parameters = h.unflatten(1, (h.shape[1] // self.numbers(), self.numbers())).movedim(2, -1)
        return Independent(OnLevels(self.family(parameters), self.top), self.event, validate_args=False)
