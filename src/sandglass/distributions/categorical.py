"""The categorical likelihood over levels."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Categorical as TorchCategorical
from torch.distributions import Distribution

from sandglass.distributions.levels import LevelLikelihood
from sandglass.registry import register


class Choice(TorchCategorical):
    """PyTorch's categorical with the mean of its category indices."""

    @property
    def mean(self) -> Tensor:
        """Expected index."""
        return (self.probs * torch.arange(self.probs.shape[-1], device=self.probs.device)).sum(-1)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log probability of integer indices of any dtype."""
        result: Tensor = super().log_prob(value.long())
        return result


@register("cce", kind="likelihood")
@register("categorical", kind="likelihood")
class Categorical(LevelLikelihood):
    """Independent categorical distributions over the levels: the categorical cross-entropy.

    Van den Oord, Kalchbrenner and Kavukcuoglu 2016, "Pixel Recurrent Neural Networks" (arXiv 1601.06759). The decoder
    has ``levels`` outputs per element: 256 for bytes, which is memory-intensive, and 17 for scikit-learn's digits.

    Args:
        spec: specification of the data.

    Example:
        >>> from sandglass.core import Spec
        >>> p = Categorical(Spec((1, 2, 2), "unit", levels=17))(torch.zeros(3, 17, 2, 2))
        >>> round(float(p.log_prob(torch.zeros(3, 1, 2, 2))[0]), 4)  # -4 ln 17
        -11.3329
    """

    def numbers(self) -> int:
        """One logit per level."""
        return self.top + 1

    def family(self, parameters: Tensor) -> Distribution:
        """Categorical."""
        return Choice(logits=parameters, validate_args=False)
