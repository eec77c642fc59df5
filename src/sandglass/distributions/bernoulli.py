"""The Bernoulli likelihood, and the cross-entropy it makes of grey values."""

from __future__ import annotations

from torch import Tensor
from torch.distributions import Bernoulli as _Bernoulli
from torch.distributions import Distribution, Independent

from sandglass.core import Likelihood, Spec
from sandglass.registry import register


@register("bernoulli", kind="likelihood")
class Bernoulli(Likelihood):
    """Each element is 0 or 1 with a probability; grey values in [0, 1] enter as soft targets (binary cross-entropy).

    With grey values the figure is a cross-entropy in nats and not a density's likelihood: it compares only with
    other figures made in the same way.

    Args:
        spec: the data; its values must lie in [0, 1].

    Example:
        >>> import torch
        >>> p = Bernoulli(Spec((1, 2, 2), "unit"))(torch.zeros(3, 1, 2, 2))
        >>> round(float(p.log_prob(torch.full((3, 1, 2, 2), 0.5))[0]), 4)  # 4 ln(1/2)
        -2.7726
    """

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        self.event = len(spec.shape)

    @staticmethod
    def natural(spec: Spec) -> bool:
        """Whether ``"auto"`` picks this: for values in [0, 1]."""
        return spec.support != "real"

    def channels(self, spec: Spec) -> int:
        """One logit an element."""
        return spec.shape[0]

    def forward(self, h: Tensor) -> Distribution:
        """Logits ``(B, *shape)`` to the distribution."""
        return Independent(_Bernoulli(logits=h, validate_args=False), self.event, validate_args=False)
