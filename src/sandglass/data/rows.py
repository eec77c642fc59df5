"""Examples in a memory-mapped file, and views of some of its rows, which are read only when indexed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

_BLOCK = 4 * 2**20  # bytes read at a time when iterating over all rows


class Store:
    """A file of examples of equal shape, memory-mapped read-only.

    Args:
        path: the file.
        shape: shape of an example.
        dtype: ``torch.uint8`` or ``torch.float32``.
        digests: ``(N, 16)`` bytes, the BLAKE2b digest of each example.
        remember: caches an expensive string under a key, together with the file.
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
        """``(N, bytes of an example)`` uint8, memory-mapped; the system pages it in and out as needed."""
        width = int(np.prod(self.shape)) * self.dtype.itemsize
        return np.asarray(np.memmap(self.path, np.uint8, "r", shape=(len(self.digests), width)))

    def gather(self, index: Tensor) -> Tensor:
        """A copy of the examples at ``index`` ``(B,)``, of shape ``(B, *shape)``."""
        found = torch.from_numpy(np.take(self.rows, index.cpu().numpy(), axis=0))
        return found.view(self.dtype).view(len(index), *self.shape)


class Rows:
    """A view of some examples of a :class:`Store`, in any order; a split has it in place of a tensor ``(N, *shape)``.

    Indexing reads from the file; :meth:`take` only creates another view.

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
        """The dtype of the elements."""
        return self.store.dtype

    @property
    def nbytes(self) -> int:
        """Size in bytes of a tensor of these examples."""
        return self.shape.numel() * self.dtype.itemsize

    def dim(self) -> int:
        """The number of dimensions, including the first, over examples."""
        return len(self.shape)

    def take(self, index: Tensor) -> Rows:
        """The examples at ``index``, in that order, still in the file."""
        return Rows(self.store, self.index[index])

    def blocks(self) -> Iterator[Tensor]:
        """All examples in order, in blocks."""
        step = max(1, _BLOCK // max(1, self.nbytes // max(1, len(self))))
        for start in range(0, len(self), step):
            yield self[start : start + step]

    def to(self, device: torch.device | str) -> Tensor | Rows:
        """A tensor on another device, copied block by block; for the CPU, the view itself."""
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
        """The stored BLAKE2b digest (16 bytes) of each example."""
        return [row.tobytes() for row in self.store.digests[self.index.numpy()]]


def digests(x: Tensor | Rows) -> list[bytes]:
    """The BLAKE2b digest (16 bytes) of each example; equal for identical examples."""
    if isinstance(x, Rows):
        return x.digests()
    rows = x.reshape(len(x), -1).contiguous().numpy()
    return [hashlib.blake2b(row, digest_size=16).digest() for row in rows]


def take(x: Tensor | Rows, index: Tensor) -> Tensor | Rows:
    """The examples at ``index``: a copy for a tensor, a view for a file."""
    return x.take(index) if isinstance(x, Rows) else x[index]


def joined(xs: Sequence[Tensor | Rows]) -> Tensor | Rows:
    """Concatenates examples; the result is a view if all are in the same file.

    Example:
        >>> joined([torch.zeros(2, 3), torch.ones(1, 3)]).shape
        torch.Size([3, 3])
    """
    store = common_store(xs)
    if store is not None:
        return Rows(store, torch.cat([x.index for x in xs if isinstance(x, Rows)]))
    return torch.cat([torch.cat(list(x.blocks())) if isinstance(x, Rows) else x for x in xs])


def cut(x: Tensor | Rows, lengths: Sequence[int]) -> Sequence[Tensor | Rows]:
    """Splits examples into consecutive parts of these lengths, as views."""
    if isinstance(x, Rows):
        return [Rows(x.store, index) for index in x.index.split(list(lengths))]
    return x.split(list(lengths))


def common_store(xs: Sequence[Tensor | Rows]) -> Store | None:
    """The file that contains all of these examples, or None."""
    stores = {id(x.store): x.store for x in xs if isinstance(x, Rows)}
    alone = len(stores) == 1 and all(isinstance(x, Rows) for x in xs)
    return next(iter(stores.values())) if alone else None
