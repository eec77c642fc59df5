"""The Bernoulli likelihood, a binary cross-entropy for grey values."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Bernoulli as TorchBernoulli
from torch.distributions import Distribution, Independent

from sandglass.core import FigureKind, Spec
from sandglass.distributions.likelihood import Likelihood
from sandglass.errors import ConfigError
from sandglass.registry import register


@register("bce", kind="likelihood")
@register("bernoulli", kind="likelihood")
class Bernoulli(Likelihood):
    """Independent Bernoulli variables; grey values in [0, 1] are soft targets (binary cross-entropy).

    With grey values the figure is a cross-entropy in nats, not a log-likelihood: it is comparable with other
    cross-entropies only.

    Args:
        spec: specification of the data, whose values must lie in [0, 1].

    Raises:
        ConfigError: the data is real-valued.

    Example:
        >>> import torch
        >>> p = Bernoulli(Spec((1, 2, 2), "unit"))(torch.zeros(3, 1, 2, 2))
        >>> round(float(p.log_prob(torch.full((3, 1, 2, 2), 0.5))[0]), 4)  # 4 ln(1/2)
        -2.7726
    """

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        if spec.support == "real":
            raise ConfigError("bernoulli needs values in [0, 1]; use gaussian for real-valued data.")
        self.event = len(spec.shape)

    @staticmethod
    def natural(spec: Spec) -> bool:
        """Whether ``"auto"`` selects this: for values in [0, 1] that are mostly near 0 or 1."""
        return spec.support not in ("real", "levels")

    @staticmethod
    def kind(spec: Spec) -> FigureKind:
        """A probability mass for binary data, a cross-entropy for grey values."""
        return "mass" if spec.support == "binary" else "cross-entropy"

    def channels(self, spec: Spec) -> int:
        """One logit per element."""
        return spec.shape[0]

    def forward(self, h: Tensor) -> Distribution:
        """Logits ``(B, *shape)`` to the distribution."""
        return Independent(LogitBernoulli(logits=h, validate_args=False), self.event, validate_args=False)


class LogitBernoulli(TorchBernoulli):
    """PyTorch's Bernoulli with a more memory-efficient ``log_prob``."""

    def log_prob(self, value: Tensor) -> Tensor:
        """``value * logits - log(1 + exp(logits))``, element by element."""
        return _LogProb.apply(*torch.broadcast_tensors(self.logits, value))


class _LogProb(torch.autograd.Function):
    """Log probability with an explicit gradient, ``value - sigmoid(logits)``, that needs no intermediate results."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, value: Tensor) -> Tensor:
        """``value * logits - softplus(logits)``; above 40 softplus equals its argument exactly, even in float64."""
        ctx.save_for_backward(logits, value)
        return F.softplus(logits, threshold=40.0).neg_().addcmul_(value, logits)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """In place unless a second derivative is needed."""
        logits, value = ctx.saved_tensors
        (grad,) = grads
        by_value = grad * logits if ctx.needs_input_grad[1] else None
        if torch.is_grad_enabled():
            return grad * (value - torch.sigmoid(logits)), by_value
        sigmoid = torch.sigmoid(logits)
        return torch.sub(value, sigmoid, out=sigmoid).mul_(grad), by_value
