"""A folder of pictures: which files there are, which split and class they belong to, and their pixels."""

from __future__ import annotations

import math
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sandglass.data import cache
from sandglass.data.rows import Rows, cut
from sandglass.data.sources import decoding, images
from sandglass.data.sources.raw import Part, Raw, number_classes
from sandglass.data.transform import ImageTransform, Transform
from sandglass.errors import DataError, SaveError

_SPLITS = {
    "train": "train", "training": "train", "val": "validation", "valid": "validation", "validation": "validation",
    "test": "test", "testing": "test",
}  # fmt: skip
_IGNORED = ("__macosx", "thumbs.db", "desktop.ini")
_FEW = 5
_MANY = 2000  # pictures from which a bar is shown
_AT_ONCE = 64
_FITS = 2 * 2**30  # bytes that are taken into memory where there is no cache to be had


@dataclass(frozen=True)
class Item:
    """One picture of a source.

    Args:
        content: its file, or a Pillow picture.
        name: what messages call it.
        label: its class, or None.
    """

    content: Any
    name: str
    label: str | int | None = None


def read_folder(folder: Path, *, labels: bool, **options: Any) -> Raw:
    """A folder of pictures: flat, or with a folder a class, or with ``train``, ``validation`` and ``test`` at the top.

    Args:
        folder: where.
        labels: whether folders name classes.
        options: see :func:`read_items`.

    Raises:
        DataError: no picture in it, or as :func:`read_items`.
    """
    tops = {name: path for path in _folders(folder) if (name := _SPLITS.get(path.name.lower()))}
    roots = tops if "train" in tops else {"train": folder}
    items = {split: list_items(root, labels=labels) for split, root in roots.items()}
    items = {split: found for split, found in items.items() if found or split == "train"}
    if not items["train"]:
        raise DataError(
            f"{images.shown(folder)} holds no picture; give a folder with PNG, JPEG, WebP, TIFF, BMP or GIF files."
        )
    return read_items(items, folder=folder, **options)


def list_items(root: Path, *, labels: bool) -> list[Item]:
    """The pictures below a folder, in the order of their names' bytes; folders that are links are not entered.

    The folders right below ``root`` are classes where there are two or more with pictures and no picture beside them.
    """
    files = sorted(_walk(root), key=lambda p: os.fsencode(p.relative_to(root)))
    tops = [p.relative_to(root).parts[0] if p.parent != root else None for p in files]
    classed = labels and None not in tops and len(set(tops)) > 1
    return [
        Item(p, images.shown(p.relative_to(root)), images.shown(top) if classed and top else None)
        for p, top in zip(files, tops, strict=True)
    ]


def read_items(
    items: dict[str, list[Item]],
    *,
    size: tuple[int, int] | None = None,
    fit: str | None = None,
    channels: int | None = None,
    transform: ImageTransform | None = None,
    folder: Path | None = None,
    cache: bool | None = None,
) -> Raw:
    """Pictures to bytes of one size.

    Args:
        items: for each split its pictures.
        size: height and width; None where all have the same.
        fit: ``"crop"``, ``"pad"`` or ``"stretch"``; None for ``"crop"``.
        channels: 1, 3 or 4; None for 1 where every picture is grey and 3 otherwise.
        transform: used in place of the three above.
        folder: the root of all files, where they are files.
        cache: whether to keep the pixels in the cache and read them from there; None for where they are large.

    Returns:
        Parts of uint8 ``(N, C, H, W)``. Pictures that cannot be read are left out, with a note.

    Raises:
        DataError: pictures of several sizes where none is asked for, or none that can be read.
        SaveError: the cache was asked for and cannot be written.
    """
    every = [item for found in items.values() for item in found]
    with images.quiet():
        read = _read(every, Asked(size, fit, channels, transform), folder, cache)
    places = iter(range(len(every)))
    kept = {
        s: [i for i, place in zip(found, places, strict=False) if place not in read.bad] for s, found in items.items()
    }
    bad = [f"{every[place].name}: {why}" for place, why in sorted(read.bad.items())]
    if not kept["train"]:
        raise DataError(f"None of the {len(items['train'])} pictures can be read. The first: {bad[0]}")
    notes = [f"{_count(n, 'picture')}: {remark}" for remark, n in sorted(read.remarks.items())]
    if bad:
        some = "; ".join(bad[:_FEW]) + (f"; and {len(bad) - _FEW} more" if len(bad) > _FEW else "")
        notes.append(f"{_count(len(bad), 'file')} could not be read: {some}")
    labels = {split: [i.label for i in found] for split, found in kept.items()}
    labelled = all(v is not None for y in labels.values() for v in y)
    numbered, classes = number_classes({s: y if labelled else None for s, y in labels.items()})
    parts = dict(zip(kept, cut(read.x, [len(found) for found in kept.values()]), strict=True))
    splits = {s: Part(parts[s], numbered[s], tuple(i.name for i in found)) for s, found in kept.items() if found}
    return Raw(splits, read.transform, classes, (*notes, *read.notes))


