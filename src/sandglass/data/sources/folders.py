"""Reads folders of pictures: files, splits, classes and pixels."""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sandglass.data import cache
from sandglass.data.rows import Rows, cut
from sandglass.data.sources import axes, decoding, depth, framing, images, labelling
from sandglass.data.sources.layouts import Item
from sandglass.data.sources.raw import Part, Raw, number_classes
from sandglass.data.transform import ImageTransform, Transform
from sandglass.errors import DataError, SaveError

_FEW = 5
_MANY = 2000  # pictures from which a bar is shown
_AT_ONCE = 64
_FITS = 2 * 2**30  # bytes to load into memory at most if the cache cannot be written


def read_folder(
    folder: Path, *, labels: Any = None, labels_from_names: str | None = None, domain: str = "", **options: Any
) -> Raw:
    """Reads a folder of pictures: flat, with class folders, or with ``train``, ``validation`` and ``test`` folders.

    Args:
        folder: the folder.
        labels: None for class folders, ``FILE`` or ``FILE:COLUMN`` for a table of classes, False for none.
        labels_from_names: pattern of file names with their class, see :func:`labelling.check_pattern`.
        domain: which of two domains, see :func:`sandglass.data.sources.layouts.domains`.
        options: see :func:`read_items`.

    Raises:
        DataError: it has no picture, no class for any of them, or as :func:`read_items`.
        NotFoundError: there is no such table.
    """
    found, notes = labelling.listed(folder, labels, labels_from_names, domain)
    if not found.items["train"]:
        raise DataError(
            f"{images.shown(folder)} holds no picture; give a folder with PNG, JPEG, WebP, TIFF, BMP or GIF files."
        )
    if found.bad and options.get("on_bad") == "stop":
        raise DataError(f"{found.notes[-1]}; add it, or leave such pictures out with on_bad='skip' (--on-bad skip).")
    raw = read_items(found.items, folder=folder, role=domain, **options)
    return replace(raw, notes=(*notes, *found.notes, *raw.notes), bad=(*found.bad, *raw.bad), labels=found.where)


def for_pictures(options: dict[str, Any]) -> dict[str, Any]:
    """The options of :func:`read_items`, checked.

    Raises:
        DataError: the transform is not one of pictures.
    """
    transform = options["transform"]
    if transform is not None and not isinstance(transform, ImageTransform):
        raise DataError(f"The model reads rows or arrays of shape {transform.spec().shape}; got pictures.")
    return options


