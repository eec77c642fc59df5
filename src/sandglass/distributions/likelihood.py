"""Base class of likelihoods."""

from __future__ import annotations

import abc
from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn
from torch.distributions import Distribution

from sandglass.core import FigureKind, Spec


class Likelihood(nn.Module, abc.ABC):
    """Maps a network's output to a distribution over ``x``; constructed from a :class:`Spec`."""

    @staticmethod
    def natural(spec: Spec) -> bool:
        """Whether ``"auto"`` selects this for data of this specification."""
        return False

    @staticmethod
    def kind(spec: Spec) -> FigureKind:
        """What ``log_prob`` is of: a ``"density"``, a probability ``"mass"``, or neither.

        Neither are a ``"cross-entropy"`` of grey values and the negative of a ``"cost"`` that nothing normalises.
        """
        return "density"

    @contextmanager
    def at_rest(self) -> Iterator[None]:
        """As in evaluation: a scale that follows the batches of training does not, for densities that none is of."""
        was = self.training
        self.eval()
        try:
            yield
        finally:
            self.train(was)

    @abc.abstractmethod
    def channels(self, spec: Spec) -> int:
        """Number of decoder output channels (or columns, for rows) for this data."""

    @abc.abstractmethod
    def forward(self, h: Tensor) -> Distribution:
        """``(B, channels, ...)`` to a distribution over ``(B, *spec.shape)`` whose event is a whole example."""
