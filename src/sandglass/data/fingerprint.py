"""Fingerprints, which detect whether data has changed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from torch import Tensor

from sandglass.core import Spec
from sandglass.data.dataset import Split
from sandglass.data.rows import Rows, Store, common_store
from sandglass.runs.specification import to_plain

Content = Callable[[Tensor | Rows], Iterable[memoryview]]


def fingerprint(spec: Spec, splits: Mapping[str, Split], classes: tuple[str, ...] = ()) -> str:
    """SHA-256 over the spec, the class names, and each split's name, types, shapes, examples, labels and mask.

    Companions and unpaired sets are included.

    Example:
        >>> import torch
        >>> a = {"train": Split(torch.zeros(2, 1, 2, 2, dtype=torch.uint8))}
        >>> len(fingerprint(Spec((1, 2, 2), "unit"), a))
        64
    """
    store = common_store([split.x for split in splits.values()])
    if store is None:
        return _digest(spec, splits, classes, _content)
    # For many gigabytes this takes minutes, so the result is cached under the row indices into the file.
    key = _digest(spec, splits, classes, lambda x: _places(x, store))
    return store.remember(key, lambda: _digest(spec, splits, classes, _content))


def _digest(spec: Spec, splits: Mapping[str, Split], classes: tuple[str, ...], content: Content) -> str:
    digest = hashlib.sha256(json.dumps([_nature(spec), list(classes)], sort_keys=True).encode())
    for name in sorted(splits):
        _add(digest, name, splits[name], content)
    return digest.hexdigest()


def _nature(spec: Spec) -> dict[str, Any]:
    """The spec as plain values, without fields that follow from the examples or were added in later versions."""
    nature = to_plain(spec)
    nature["support"] = "unit" if spec.support == "levels" else spec.support  # of pictures: by their histogram
    for column in nature["columns"]:
        del column["mean"], column["scale"]
    if spec.layout != "sequence":
        del nature["layout"]
    for kind in ("given", "beside"):
        nature[kind] = {name: _nature(other) for name, other in getattr(spec, kind).items()}
        if not nature[kind]:
            del nature[kind]
    return nature


def _add(digest: hashlib._Hash, name: str, split: Split, content: Content) -> None:
    """Adds the examples of a split, its companions and its unpaired sets."""
    parts: list[tuple[str, Tensor | Rows | None, int]]
    parts = [("x", split.x, split.levels), ("y", split.y, split.levels), ("mask", split.mask, split.levels)]
    for companion in sorted(split.given):
        levels = split.given_levels.get(companion, 256)
        parts.append((f"given.{companion}", split.given[companion], levels))
        parts.append((f"absent.{companion}", split.absent.get(companion), levels))
    for part, x, levels in parts:
        if x is not None:
            digest.update(f"|{name}.{part} {x.dtype} {tuple(x.shape)} {levels}|".encode())
            for block in content(x):
                digest.update(block)
    for companion, how in sorted(split.made.items()):
        digest.update(f"|{name}.made.{companion} {how}|".encode())
    for other in sorted(split.beside):
        _add(digest, f"{name}.beside.{other}", split.beside[other], content)


def _places(x: Tensor | Rows, store: Store) -> Iterable[memoryview]:
    """The row indices in ``store``; for rows of another file, their digests."""
    if not isinstance(x, Rows):
        return _content(x)
    return _content(x.index) if x.store is store else [memoryview(b"".join(x.digests()))]


def _content(x: Tensor | Rows) -> Iterator[memoryview]:
    """The bytes of all examples, in order."""
    for block in x.blocks() if isinstance(x, Rows) else [x]:
        yield block.contiguous().cpu().numpy().data.cast("B")
