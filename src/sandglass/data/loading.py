"""Batches as a pure function of the step, so that stopping and going on cannot change one."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from sandglass import rng
from sandglass.core import Batch
from sandglass.data.dataset import Split

_RESIDENT = 4 * 2**30  # a split of at most this many bytes lives on the device
_ELEMENTS = 2**24  # numbers in a batch that is only measured

Change = Callable[[Tensor, Tensor, int, int], Tensor]
"""From examples, their positions, the seed and the epoch to changed examples."""


class Loader:
    """The training batches of a split, each found from its step alone.

    The order of an epoch depends on (seed, epoch), an example's augmentation on (seed, epoch, index). Images stay
    bytes, on the device when they fit, and become floats batch by batch.

    Args:
        split: the examples.
        batch_size: examples a batch; the last of an epoch may be smaller.
        seed: decides the order.
        device: where batches are wanted.
        dtype: of ``x``.
        augment: random changes, or None.
        corrupt: damage after that, or None; the damaged copy comes with the batch as ``given["damaged"]``.

    Example:
        >>> loader = Loader(Split(torch.arange(10).float()[:, None]), 4, seed=0)
        >>> [len(loader.batch(step)) for step in range(4)]
        [4, 4, 2, 4]
    """

    def __init__(
        self,
        split: Split,
        batch_size: int,
        *,
        seed: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        augment: Change | None = None,
        corrupt: Change | None = None,
    ) -> None:
        self.device = torch.device(device)
        self.split = split.to(self.device) if split.x.nbytes <= _RESIDENT else split
        self.batch_size, self.seed, self.dtype = batch_size, seed, dtype
        self.augment, self.corrupt = augment, corrupt
        self.steps_per_epoch = math.ceil(len(split) / batch_size)
        self._epoch = -1
        self._order = torch.empty(0, dtype=torch.int64)

    def indices(self, step: int) -> Tensor:
        """Which examples step ``step`` (from 0) is made of."""
        epoch, place = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            order = rng.permutation(len(self.split), self.seed, "order", epoch)
            self._order, self._epoch = order.to(self.split.x.device), epoch
        return self._order[place * self.batch_size : (place + 1) * self.batch_size]

    def batch(self, step: int) -> Batch:
        """The batch of step ``step``, on the device."""
        index = self.indices(step)
        batch = self.split.batch(index)
        if self.split.x.device != self.device:
            batch = batch.map(lambda t: t.to(self.device, non_blocking=True))
        x, epoch = batch.x, step // self.steps_per_epoch
        given = dict(batch.given)
        if self.augment is not None and batch.index is not None:
            x = self.augment(x, batch.index, self.seed, epoch)
        if self.corrupt is not None and batch.index is not None:
            given["damaged"] = self.corrupt(x, batch.index, self.seed, epoch).to(self.dtype)
        return replace(batch, x=x.to(self.dtype), given=given)


def in_order(
    split: Split, batch_size: int = 512, *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> list[Callable[[], Batch]]:
    """Every batch of a split in order, each made when called; for measuring.

    Batches of large examples are smaller, so that what is measured needs no more memory than what is trained.

    Example:
        >>> [len(make()) for make in in_order(Split(torch.zeros(5, 1)), 2)]
        [2, 2, 1]
    """
    batch_size = min(batch_size, max(1, _ELEMENTS // max(1, math.prod(split.x.shape[1:]))))

    def at(start: int) -> Callable[[], Batch]:
        def make() -> Batch:
            batch = split.batch(slice(start, min(start + batch_size, len(split)))).map(lambda t: t.to(device))
            return replace(batch, x=batch.x.to(dtype))

        return make

    return [at(start) for start in range(0, len(split), batch_size)]
