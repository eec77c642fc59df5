"""Raw values as features."""

from __future__ import annotations

import torch
from torch import nn

from sandglass.core import Spec
from sandglass.metrics.evaluation import Evaluation
from sandglass.metrics.extractor import FEW, Extractor
from sandglass.registry import register


@register("pixels", kind="features")
class Pixels:
    """The raw values, for short rows; on images they react to small shifts and ignore content.

    Example:
        >>> from sandglass.data.dataset import Split
        >>> evaluation = Evaluation(split=Split(torch.zeros(3, 2)), spec=Spec((2,)))
        >>> Pixels()(evaluation, torch.device("cpu")).about
        'raw values'
    """

    @staticmethod
    def natural(spec: Spec) -> bool:
        """Whether ``"auto"`` selects this: for rows of at most 64 values."""
        return not spec.is_image and spec.size <= FEW

    def __call__(self, evaluation: Evaluation, device: torch.device) -> Extractor:
        """The values, flattened."""
        return Extractor(nn.Flatten(), "raw values")
