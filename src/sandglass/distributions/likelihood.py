"""What every likelihood offers."""

from __future__ import annotations

import abc

from torch import Tensor, nn
from torch.distributions import Distribution

from sandglass.core import FigureKind, Spec


class Likelihood(nn.Module, abc.ABC):
    """How a network's output becomes a distribution over ``x``; made from a :class:`Spec`."""

    @staticmethod
    def natural(spec: Spec) -> bool:
        """Whether this is what ``"auto"`` stands for with such data."""
        return False

    @staticmethod
    def kind(spec: Spec) -> FigureKind:
        """What its figure is of: a ``"density"``, a probability (``"mass"``), or neither (``"cross-entropy"``)."""
        return "density"

    @abc.abstractmethod
    def channels(self, spec: Spec) -> int:
        """Channels (or columns, for a row) that the decoder must put out for this data."""

    @abc.abstractmethod
    def forward(self, h: Tensor) -> Distribution:
        """``(B, channels, ...)`` to a distribution over ``(B, *spec.shape)``, the event being the whole example."""
