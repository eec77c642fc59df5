"""Pictures by the folder: their sizes looked at, and their pixels brought to one."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from sandglass.data.sources import images
from sandglass.data.sources.layouts import Item, list_splits
from sandglass.data.sources.raw import Part, Raw, number_classes
from sandglass.data.transform import ImageTransform
from sandglass.errors import DataError

T = TypeVar("T")

_FEW = 5
_LARGE = 2000


def read_folder(folder: Path, *, labels: bool, **options: Any) -> Raw:
    """A folder of pictures: flat, or with a folder a class, or with ``train``, ``validation`` and ``test`` at the top.

    Args:
        folder: where.
        labels: whether folders name classes.
        options: see :func:`read_items`.

    Raises:
        DataError: no picture in it, or as :func:`read_items`.
    """
    items, notes = list_splits(folder, labels=labels)
    if not items["train"]:
        raise DataError(
            f"{images.shown(folder)} holds no picture; give a folder with PNG, JPEG, WebP, TIFF, BMP or GIF files."
        )
    raw = read_items(items, **options)
    return replace(raw, notes=(*notes, *raw.notes))


def read_items(
    items: dict[str, list[Item]],
    *,
    size: tuple[int, int] | None = None,
    fit: str | None = None,
    channels: int | None = None,
    value_range: tuple[float, float] | None = None,
    transform: ImageTransform | None = None,
    on_bad: str = "skip",
) -> Raw:
    """Pictures to bytes of one size.

    Args:
        items: for each split its pictures.
        size: height and width; None where all have the same.
        fit: ``"crop"``, ``"pad"`` or ``"stretch"``; None for ``"crop"``.
        channels: 1, 3 or 4; None for 1 where every picture is grey and 3 otherwise.
        value_range: what becomes black and white in grey pictures of floats or of more than 8 bits.
        transform: used in place of the four above.
        on_bad: ``"skip"`` leaves out pictures that cannot be read, with a note; ``"stop"`` refuses them all.

    Returns:
        Parts of uint8 ``(N, C, H, W)``.

    Raises:
        DataError: pictures of several sizes where none is asked for, none that can be read, or, with ``"stop"``, one
            that cannot.
    """
    notes: list[str] = []
    with images.quiet():
        if transform is None:
            transform = _fit(items, size, fit, channels, value_range)
        parts, bad, done = {}, [], Counter[str]()
        for split, found in items.items():
            x, kept, failed, remarks = _decode(found, transform, f"Reading {split}")
            parts[split] = (x, kept)
            bad += failed
            done += remarks
    first = ": ".join(bad[0]) if bad else ""
    if not len(parts["train"][0]):
        raise DataError(f"None of the {len(items['train'])} pictures can be read. The first: {first}")
    if bad and on_bad == "stop":
        total = sum(map(len, items.values()))
        raise DataError(
            f"{len(bad)} of the {total} pictures cannot be read. The first: {first}. "
            "Remove or mend them, or leave them out with on_bad='skip' (--on-bad skip)."
        )
    notes += [f"{_count(n, 'picture')}: {remark}" for remark, n in sorted(done.items())]
    if bad:
        some = "; ".join(": ".join(pair) for pair in bad[:_FEW])
        more = f"; and {len(bad) - _FEW} more" if len(bad) > _FEW else ""
        notes.append(f"{_count(len(bad), 'file')} could not be read: {some}{more}")
    labels = {split: [i.label for i in kept] for split, (_, kept) in parts.items()}
    numbered, classes = number_classes({s: None if None in y else y for s, y in labels.items()})
    splits = {s: Part(x, numbered[s], tuple(i.name for i in kept)) for s, (x, kept) in parts.items() if kept}
    return Raw(splits, transform, classes, tuple(notes), bad=tuple(bad))


def _fit(
    items: dict[str, list[Item]],
    size: tuple[int, int] | None,
    fit: str | None,
    channels: int | None,
    value_range: tuple[float, float] | None,
) -> ImageTransform:
    """The transform that suits the pictures' headers."""
    every = [item for found in items.values() for item in found]
    if size is not None and channels is not None:
        return ImageTransform(size, channels, fit or "crop", value_range=value_range)
    probed = list(_map(_probe, every, "Looking at sizes"))
    seen = [p for p in probed if p is not None]
    if not seen:
        raise DataError(f"None of the {len(every)} pictures can be read. The first: {_why(every[0], value_range)}")
    sizes = Counter(s for s, _ in seen)
    if size is None and len(sizes) > 1:
        # A damaged file may claim any size: only pictures that decode count.
        common = sizes.most_common(1)[0][0]
        odd = [i for i, p in enumerate(probed) if p is not None and p[0] != common]
        for i in odd:
            if _load(every[i], value_range)[0] is None:
                probed[i] = None
        seen = [p for p in probed if p is not None]
        sizes = Counter(s for s, _ in seen)
    if size is None and len(sizes) > 1:
        common_sizes = sorted(sizes.items(), key=lambda pair: (-pair[1], pair[0]))
        listed = ", ".join(f"{h}x{w} ({n})" for (h, w), n in common_sizes[:_FEW])
        raise DataError(
            f"The pictures have {len(sizes)} sizes (height x width): {listed}{', ...' if len(sizes) > _FEW else ''}; "
            "say which to bring them to, size=64 (--size 64), and how, fit='crop', 'pad' or 'stretch'."
        )
    if channels is None:
        channels = 1 if all(grey for _, grey in seen) else 3
    return ImageTransform(size or next(iter(sizes)), channels, fit or "crop", value_range=value_range)


