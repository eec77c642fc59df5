"""Ramps from one value to another: linear, sigmoid, cosine."""

from __future__ import annotations

import abc
import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from sandglass.registry import register
from sandglass.schedules._checks import check
from sandglass.schedules.schedule import Schedule

_STEEPNESS = 12.0  # the logistic function on [-6, 6], as in the code of Fu et al. 2019


def line(share: Tensor) -> Tensor:
    """``u``, from 0 at ``u = 0`` to 1 at ``u = 1``."""
    return share


def logistic(share: Tensor) -> Tensor:
    """The logistic function of ``12 u - 6``, rescaled to be exactly 0 at ``u = 0`` and 1 at ``u = 1``."""
    return 0.5 + 0.5 * torch.tanh(_STEEPNESS / 4 * (2 * share - 1)) / math.tanh(_STEEPNESS / 4)


def half_cosine(share: Tensor) -> Tensor:
    """``(1 - cos(pi u)) / 2``."""
    return 0.5 - 0.5 * torch.cos(math.pi * share)


SHAPES: Mapping[str, Callable[[Tensor], Tensor]] = {"linear": line, "sigmoid": logistic, "cosine": half_cosine}
"""Ramp functions by name, each from 0 at 0 to 1 at 1."""


class Ramp(Schedule):
    """From ``start`` to ``end`` over ``epochs``, and ``end`` from then on.

    Args:
        epochs: duration.
        start: the initial factor.
        end: the final factor, from ``epochs`` on.
    """

    def __init__(self, *, epochs: float = 10.0, start: float = 0.0, end: float = 1.0) -> None:
        self.epochs = check("epochs", epochs, above=True)
        self.start, self.end = check("start", start), check("end", end)
        self.final = float(end)

    @staticmethod
    @abc.abstractmethod
    def shape(share: Tensor) -> Tensor:
        """Ramp function from 0 at ``share`` 0 to 1 at ``share`` 1."""

    def at(self, t: Tensor) -> Tensor:
        """``start + (end - start) * shape(t / epochs)``."""
        return self.start + (self.end - self.start) * self.shape((t / self.epochs).clamp(max=1))


@register("linear", kind="schedule")
class Linear(Ramp):
    """Linear from start to end over a number of epochs, then constant; a warm-up by default.

    As a weight of the rate it is the deterministic warm-up of Sonderby et al. 2016, "Ladder Variational Autoencoders"
    (arXiv 1602.02282).

    Args:
        epochs: duration.
        start: the initial factor.
        end: the final factor, from ``epochs`` on.

    Example:
        >>> [Linear(epochs=4)(t) for t in (0, 1, 4, 9)]
        [0.0, 0.25, 1.0, 1.0]
    """

    shape = staticmethod(line)


@register("sigmoid", kind="schedule")
class Sigmoid(Ramp):
    """Sigmoid from start to end over a number of epochs, then constant.

    The annealing of Bowman et al. 2016, "Generating Sentences from a Continuous Space" (arXiv 1511.06349), on [-6, 6]
    and rescaled to reach both ends exactly.

    Args:
        epochs: duration.
        start: the initial factor.
        end: the final factor, from ``epochs`` on.

    Example:
        >>> [round(Sigmoid(epochs=4)(t), 4) for t in (0, 1, 2, 4, 9)]
        [0.0, 0.0452, 0.5, 1.0, 1.0]
    """

    shape = staticmethod(logistic)


@register("cosine", kind="schedule")
class Cosine(Ramp):
    """Half a cosine from start to end over a number of epochs, then constant; cosine annealing from 1 to 0.

    For a learning rate, one cycle of Loshchilov and Hutter 2017, "SGDR: Stochastic Gradient Descent with Warm Restarts"
    (arXiv 1608.03983).

    Args:
        epochs: duration.
        start: the initial factor.
        end: the final factor, from ``epochs`` on.

    Example:
        >>> [round(Cosine(epochs=4, start=1, end=0)(t), 4) for t in (0, 1, 2, 4, 9)]
        [1.0, 0.8536, 0.5, 0.0, 0.0]
    """

    shape = staticmethod(half_cosine)