def read_items(
    items: dict[str, list[Item]],
    *,
    size: tuple[int, int] | None = None,
    fit: str | None = None,
    channels: int | None = None,
    value_range: tuple[float, float] | None = None,
    transform: ImageTransform | None = None,
    on_bad: str = "skip",
    folder: Path | None = None,
    cache: bool | None = None,
    half: str = "",
    role: str = "",
) -> Raw:
    """Decodes pictures to a common size.

    Args:
        items: the pictures of each split.
        size: height and width; None if all pictures have the same.
        fit: ``"crop"``, ``"pad"`` or ``"stretch"``; None for ``"crop"``.
        channels: 1, 3 or 4; None for 1 if every picture is grey, else 3.
        value_range: values mapped to black and white in grey pictures of floats or of more than 8 bits.
        transform: used in place of the four above.
        on_bad: ``"skip"`` leaves out pictures that cannot be read, with a note; ``"stop"`` raises an error.
        folder: the root folder of the files, None for pictures in memory.
        cache: whether to cache the pixels on disk and read them from there; None to decide by their size.
        half: for files with two pictures side by side, which one.
        role: distinguishes cache entries for different pictures of the same folder.

    Returns:
        A source whose parts are uint8 ``(N, C, H, W)``, or float32 for a continuous ``transform``.

    Raises:
        DataError: pictures of several sizes without ``size``, no readable picture, or, with ``"stop"``, one that cannot
            be read.
        SaveError: ``cache`` is True and the cache cannot be written.
        ConfigError: another number of channels.
    """
    axes.check_usual(channels)
    every = [item for found in items.values() for item in found]
    with images.quiet():
        read = _read(every, Asked(size, fit, channels, value_range, transform, half, role), folder, cache)
    places = iter(range(len(every)))
    kept = {
        s: [i for i, place in zip(found, places, strict=False) if place not in read.bad] for s, found in items.items()
    }
    bad = tuple((every[place].name, why) for place, why in sorted(read.bad.items()))
    first = ": ".join(bad[0]) if bad else ""
    if not kept["train"]:
        raise DataError(f"None of the {len(items['train'])} pictures can be read. The first: {first}")
    if bad and on_bad == "stop":
        raise DataError(
            f"{len(bad)} of the {len(every)} pictures cannot be read. The first: {first}. "
            "Remove or repair them, or leave them out with on_bad='skip' (--on-bad skip)."
        )
    notes = [f"{_count(n, 'picture')}: {remark}" for remark, n in sorted(depth.summed(read.remarks).items())]
    if value_range is not None and not any(remark.startswith("values from") for remark in read.remarks):
        notes.append("value_range changed no picture: it is for pictures of floats or of more than 8 bits")
    if bad:
        some = "; ".join(": ".join(pair) for pair in bad[:_FEW])
        more = f"; and {len(bad) - _FEW} more" if len(bad) > _FEW else ""
        notes.append(f"{_count(len(bad), 'file')} could not be read: {some}{more}")
    labels = {split: [i.label for i in found] for split, found in kept.items()}
    numbered, classes = number_classes({s: None if None in y else y for s, y in labels.items()})
    parts = dict(zip(kept, cut(read.x, [len(found) for found in kept.values()]), strict=True))
    splits = {s: Part(parts[s], numbered[s], names=tuple(i.name for i in found)) for s, found in kept.items() if found}
    return Raw(splits, read.transform, classes=classes, notes=(*notes, *read.notes), bad=bad)


@dataclass(frozen=True)
class Asked:
    """The options of :func:`read_items`."""

    size: tuple[int, int] | None
    fit: str | None
    channels: int | None
    value_range: tuple[float, float] | None
    transform: ImageTransform | None
    half: str = ""
    role: str = ""

    def made(self, size: tuple[int, int], channels: int) -> ImageTransform:
        """The transform for a given size and number of channels."""
        return ImageTransform(size, channels, self.fit or "crop", value_range=self.value_range)

    def plain(self) -> dict[str, Any]:
        """Plain values."""
        transform = None if self.transform is None else self.transform.to_dict()
        usual = {
            "size": self.size,
            "fit": self.fit,
            "channels": self.channels,
            "value_range": self.value_range,
            "transform": transform,
        }
        return usual | {name: value for name in ("half", "role") if (value := getattr(self, name))}


@dataclass(frozen=True)
class _Pixels:
    """Decoded pictures, and the reasons, by position, why others cannot be read."""

    x: Tensor | Rows
    transform: ImageTransform
    bad: dict[int, str]
    remarks: dict[str, int]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Way:
    """A transform to decode with; if ``guessed`` from the first picture, it is checked while the others are read."""

    transform: ImageTransform
    guessed: bool = False


@dataclass(frozen=True)
class _Job:
    """Pictures to decode with a pool of workers: the cache entry, its stamp, and whether to cache them."""

    every: Sequence[Item]
    asked: Asked
    crew: decoding.Crew
    where: Path | None
    stamp: str | None
    keep: bool | None


class _Otherwise(Exception):  # noqa: N818
    """The pictures do not match the transform guessed from the first one."""


