"""The protocol of network families."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from torch import nn

Condition = int | tuple[int, ...]
"""Shape of the condition of a network: the width of a vector, ``(C, H, W)`` of an image, or 0 for none."""


@runtime_checkable
class Net(Protocol):
    """A family of encoders and decoders for any example shape."""

    def encoder(self, shape: tuple[int, ...], out: int, *, cond: Condition = 0, masked: bool = False) -> nn.Module:
        """A module ``(x, c=None, mask=None) -> (B, out)`` for x ``(B, *shape)``, with a ``body`` and a ``head``.

        Args:
            shape: of an example.
            out: width of the output.
            cond: shape of the condition ``c``.
            masked: whether ``mask`` ``(B, *shape)``, True where x is observed, is an input.
        """
        ...

    def decoder(self, dim: int, shape: tuple[int, ...], *, cond: Condition = 0) -> nn.Module:
        """A module ``(z, c=None) -> (B, *shape)`` for z ``(B, dim)``; ``shape`` is what the likelihood requires."""
        ...


@runtime_checkable
class Maps(Net, Protocol):
    """A family whose networks have feature maps of several sizes."""

    def analysis(self, shape: tuple[int, ...], *, cond: Condition = 0) -> nn.Module:
        """A module ``(x, c=None) -> [maps]``, the largest first; its ``shapes`` are their ``(C, H, W)``.

        With several maps, its method ``first(n)`` returns a module for the first n only.
        """
        ...

    def synthesis(self, shapes: Sequence[tuple[int, ...]], shape: tuple[int, ...], *, cond: Condition = 0) -> nn.Module:
        """A module ``([maps], c=None) -> (B, *shape)``; with all maps of an analysis it is a U-Net."""
        ...