@dataclass(frozen=True)
class Asked:
    """What was asked of the pictures; see :func:`read_items`."""

    size: tuple[int, int] | None
    fit: str | None
    channels: int | None
    transform: ImageTransform | None

    def plain(self) -> dict[str, Any]:
        """Plain values."""
        transform = None if self.transform is None else self.transform.to_dict()
        return {"size": self.size, "fit": self.fit, "channels": self.channels, "transform": transform}


@dataclass(frozen=True)
class _Pixels:
    """Those pictures that can be read, and why others (by their place among all) cannot."""

    x: Tensor | Rows
    transform: ImageTransform
    bad: dict[int, str]
    remarks: dict[str, int]
    notes: tuple[str, ...] = ()


def _read(every: Sequence[Item], asked: Asked, folder: Path | None, keep: bool | None) -> _Pixels:
    """The pixels, from the cache if they are there or ought to be, else decoded into memory."""
    if folder is None or keep is False:
        return _decode(every, asked.transform or _fit(every, asked))
    files = [item.content for item in every]
    where = cache.place(folder, asked.plain())
    found = cache.find(where, cache.stamp(folder, files, asked.plain())) if where.is_dir() else None
    if found is not None:
        return _kept(found)
    transform = asked.transform or _fit(every, asked)
    size = len(every) * _row(transform)
    if not keep and size < cache.LARGE:
        return _decode(every, transform)
    stamp = cache.stamp(folder, files, asked.plain())  # before anything is read, so that a change meanwhile is noticed
    try:
        with cache.held(where, size):  # another process may have made it while this one waited
            return _kept(cache.find(where, stamp) or _keep(where, stamp, files, transform))
    except SaveError as error:
        if keep or size > _FITS:
            raise
        return replace(_decode(every, transform), notes=(f"pictures were not kept in the cache: {error}",))


def _keep(where: Path, stamp: str, files: Sequence[Path], transform: ImageTransform) -> cache.Kept:
    """Decodes pictures into the cache."""
    bad: dict[int, str] = {}
    remarks: Counter[str] = Counter()

    def about() -> dict[str, Any]:
        return {"transform": transform.to_dict(), "bad": bad, "remarks": remarks}

    parts = _decoded(files, transform, bad, remarks)
    shape = (transform.channels, *transform.size)
    return cache.build(where, stamp, shape, decoding.dtype_of(transform), parts, about)


def _kept(found: cache.Kept) -> _Pixels:
    """What the cache holds."""
    about, n = found.about, len(found.store.digests)
    transform = Transform.from_dict(about["transform"])
    assert isinstance(transform, ImageTransform)
    x = Rows(found.store, torch.arange(n))
    note = f"pictures were decoded into the cache ({x.nbytes / 2**20:,.0f} MiB) and are read from there"
    return _Pixels(x, transform, {int(k): v for k, v in about["bad"].items()}, dict(about["remarks"]), (note,))


