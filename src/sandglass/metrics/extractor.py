"""From examples to features: what every source of features returns, and the option that names one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Protocol

import torch
from torch import Tensor, nn

from sandglass.core import Spec
from sandglass.metrics.evaluation import Evaluation
from sandglass.registry import Kind

FeaturesOption = Annotated[str | Mapping[str, Any], Kind("features")]
"""An option that names a source of features. It is never an object, so that no flag can name a class to import."""

FEW = 64
"""Numbers in a row at most for it to be compared by them as they are where nothing else is said."""


@dataclass(frozen=True)
class Extractor:
    """A network whose output is compared, and what a reader must know of it.

    Args:
        net: ``(B, *shape) -> (B, D)``, in eval mode on the device to work on.
        about: what the features are, for the note of a figure.
        classify: ``(B, D)`` features to ``(B, K)`` log probabilities, None where the network is no classifier.
        classes: what it classifies into, in words.

    Example:
        >>> Extractor(nn.Flatten(), "raw values")(torch.zeros(3, 1, 2, 2)).shape
        torch.Size([3, 4])
    """

    net: nn.Module
    about: str
    classify: Callable[[Tensor], Tensor] | None = None
    classes: str = ""

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        """``(B, *shape)`` examples to ``(B, D)`` features, float64 on the CPU."""
        return self.net(x).cpu().double()  # in this order: not every device has float64


class Features(Protocol):
    """A source of features, registered as kind ``features``."""

    @staticmethod
    def natural(spec: Spec) -> bool:
        """Whether ``"auto"`` chooses this for such data."""
        ...

    def __call__(self, evaluation: Evaluation, device: torch.device) -> Extractor:
        """The extractor for these examples, ready on the device."""
        ...
