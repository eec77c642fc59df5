"""The Bernoulli likelihood, and the cross-entropy it makes of grey values."""

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
    """Each element is 0 or 1 with a probability; grey values in [0, 1] enter as soft targets (binary cross-entropy).

    With grey values the figure is a cross-entropy in nats and not a density's likelihood: it compares only with
    other figures made in the same way.

    Args:
        spec: the data; its values must lie in [0, 1].

    Raises:
        ConfigError: data of any real values.

    Example:
        >>> import torch
        >>> p = Bernoulli(Spec((1, 2, 2), "unit"))(torch.zeros(3, 1, 2, 2))
        >>> round(float(p.log_prob(torch.full((3, 1, 2, 2), 0.5))[0]), 4)  # 4 ln(1/2)
        -2.7726
    """

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        if spec.support == "real":
            raise ConfigError("bernoulli needs values in [0, 1]; the data has any: use gaussian.")
        self.event = len(spec.shape)

    @staticmethod
    def natural(spec: Spec) -> bool:
        """Whether ``"auto"`` picks this: for values in [0, 1]."""
        return spec.support != "real"

    @staticmethod
    def kind(spec: Spec) -> FigureKind:
        """A probability of zeros and ones; of grey values a cross-entropy."""
        return "mass" if spec.support == "binary" else "cross-entropy"

    def channels(self, spec: Spec) -> int:
        """One logit an element."""
        return spec.shape[0]

    def forward(self, h: Tensor) -> Distribution:
        """Logits ``(B, *shape)`` to the distribution."""
        return Independent(LogitBernoulli(logits=h, validate_args=False), self.event, validate_args=False)


class LogitBernoulli(TorchBernoulli):
    """PyTorch's, with a log-probability in fewer passes over memory."""

    def log_prob(self, value: Tensor) -> Tensor:
        """``value * logits - log(1 + exp(logits))``, element by element."""
        return _LogProb.apply(*torch.broadcast_tensors(self.logits, value))


class _LogProb(torch.autograd.Function):
    """The gradient is ``value - sigmoid(logits)``; written out, it needs no intermediate results."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, value: Tensor) -> Tensor:
        """Above 40 the softplus is its argument to the last bit, also in float64."""
        ctx.save_for_backward(logits, value)
        return F.softplus(logits, threshold=40.0).neg_().addcmul_(value, logits)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """In place where nobody differentiates it again."""
        logits, value = ctx.saved_tensors
        (grad,) = grads
        by_value = grad * logits if ctx.needs_input_grad[1] else None
        if torch.is_grad_enabled():
            return grad * (value - torch.sigmoid(logits)), by_value
        sigmoid = torch.sigmoid(logits)
        return torch.sub(value, sigmoid, out=sigmoid).mul_(grad), by_value