def _read(every: Sequence[Item], asked: Asked, folder: Path | None, keep: bool | None) -> _Pixels:
    """Reads the pixels from the cache, or decodes them into the cache or into memory.

    Reading all headers first takes a third of the time of decoding small pictures. So the transform is guessed from the
    first picture; all headers are read only if the guess proves wrong.
    """
    contents = [item.content for item in every]
    with decoding.Crew(contents) as crew:
        where = stamp = None
        if folder is not None and keep is not False:
            where = cache.place(folder, asked.plain())
            if not cache.is_taken(where):
                crew.start()
            # The stamp is computed before decoding, so that a change in the meantime is noticed next time.
            stamp = cache.stamp(folder, contents, asked.plain())
            found = cache.find(where, stamp)
            if found is not None:
                return _kept(found)
        job = _Job(every, asked, crew, where, stamp, keep)
        guess = _guess(every[0], asked)
        if guess is not None:
            with suppress(_Otherwise):
                return _decode(job, guess)
        return _decode(job, _Way(_fit(every, asked)))


def _guess(first: Item, asked: Asked) -> _Way | None:
    """The transform if it is given, else a guess from the first picture; None if that cannot be read."""
    if asked.transform is not None:
        return _Way(asked.transform)
    if asked.size is not None and asked.channels is not None:
        return _Way(asked.made(asked.size, asked.channels))
    seen = _probe(first.content, asked.half)
    if isinstance(seen, str):
        return None
    size, grey = seen
    return _Way(asked.made(asked.size or size, asked.channels or (1 if grey else 3)), True)


def _decode(job: _Job, way: _Way) -> _Pixels:
    """Decodes the pictures into the cache or into memory."""
    size = len(job.every) * way.transform.channels * math.prod(way.transform.size)
    size *= _dtype(way).itemsize
    where, stamp = job.where, job.stamp
    if where is None or stamp is None or (not job.keep and size < cache.LARGE):
        return _in_memory(job, way)
    try:
        with cache.held(where, size):  # another process may have built it while this one waited
            return _kept(cache.find(where, stamp) or _in_cache(job, way, where, stamp))
    except SaveError as error:
        if job.keep or size > _FITS:
            raise
        return replace(_in_memory(job, way), notes=(f"pictures were not cached: {error}",))


def _dtype(way: _Way) -> np.dtype[Any]:
    """The dtype of stored pixels."""
    return np.dtype(np.float32 if way.transform.continuous else np.uint8)


def _in_memory(job: _Job, way: _Way) -> _Pixels:
    """Decodes the pictures into memory."""
    bad: dict[int, str] = {}
    remarks: Counter[str] = Counter()
    x = np.empty((len(job.every), way.transform.channels, *way.transform.size), _dtype(way))
    end = 0
    for part in _parts(job, way, bad, remarks):
        start, end = end, end + part.count
        x[start:end] = np.frombuffer(part.data, x.dtype).reshape(-1, *x.shape[1:])
    return _Pixels(torch.from_numpy(x[:end]), way.transform, bad, dict(remarks))


def _in_cache(job: _Job, way: _Way, where: Path, stamp: str) -> cache.Kept:
    """Decodes the pictures into the cache."""
    bad: dict[int, str] = {}
    remarks: Counter[str] = Counter()

    def about() -> dict[str, Any]:
        return {"transform": way.transform.to_dict(), "bad": bad, "remarks": remarks}

    parts = _parts(job, way, bad, remarks)
    return cache.build(where, stamp, (way.transform.channels, *way.transform.size), _dtype(way), parts, about)


def _kept(found: cache.Kept) -> _Pixels:
    """The pictures of a cache entry."""
    about, n = found.about, len(found.store.digests)
    transform = Transform.from_dict(about["transform"])
    assert isinstance(transform, ImageTransform)
    x = Rows(found.store, torch.arange(n))
    note = f"pictures were decoded into the cache ({x.nbytes / 2**20:,.0f} MiB) and are read from there"
    return _Pixels(x, transform, {int(k): v for k, v in about["bad"].items()}, dict(about["remarks"]), (note,))


