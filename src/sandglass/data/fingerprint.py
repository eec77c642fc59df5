"""One number that says whether data is the same as it was."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping

from torch import Tensor

from sandglass.core import Spec
from sandglass.data.dataset import Split
from sandglass.data.rows import Rows, common_store

Content = Callable[[Tensor | Rows], Iterable[memoryview]]


def fingerprint(spec: Spec, splits: Mapping[str, Split], classes: tuple[str, ...] = ()) -> str:
    """SHA-256 over the spec, the class names, and each split's name, types, shapes, examples, labels and mask.

    Example:
        >>> import torch
        >>> a = {"train": Split(torch.zeros(2, 1, 2, 2, dtype=torch.uint8))}
        >>> len(fingerprint(Spec((1, 2, 2), "unit"), a))
        64
    """
    store = common_store([split.x for split in splits.values()])
    if store is None:
        return _digest(spec, splits, classes, _content)
    # Over many gigabytes this takes minutes: it is remembered by which rows of the file stand where.
    key = _digest(spec, splits, classes, lambda x: _content(x.index if isinstance(x, Rows) else x))
    return store.remember(key, lambda: _digest(spec, splits, classes, _content))


def _digest(spec: Spec, splits: Mapping[str, Split], classes: tuple[str, ...], content: Content) -> str:
    nature = spec.to_dict()
    for column in nature["columns"]:  # these two follow from the examples, and were not always there
        del column["mean"], column["scale"]
    digest = hashlib.sha256(json.dumps([nature, list(classes)], sort_keys=True).encode())
    for name in sorted(splits):
        split = splits[name]
        for part, x in (("x", split.x), ("y", split.y), ("mask", split.mask)):
            if x is not None:
                digest.update(f"|{name}.{part} {x.dtype} {tuple(x.shape)} {split.levels}|".encode())
                for block in content(x):
                    digest.update(block)
    return digest.hexdigest()


def _content(x: Tensor | Rows) -> Iterator[memoryview]:
    """The bytes of all examples, in order."""
    for block in x.blocks() if isinstance(x, Rows) else [x]:
        yield block.contiguous().cpu().numpy().data.cast("B")
