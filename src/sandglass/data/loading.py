"""Batches as a pure function of the step, so that stopping and resuming does not change them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor

from sandglass import rng
from sandglass.core import Batch
from sandglass.data import derived
from sandglass.data.augment import Augmentation
from sandglass.data.dataset import Split, blank
from sandglass.errors import ConfigError

_RESIDENT = 4 * 2**30  # a split of at most this many bytes is kept on the device
_ELEMENTS = 2**24  # largest number of elements in a batch for evaluation


class Change(Protocol):
    """A random change of examples, given their positions, the seed, the epoch and the random stream."""

    def __call__(self, x: Tensor, index: Tensor, seed: int, epoch: int, stream: str = "") -> Tensor:
        """Changed examples, of the shape of ``x``."""
        ...


class Loader:
    """The training batches of a split, each computed from the step number alone.

    The order of an epoch depends on (seed, epoch), an example's augmentation on (seed, epoch, index). Images are kept
    as bytes, on the device if they fit, and converted to floats batch by batch.

    Each batch includes a batch of the same size from every unpaired set. An unpaired set has its own epochs, each in
    its own order, which follow each other without a break: after n examples of the split, n of each set have been
    drawn, whatever its length.

    Args:
        split: the examples.
        batch_size: examples per batch; the last of an epoch may be smaller, or larger for ``least``.
        seed: seed of the order.
        device: device of the batches.
        dtype: dtype of ``x`` and of companions.
        augment: data augmentation, or None. An :class:`~sandglass.data.augment.Augmentation` also moves the companions
            of a picture with it, and changes the pictures of unpaired sets.
        corrupt: corruption applied after it, or None; the corrupted copy is in the batch as ``given["damaged"]``.
        stream: random stream; each training stage has its own.
        rows: from the number of examples of a batch to those of its rows that are read; all by default.
        least: examples of the last batch of an epoch; where fewer are left, they belong to the batch before.
        labelled_share: of a batch that is examples with a known label, evenly spread over its rows, beside those drawn
            with the others; 0 draws all alike, and so does a split in which all or none have one.

    Raises:
        ConfigError: the augmentation would move pictures, but not companions of another size.

    Example:
        >>> loader = Loader(Split(torch.arange(10).float()[:, None]), 4, seed=0)
        >>> [len(loader.batch(step)) for step in range(4)]
        [4, 4, 2, 4]
        >>> other = Split(torch.arange(3).float()[:, None])
        >>> loader = Loader(Split(torch.zeros(10, 1), beside={"b": other}), 4, seed=0)
        >>> [loader.batch(step).beside["b"].index.tolist() for step in range(3)]
        [[0, 1, 2, 1], [0, 2, 0, 2], [1, 2]]
        >>> larger = Loader(Split(torch.zeros(9, 1)), 4, seed=0, least=2)
        >>> [len(larger.batch(step)) for step in range(2)]
        [4, 5]
        >>> half = Loader(Split(torch.zeros(10, 1)), 4, seed=0, rows=lambda n: slice(n // 2, n))
        >>> bool((half.batch(2).index == loader.batch(2).index[1:]).all())
        True
        >>> few = Loader(Split(torch.zeros(10, 1), torch.arange(10) // 8 - 1), 4, seed=0, labelled_share=0.5)
        >>> [few.batch(step).y.tolist() for step in range(3)]
        [[0, -1, 0, -1], [0, 0, 0, -1], [0, 0]]
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
        stream: str = "",
        rows: Callable[[int], slice] = slice,
        least: int = 1,
        labelled_share: float = 0.0,
    ) -> None:
        self.device, self.rows = torch.device(device), rows
        self.split = self._placed(replace(split, beside={}))
        self.beside = {name: self._placed(other) for name, other in split.beside.items()}
        self.batch_size, self.seed, self.dtype = batch_size, seed, dtype
        self.augment, self.corrupt, self.stream = augment, corrupt, stream
        self.steps_per_epoch = steps_in_epoch(len(split), batch_size, least)
        self._epoch = -1
        self._order = torch.empty(0, dtype=torch.int64)
        self._orders: dict[str, dict[int, Tensor]] = {name: {} for name in self.beside}
        self.labelled_share, y = labelled_share, self.split.y
        known = torch.empty(0) if not labelled_share or y is None else (y >= 0).nonzero()[:, 0]
        self._known = known.to(self.split.x.device) if 0 < len(known) < len(split) else None
        self._turns: dict[int, Tensor] = {}
        for each in (self.split, *self.beside.values()):
            self._check(each)

    def indices(self, step: int) -> Tensor:
        """The examples of step ``step`` (from 0)."""
        epoch, place = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            order = rng.permutation(len(self.split), self.seed, "order", *self._key, epoch)
            self._order, self._epoch = order.to(self.split.x.device), epoch
        drawn = self._order[place * self.batch_size :][: self.size(step)]
        return drawn if self._known is None else self._with_labels(drawn, step)

    def _with_labels(self, drawn: Tensor, step: int) -> Tensor:
        """The examples of a step, some of them replaced by the next ones with a known label."""
        assert self._known is not None
        (epoch, place), n = divmod(step, self.steps_per_epoch), len(self._known)
        count, usual = self._labelled(self.size(step)), self._labelled(self.batch_size)
        last = self._labelled(self.size(self.steps_per_epoch - 1))
        start = epoch * ((self.steps_per_epoch - 1) * usual + last) + place * usual
        turns = range(start // n, (start + count - 1) // n + 1)
        self._turns = {
            t: self._turns[t] if t in self._turns
            else self._known[rng.permutation(n, self.seed, "order", *self._key, "labelled", t).to(self._known.device)]
            for t in turns
        }  # fmt: skip
        labelled = torch.cat([self._turns[t][max(start - t * n, 0) : start + count - t * n] for t in turns])
        places = torch.arange(count, device=drawn.device) * len(drawn) // count
        return drawn.index_copy(0, places, labelled)

    def _labelled(self, size: int) -> int:
        """How many of so many examples are to have a label."""
        return min(max(1, round(self.labelled_share * size)), size)

    def indices_beside(self, name: str, step: int) -> list[tuple[int, Tensor]]:
        """The examples of an unpaired set for step ``step``.

        Returns:
            Pairs of an epoch of that set and the positions drawn in it.
        """
        epoch, place = divmod(step, self.steps_per_epoch)
        n, start = len(self.beside[name]), epoch * len(self.split) + place * self.batch_size
        stop = start + self.size(step)
        epochs = range(start // n, (stop - 1) // n + 1)
        known, device = self._orders[name], self.beside[name].x.device
        self._orders[name] = {
            e: known[e] if e in known
            else rng.permutation(n, self.seed, "order", *self._key, "beside", name, e).to(device)
            for e in epochs
        }  # fmt: skip
        return [(e, self._orders[name][e][max(start - e * n, 0) : stop - e * n]) for e in epochs]

    def size(self, step: int) -> int:
        """The number of examples of step ``step``, of which a batch has the rows that are read."""
        place = step % self.steps_per_epoch
        left = len(self.split) - place * self.batch_size
        return left if place == self.steps_per_epoch - 1 else self.batch_size

    def batch(self, step: int) -> Batch:
        """The batch of step ``step``, on the device."""
        if isinstance(self.augment, Augmentation) and self.augment.mixup:  # a picture is mixed with any other
            rows = self.rows(self.size(step))
            return self._batch(step, slice(self.size(step))).map(lambda t: t[rows])
        return self._batch(step, self.rows(self.size(step)))

    def _batch(self, step: int, rows: slice) -> Batch:
        batch = self._changed(self.split, self.indices(step)[rows], step // self.steps_per_epoch, self.stream)
        if self.corrupt is not None and batch.index is not None:
            damaged = self.corrupt(batch.x, batch.index, self.seed, step // self.steps_per_epoch, self.stream)
            batch = replace(batch, given={**batch.given, "damaged": damaged})
        return self._typed(replace(batch, beside={name: self._beside(name, step, rows) for name in self.beside}))

    @property
    def _key(self) -> tuple[str, ...]:
        """The part of the random key for the stream; empty for the default stream."""
        return (self.stream,) if self.stream else ()

    def _beside(self, name: str, step: int, rows: slice) -> Batch:
        stream = f"{self.stream}/beside/{name}"
        drawn, start, own = self.indices_beside(name, step), 0, []
        for epoch, index in drawn:
            own.append((epoch, index[max(rows.start or 0, start) - start : max(rows.stop - start, 0)]))
            start += len(index)
        parts = [self._changed(self.beside[name], i, e, stream) for e, i in own if len(i)]
        return parts[0] if len(parts) == 1 else _joined(parts)

    def _changed(self, split: Split, index: Tensor, epoch: int, stream: str) -> Batch:
        """Augmented examples on the device, with companions derived from them."""
        batch = split.batch(index)
        if split.x.device != self.device:
            batch = batch.map(lambda t: t.to(self.device, non_blocking=True))
        if self.augment is None or (split is not self.split and batch.x.dim() != 4):
            return batch
        if isinstance(self.augment, Augmentation):
            batch = self.augment.together(batch, self.seed, epoch, stream)
        elif split is self.split and batch.index is not None:
            batch = replace(batch, x=self.augment(batch.x, batch.index, self.seed, epoch, stream))
        given = {n: blank(t, batch.absent[n]) if n in batch.absent else t for n, t in batch.given.items()}
        return replace(batch, given=given | {n: derived.make(how, batch.x) for n, how in split.made.items()})

    def _placed(self, split: Split) -> Split:
        """The split, on the device if it is small enough."""
        return split.to(self.device) if split.nbytes <= _RESIDENT else split

    def _check(self, split: Split) -> None:
        if not isinstance(self.augment, Augmentation) or not self.augment.moves or split.x.dim() != 4:
            return
        for name, other in split.given.items():
            if other.dim() == 4 and other.shape[2:] != split.x.shape[2:]:
                own, size = ("x".join(map(str, t.shape[2:])) for t in (split.x, other))
                raise ConfigError(
                    f"The augmentation moves pictures of {own}, but cannot move their companions '{name}' of {size} "
                    "with them; resize both (size=64, --size 64), or leave out augmentations that move pixels."
                )

    def _typed(self, batch: Batch) -> Batch:
        """The batch with floats of the loader's dtype."""
        return batch.map(lambda t: t.to(self.dtype) if t.is_floating_point() else t)


def steps_in_epoch(examples: int, batch_size: int, least: int = 1) -> int:
    """The number of batches of an epoch, the last of which has at least ``least`` examples.

    Example:
        >>> steps_in_epoch(65, 64), steps_in_epoch(65, 64, 2), steps_in_epoch(1, 64, 2)
        (2, 1, 1)
    """
    full, left = divmod(examples, batch_size)
    return max(1, full + (left >= least))


def _joined(parts: list[Batch]) -> Batch:
    """Concatenates batches of a set."""

    def join(f: Callable[[Batch], Tensor | None]) -> Tensor | None:
        found = [t for t in map(f, parts) if t is not None]
        return torch.cat(found) if found else None

    x = join(lambda b: b.x)
    assert x is not None
    given, absent = (
        {name: torch.cat([getattr(b, kind)[name] for b in parts]) for name in getattr(parts[0], kind)}
        for kind in ("given", "absent")
    )
    return Batch(x, join(lambda b: b.y), join(lambda b: b.mask), join(lambda b: b.index), given, absent)


def in_order(
    split: Split, batch_size: int = 512, *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> list[Callable[[], Batch]]:
    """Every batch of a split in order, each created when called; for evaluation.

    Batches of large examples are smaller, so that evaluation needs no more memory than training. Unpaired sets are read
    in order as well; a shorter set starts again at its beginning.

    Example:
        >>> [len(make()) for make in in_order(Split(torch.zeros(5, 1)), 2)]
        [2, 2, 1]
    """
    size = sum(math.prod(t.shape[1:]) for t in (split.x, *split.given.values()))
    batch_size = min(batch_size, max(1, _ELEMENTS // max(1, size)))

    def at(start: int) -> Callable[[], Batch]:
        def make() -> Batch:
            stop = min(start + batch_size, len(split))
            rows = torch.arange(start, stop)
            beside = {n: s.batch((rows % len(s)).to(s.x.device)) for n, s in split.beside.items()}
            batch = replace(split.batch(slice(start, stop)), beside=beside)
            return batch.map(lambda t: t.to(device)).map(lambda t: t.to(dtype) if t.is_floating_point() else t)

        return make

    return [at(start) for start in range(0, len(split), batch_size)]