def _parts(job: _Job, way: _Way, bad: dict[int, str], remarks: Counter[str]) -> Iterator[decoding.Decoded]:
    """Decodes the pictures in batches, with a progress bar if there are many and stderr is a terminal.

    Raises:
        _Otherwise: they do not match the guessed transform.
    """
    start = 0
    with _bar(len(job.every)) as show:
        for part in job.crew.decode(way.transform, job.asked.half):
            if way.guessed and not _as_guessed(part.seen, job.asked, way.transform):
                raise _Otherwise
            bad.update({start + place: why for place, why in part.bad.items()})
            remarks.update(part.remarks)
            start += part.count + len(part.bad)
            yield part
            show(start)
    # The header of a picture that cannot be decoded may still affect the transform.
    if way.guessed and bad and _fit(job.every, job.asked) != way.transform:
        raise _Otherwise


def _as_guessed(seen: Collection[tuple[int, int, bool]], asked: Asked, guess: ImageTransform) -> bool:
    sizes, greys = {(h, w) for h, w, _ in seen}, {grey for _, _, grey in seen}
    # A guess of 3 channels means that the first picture is in colour, so that all are read as RGB.
    return (asked.size is not None or sizes <= {guess.size}) and (
        asked.channels is not None or guess.channels == 3 or greys <= {True}
    )


@contextmanager
def _bar(total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar on a terminal; yields a function that takes the number of pictures done."""
    if total < _MANY or not sys.stderr.isatty():
        yield lambda done: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("Reading pictures", total=total)
        yield lambda done: bar.update(task, completed=done)


def _fit(every: Sequence[Item], asked: Asked) -> ImageTransform:
    """The transform determined from the headers of all pictures."""
    size, channels = asked.size, asked.channels
    parts = decoding.batches([item.content for item in every], _AT_ONCE, decoding.workers())
    found = decoding.ahead(lambda part: [_probe(content, asked.half) for content in part], parts, decoding.workers())
    probed = [p for part in found for p in part]
    seen = [p for p in probed if not isinstance(p, str)]
    if not seen:
        raise DataError(f"None of the {len(every)} pictures can be read. The first: {every[0].name}: {probed[0]}")
    sizes = Counter(s for s, _ in seen)
    if size is None and len(sizes) > 1:
        # A damaged file may declare any size, so other sizes count only if such a picture can be decoded.
        common = sizes.most_common(1)[0][0]
        odd = (item.content for item, p in zip(every, probed, strict=True) if not isinstance(p, str) and p[0] != common)
        if all(decoding.load(content, asked.value_range, asked.half)[0] is None for content in odd):
            seen = [p for p in seen if p[0] == common]
            sizes = Counter([common])
    if size is None and len(sizes) > 1:
        common_sizes = sorted(sizes.items(), key=lambda pair: (-pair[1], pair[0]))
        listed = ", ".join(f"{h}x{w} ({n})" for (h, w), n in common_sizes[:_FEW])
        raise DataError(
            f"The pictures have {len(sizes)} sizes (height x width): {listed}{', ...' if len(sizes) > _FEW else ''}; "
            "choose a common size, size=64 (--size 64), and how to resize, fit='crop', 'pad' or 'stretch'."
        )
    if channels is None:
        channels = 1 if all(grey for _, grey in seen) else 3
    return asked.made(size or next(iter(sizes)), channels)


def _probe(content: Any, half: str) -> tuple[tuple[int, int], bool] | str:
    """The upright size and whether a picture is grey; the reason if it cannot be read."""
    try:
        content = decoding.fetched(content)
        if isinstance(content, str | Path):
            size, grey = images.probe(content)
        else:
            width, height = images.normal_object(content)[0].size
            size, grey = (height, width), images.is_grey(content)
    except DataError as error:
        name = f"{images.shown(content)}: " if isinstance(content, str | Path) else ""
        return str(error).removeprefix(name)
    size = framing.half_size(size, half)
    return (size, grey) if min(size) else "it has no pixels"


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"