def _decode(items: Sequence[Item], transform: ImageTransform) -> _Pixels:
    """Decodes pictures into memory."""
    bad: dict[int, str] = {}
    remarks: Counter[str] = Counter()
    x = np.empty((len(items), transform.channels, *transform.size), decoding.dtype_of(transform))
    end = 0
    for part in _decoded([item.content for item in items], transform, bad, remarks):
        start, end = end, end + len(part.pixels)
        x[start:end] = part.pixels
    return _Pixels(torch.from_numpy(x[:end]), transform, bad, dict(remarks))


def _decoded(
    contents: Sequence[Any], transform: ImageTransform, bad: dict[int, str], remarks: Counter[str]
) -> Iterator[decoding.Decoded]:
    """The pictures part by part, with a bar where there are many and somebody to see it."""
    with ExitStack() as stack:
        bar = task = None
        if len(contents) >= _MANY and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import Progress

            bar = stack.enter_context(Progress(console=Console(stderr=True), transient=True))
            task = bar.add_task("Reading pictures", total=len(contents))
        start = 0
        for part in decoding.decode(contents, transform):
            bad.update({start + place: why for place, why in part.bad.items()})
            remarks.update(part.remarks)
            start += len(part.pixels) + len(part.bad)
            yield part
            if bar is not None and task is not None:
                bar.update(task, completed=start)


def _row(transform: ImageTransform) -> int:
    """Bytes of a decoded picture."""
    return transform.channels * math.prod(transform.size) * decoding.dtype_of(transform).itemsize


def _fit(every: Sequence[Item], asked: Asked) -> ImageTransform:
    """The transform that suits the pictures' headers."""
    size, fit, channels = asked.size, asked.fit, asked.channels
    if size is not None and channels is not None:
        return ImageTransform(size, channels, fit or "crop")
    parts = (every[i : i + _AT_ONCE] for i in range(0, len(every), _AT_ONCE))
    found = decoding.ahead(lambda part: [_probe(item) for item in part], parts, decoding.workers())
    probed = [p for part in found for p in part]
    seen = [p for p in probed if p is not None]
    if not seen:
        why = decoding.load(every[0].content)[1]
        raise DataError(f"None of the {len(every)} pictures can be read. The first: {every[0].name}: {why}")
    sizes = Counter(s for s, _ in seen)
    if size is None and len(sizes) > 1:
        # A damaged file may claim any size: only pictures that decode count.
        common = sizes.most_common(1)[0][0]
        odd = [i for i, p in enumerate(probed) if p is not None and p[0] != common]
        for i in odd:
            if decoding.load(every[i].content)[0] is None:
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
    return ImageTransform(size or next(iter(sizes)), channels, fit or "crop")


def _probe(item: Item) -> tuple[tuple[int, int], bool] | None:
    try:
        if isinstance(item.content, Path):
            return images.probe(item.content)
        width, height = images.normal(item.content)[0].size
        return (height, width), images.is_grey(item.content)
    except DataError:
        return None


def _walk(folder: Path) -> Iterator[Path]:
    """Regular files below a folder whose names end like a picture's."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(".") or entry.name.lower() in _IGNORED:
                continue
            path = folder / entry.name
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(path)
            elif images.is_picture(path) and entry.is_file():
                yield path


def _folders(folder: Path) -> list[Path]:
    with os.scandir(folder) as entries:
        return sorted(folder / e.name for e in entries if e.is_dir(follow_symlinks=False))


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"


def from_pillow(found: Sequence[Any], labels: Any = None) -> list[Item]:
    """Items from Pillow pictures held in memory."""
    given = np.asarray(labels).tolist() if labels is not None else [None] * len(found)
    return [Item(image, f"picture {i}", y) for i, (image, y) in enumerate(zip(found, given, strict=True))]
