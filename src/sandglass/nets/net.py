"""What every family of networks offers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from torch import nn

Condition = int | tuple[int, ...]
"""What a network is conditioned on: the width of a vector, 0 for nothing, or the ``(C, H, W)`` of a picture."""


@runtime_checkable
class Net(Protocol):
    """A family of networks in both directions, for any example shape."""

    def encoder(self, shape: tuple[int, ...], out: int, *, cond: Condition = 0, masked: bool = False) -> nn.Module:
        """A module ``(x, c=None, mask=None) -> (B, out)`` for x ``(B, *shape)``, with a ``body`` and a ``head``.

        Args:
            shape: of an example.
            out: numbers put out.
            cond: what ``c`` is.
            masked: whether it is told, by ``mask`` ``(B, *shape)``, where x was observed.
        """
        ...

    def decoder(self, dim: int, shape: tuple[int, ...], *, cond: Condition = 0) -> nn.Module:
        """A module ``(z, c=None) -> (B, *shape)`` for z ``(B, dim)``; ``shape`` as the likelihood asks for."""
        ...


@runtime_checkable
class Maps(Net, Protocol):
    """A family whose networks go through maps of several sizes."""

    def analysis(self, shape: tuple[int, ...], *, cond: Condition = 0) -> nn.Module:
        """A module ``(x, c=None) -> [maps]``, the largest first; its ``shapes`` are their ``(C, H, W)``.

        Where there are several, its ``first(n)`` is the module of the first n alone.
        """
        ...

    def synthesis(self, shapes: Sequence[tuple[int, ...]], shape: tuple[int, ...], *, cond: Condition = 0) -> nn.Module:
        """A module ``([maps], c=None) -> (B, *shape)``; over all the maps of an analysis it is a U-Net."""
        ...
