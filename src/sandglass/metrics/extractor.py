"""Feature extractors: what each one returns, and the option that selects one."""

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
"""Option that names a feature extractor. It is never an object, so that no flag can name a class to import."""

FEW = 64
"""Rows of at most this many values are compared by their raw values by default."""


@dataclass(frozen=True)
class Extractor:
    """A feature network and its description.

    Args:
        net: ``(B, *shape) -> (B, D)``, or D features of content and T of texture, in eval mode on the device to compute
            on.
        about: description of the features, for the note of a figure.
        classify: ``(B, D)`` features to ``(B, K)`` log probabilities, None where the network is no classifier.
        classes: description of the classes.
        content: the number D of features of content; None where all are.
        labels: whether the classes are those of the data.

    Example:
        >>> Extractor(nn.Flatten(), "raw values")(torch.zeros(3, 1, 2, 2)).shape
        torch.Size([3, 4])
    """

    net: nn.Module
    about: str
    classify: Callable[[Tensor], Tensor] | None = None
    classes: str = ""
    content: int | None = None
    labels: bool = False

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        """``(B, *shape)`` examples to features, float64 on the CPU: of content, then of texture if there are any."""
        return self.net(x).cpu().double()  # to the CPU first: not every device supports float64


class Features(Protocol):
    """A feature extractor factory, registered as kind ``features``."""

    @staticmethod
    def natural(spec: Spec) -> bool:
        """Whether ``"auto"`` selects this for data of this specification."""
        ...

    def __call__(self, evaluation: Evaluation, device: torch.device) -> Extractor:
        """The extractor for these examples, ready on the device."""
        ...
