"""The examples as they are."""

from __future__ import annotations

import torch
from torch import nn

from sandglass.core import Spec
from sandglass.metrics.extractor import FEW, Extractor
from sandglass.metrics.held import Held
from sandglass.registry import register


@register("pixels", kind="features")
class Pixels:
    """The raw values, for rows of few numbers; of pictures they see every shift and no meaning.

    Example:
        >>> from sandglass.data.dataset import Split
        >>> held = Held(split=Split(torch.zeros(3, 2)), spec=Spec((2,)))
        >>> Pixels()(held, torch.device("cpu")).about
        'raw values'
    """

    @staticmethod
    def natural(spec: Spec) -> bool:
        """Whether ``"auto"`` picks this: for rows of at most 64 numbers."""
        return not spec.is_image and spec.size <= FEW

    def __call__(self, held: Held, device: torch.device) -> Extractor:
        """The values, flattened."""
        return Extractor(nn.Flatten(), "raw values")
