"""Examples that stay in a file: a view of some of its rows, which reads only those that are asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

_BLOCK = 4 * 2**20  # bytes that are read at a time where all rows are passed through


class Store:
    """A file of equally large examples, one after the other, mapped into memory and never written to.

    Args:
        path: the file.
        shape: of one example.
        dtype: ``torch.uint8`` or ``torch.float32``.
        digests: ``(N, 16)`` bytes, the BLAKE2b digest of each example.
        remember: keeps a text that is costly to make, under a key, together with the file.
    """

    def __init__(
        self,
        path: Path,
        shape: Sequence[int],
        dtype: torch.dtype,
        digests: np.ndarray[Any, Any],
        remember: Callable[[str, Callable[[], str]], str] | None = None,
    ) -> None:
        self.path, self.shape, self.dtype, self.digests = path, tuple(shape), dtype, digests
        self.remember = remember or (lambda key, make: make())

    @cached_property
    def rows(self) -> np.ndarray[Any, Any]:
        """``(N, bytes of an example)`` uint8, mapped; the system keeps of it in memory what there is room for."""
        width = int(np.prod(self.shape)) * self.dtype.itemsize
        return np.asarray(np.memmap(self.path, np.uint8, "r", shape=(len(self.digests), width)))

    def gather(self, index: Tensor) -> Tensor:
        """The examples at ``index`` ``(B,)`` in memory of their own, ``(B, *shape)``."""
        found = torch.from_numpy(np.take(self.rows, index.cpu().numpy(), axis=0))
        return found.view(self.dtype).view(len(index), *self.shape)


class Rows:
    """Some examples of a :class:`Store` in some order: what a split holds in the place of a tensor ``(N, *shape)``.

    Indexing reads from the file; :meth:`take` only makes another view.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "rows")
        >>> _ = path.write_bytes(bytes(range(12)))
        >>> x = Rows(Store(path, (2, 2), torch.uint8, np.zeros((3, 16), np.uint8)), torch.tensor([2, 0]))
        >>> x.shape, x[torch.tensor([1])].tolist()
        (torch.Size([2, 2, 2]), [[[0, 1], [2, 3]]])
    """

    device = torch.device("cpu")

    def __init__(self, store: Store, index: Tensor) -> None:
        self.store, self.index = store, index

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, index: Tensor | slice) -> Tensor:
        return self.store.gather(self.index[index])

    @property
    def shape(self) -> torch.Size:
        """``(N, *shape)``."""
        return torch.Size((len(self), *self.store.shape))

    @property
    def dtype(self) -> torch.dtype:
        """Of the elements."""
        return self.store.dtype

    @property
    def nbytes(self) -> int:
        """Bytes that a tensor of these examples would take."""
        return self.shape.numel() * self.dtype.itemsize

    def dim(self) -> int:
        """Axes, the one over examples included."""
        return len(self.shape)

    def take(self, index: Tensor) -> Rows:
        """The examples at ``index``, in that order, still in the file."""
        return Rows(self.store, self.index[index])

    def blocks(self) -> Iterator[Tensor]:
        """All examples in order, a few at a time."""
        step = max(1, _BLOCK // max(1, self.nbytes // max(1, len(self))))
        for start in range(0, len(self), step):
            yield self[start : start + step]

    def to(self, device: torch.device | str) -> Tensor | Rows:
        """On another device a tensor, brought there block by block; on the CPU these rows as they are."""
        device = torch.device(device)
        if device.type == "cpu":
            return self
        whole = torch.empty(self.shape, dtype=self.dtype, device=device)
        place = 0
        for block in self.blocks():
            whole[place : place + len(block)] = block.to(device)
            place += len(block)
        return whole

    def digests(self) -> list[bytes]:
        """The BLAKE2b digest (16 bytes) of each example, known since the file was made."""
        return [row.tobytes() for row in self.store.digests[self.index.numpy()]]


def digests(x: Tensor | Rows) -> list[bytes]:
    """The BLAKE2b digest (16 bytes) of each of ``N`` examples, which two of the same bytes share."""
    if isinstance(x, Rows):
        return x.digests()
    rows = x.reshape(len(x), -1).contiguous().numpy()
    return [hashlib.blake2b(row, digest_size=16).digest() for row in rows]


def take(x: Tensor | Rows, index: Tensor) -> Tensor | Rows:
    """The examples at ``index``: a copy of a tensor's, a view of a file's."""
    return x.take(index) if isinstance(x, Rows) else x[index]


def joined(xs: Sequence[Tensor | Rows]) -> Tensor | Rows:
    """Several sets of examples as one, still in the file where all are in the same one.

    Example:
        >>> joined([torch.zeros(2, 3), torch.ones(1, 3)]).shape
        torch.Size([3, 3])
    """
    store = common_store(xs)
    if store is not None:
        return Rows(store, torch.cat([x.index for x in xs if isinstance(x, Rows)]))
    return torch.cat([torch.cat(list(x.blocks())) if isinstance(x, Rows) else x for x in xs])


def cut(x: Tensor | Rows, lengths: Sequence[int]) -> Sequence[Tensor | Rows]:
    """Neighbouring parts of these lengths, as views."""
    if isinstance(x, Rows):
        return [Rows(x.store, index) for index in x.index.split(list(lengths))]
    return x.split(list(lengths))


def common_store(xs: Sequence[Tensor | Rows]) -> Store | None:
    """The file that all of these examples are in, None where there is no such."""
    stores = {id(x.store): x.store for x in xs if isinstance(x, Rows)}
    alone = len(stores) == 1 and all(isinstance(x, Rows) for x in xs)
    return next(iter(stores.values())) if alone else None
