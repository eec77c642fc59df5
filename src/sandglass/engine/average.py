"""The exponential moving average of the weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from sandglass.engine.sharding import gathered, piece


class Average:
    """The moving average of the parameters that a stage trains; validated and kept in their place.

    Args:
        parameters: by name.
        decay: share of the average that is kept at every update, less in early updates, see :func:`warmed`; 0 for no
            average.

    Example:
        >>> weight = nn.Parameter(torch.zeros(1))
        >>> average = Average({"w": weight}, 0.75)
        >>> weight.data += 4
        >>> average.follow(torch.tensor(True), 100)
        >>> average.named()["w"]
        tensor([1.])
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], decay: float) -> None:
        self.parameters, self.decay = dict(parameters), decay
        self.values = [p.detach().clone() for p in self.parameters.values()] if decay else []

    def __bool__(self) -> bool:
        return bool(self.values)

    @torch.no_grad()
    def follow(self, good: Tensor, step: int) -> None:
        """One update towards the weights where the 0-d tensor ``good`` is True.

        Args:
            good: whether the weights are worth following.
            step: steps of this stage before this one.
        """
        weight = good.to(self.values[0].dtype) * (1 - warmed(self.decay, step))
        difference = torch._foreach_sub(list(self.parameters.values()), self.values)
        torch._foreach_mul_(difference, weight)
        torch._foreach_add_(self.values, difference)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The average in the place of the weights, if there is one."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def named(self) -> dict[str, Tensor]:
        """The average by the names of the parameters, whole; empty where there is none. All processes must ask."""
        own = zip(self.parameters.items(), self.values, strict=True) if self.values else ()
        return {name: gathered(value, p) for (name, p), value in own}

    def settle(self) -> None:
        """Makes the average the weights."""
        self._swap()

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """The inverse of :meth:`named`; other tensors are left alone."""
        for (name, p), value in zip(self.parameters.items(), self.values, strict=True):
            value.copy_(piece(tensors[name], p))

    def _swap(self) -> None:
        for value, p in zip(self.values, self.parameters.values(), strict=False):
            kept = p.detach().clone()
            p.data.copy_(value)
            value.copy_(kept)


def warmed(decay: float, step: int) -> float:
    """The decay at a step: ``min(decay, (1 + step) / (10 + step))``.

    So the average is always over about the last ninth of training, and at most over ``1 / (1 - decay)`` steps; with
    the full decay from the start, a short run would end with an average of mostly initial weights. It is the formula of
    TensorFlow's ``ExponentialMovingAverage``.

    Example:
        >>> warmed(0.999, 0), warmed(0.999, 90), warmed(0.999, 100_000)
        (0.1, 0.91, 0.999)
    """
    return min(decay, (1 + step) / (10 + step))