def _probe(item: Item) -> tuple[tuple[int, int], bool] | None:
    try:
        if isinstance(item.content, str | Path):
            return images.probe(item.content)
        width, height = images.normal(item.content)[0].size
        return (height, width), images.is_grey(item.content)
    except DataError:
        return None


def _load(item: Item, value_range: tuple[float, float] | None) -> tuple[Any, Any]:
    """The normal picture and remarks on it, or None and why it cannot be had."""
    try:
        if isinstance(item.content, str | Path):
            return images.load(item.content, value_range)
        return images.normal(item.content, value_range=value_range)
    except DataError as error:
        reason = str(error)
        if isinstance(item.content, str | Path):
            reason = reason.removeprefix(images.shown(item.content) + ": ")
        return None, reason


def _why(item: Item, value_range: tuple[float, float] | None) -> str:
    """Why a picture that cannot be had cannot."""
    return f"{item.name}: {_load(item, value_range)[1]}"


def _decode(
    items: Sequence[Item], transform: ImageTransform, title: str
) -> tuple[Tensor, list[Item], list[tuple[str, str]], Counter[str]]:
    """Pixels of those pictures that can be read, those pictures, why the others cannot, and counted remarks."""

    def one(item: Item) -> Any:
        image, remarks = _load(item, transform.value_range)
        if image is None:
            return remarks
        pixels, done = transform.normal(image, remarks)
        return transform.encode(pixels), done

    first = torch.float32 if transform.continuous else torch.uint8
    x = torch.empty((len(items), transform.channels, *transform.size), dtype=first)
    kept: list[Item] = []
    bad: list[tuple[str, str]] = []
    counts: Counter[str] = Counter()
    for item, result in zip(items, _map(one, items, title), strict=True):
        if isinstance(result, str):
            bad.append((item.name, result))
            continue
        x[len(kept)] = result[0]
        counts.update(result[1])
        kept.append(item)
    return (x if len(kept) == len(items) else x[: len(kept)].clone()), kept, bad, counts


def _map(f: Any, items: Sequence[T], title: str) -> Iterator[Any]:
    """``map`` in threads, in order, with a bar where there is much to do and somebody to see it."""
    if len(items) < 64:
        yield from map(f, items)
        return
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        results: Iterable[Any] = pool.map(f, items)
        if len(items) >= _LARGE and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import track

            results = track(results, title, len(items), console=Console(stderr=True), transient=True)
        yield from results


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"


def from_pillow(found: Sequence[Any], labels: Any = None) -> list[Item]:
    """Items from Pillow pictures held in memory."""
    given = np.asarray(labels).tolist() if labels is not None else [None] * len(found)
    return [Item(image, f"picture {i}", y) for i, (image, y) in enumerate(zip(found, given, strict=True))]
