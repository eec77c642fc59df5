"""The census of pictures: statistics of each picture, then of all of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from sandglass.census.census import NAMED, Sheet
from sandglass.census.copies import Near, exact_groups, near_pairs
from sandglass.census.look import FRAME, SIDE, Look, look_at
from sandglass.data.sources import depth, framing, images
from sandglass.errors import DataError

TILE = 64
"""Side of a thumbnail on a sheet in pixels."""

ORDER = {"train": 0, "validation": 1, "test": 2}
"""Order of splits: a picture of a later split that is also in an earlier one is a leak."""

_A_CLASS = 12
_CLASSES = 12
_PAIRS = 8


@dataclass(frozen=True)
class Entry:
    """One picture of a source.

    Args:
        get: returns its file or Pillow picture.
        name: its name in messages.
        split: its split.
        label: its class, or None.
        file: whether it is a file, not in memory.
    """

    get: Callable[[], Any]
    name: str
    split: str
    label: str | None = None
    file: bool = False


@dataclass(frozen=True)
class Seen:
    """The pictures that could be read with their statistics, and the reasons why others could not."""

    entries: tuple[Entry, ...]
    looks: tuple[Look, ...]
    bad: tuple[tuple[str, str], ...]
    average: npt.NDArray[np.float64]


@dataclass(frozen=True)
class Alike:
    """Positions of duplicates: ``exact`` in groups, ``near`` in pairs."""

    exact: Sequence[Sequence[int]]
    near: Near


def look_through(
    entries: Sequence[Entry], each: Callable[..., Iterable[Any]], value_range: tuple[float, float] | None = None
) -> Seen:
    """Computes the statistics of every picture.

    Args:
        entries: the pictures.
        each: a ``map`` function that may use threads and show a progress bar.
        value_range: see :func:`sandglass.census.look.look_at`.
    """
    good, looks, bad = [], [], []
    total = np.zeros((FRAME, FRAME, 3))
    with images.quiet():
        for entry, found in zip(entries, each(partial(_try, value_range=value_range), entries), strict=True):
            if isinstance(found, str):
                bad.append((entry.name, found))
                continue
            look, frame = found
            total += frame
            good.append(entry)
            looks.append(look)
    return Seen(tuple(good), tuple(looks), tuple(bad), total / max(1, len(looks)))


def _try(entry: Entry, value_range: tuple[float, float] | None) -> Any:
    try:
        return look_at(entry.get(), value_range)
    except (DataError, OSError) as error:
        text = " ".join(str(error).split())
        return text.rsplit(f"{entry.name.rsplit('/', 1)[-1]}: ", 1)[-1]


def picture_facts(seen: Seen, alike: Alike) -> dict[str, Any]:
    """The facts about pictures; lists of names have at most :data:`NAMED` items."""
    looks = seen.looks
    return {
        "examples": len(looks),
        "splits": splits(seen.entries),
        "sizes": [
            {"height": h, "width": w, "count": n}
            for (h, w), n in sorted(Counter(v.size for v in looks).items(), key=lambda kv: (-kv[1], kv[0]))
        ],
        "formats": _counts(v.format for v in looks if v.format),
        "modes": _counts(v.mode for v in looks),
        "bits": _counts(str(bits(v)) for v in looks),
        "alpha": sum(v.alpha for v in looks),
        "remarks": depth.summed(_counts(r for v in looks for r in v.remarks)),
        "bytes": _bytes([v.length for v in looks if v.length]),
        "values": values(looks),
        "odd": odd(seen),
        "copies": copies(seen, alike),
        "unreadable": {"count": len(seen.bad), "files": named(seen.bad)},
    }


def splits(entries: Sequence[Entry]) -> dict[str, Any]:
    """Number of examples by split and class."""
    made: dict[str, Any] = {}
    for split in sorted({e.split for e in entries}, key=lambda s: ORDER.get(s, 3)):
        labels = Counter(e.label for e in entries if e.split == split and e.label is not None)
        count = sum(e.split == split for e in entries)
        made[split] = {"examples": count, "classes": dict(sorted(labels.items()))}
    return made


def bits(look: Look) -> int:
    """Bit depth of the file."""
    return 1 if look.mode == "1" else 16 if any("16-bit" in r for r in look.remarks) else 8


def values(looks: Sequence[Look]) -> dict[str, Any]:
    """Mean and standard deviation over the pixels of all pictures, with equal weight for each picture; 0 to 1."""
    if not looks:
        return {}
    grey = all(len(v.mean) == 1 for v in looks)
    width = 1 if grey else 3
    mean = np.array([_wide(v.mean, width) for v in looks]).mean(0)
    square = np.array([_wide(v.square, width) for v in looks]).mean(0)
    std = np.sqrt(np.maximum(0, square - mean**2))
    return {
        "channels": ["grey"] if grey else ["red", "green", "blue"],
        "mean": [round(float(v) / 255, 6) for v in mean],
        "std": [round(float(v) / 255, 6) for v in std],
    }


def _wide(channels: tuple[float, ...], width: int) -> tuple[float, ...]:
    """Repeats a grey value as red, green and blue, if other pictures are in colour."""
    return channels if len(channels) == width else channels * width


def odd(seen: Seen) -> dict[str, Any]:
    """Unusual pictures, by criterion.

    Clipping and blur are judged relative to the other pictures: drawings, for example, are full of pure white.
    """
    looks = seen.looks
    clipped = np.array([v.clipped for v in looks] or [0.0])
    sharp = np.log(np.array([max(v.sharp, 1e-3) for v in looks] or [1.0]))
    middle = float(np.median(sharp))
    spread = 1.4826 * float(np.median(np.abs(sharp - middle))) + 0.05
    rare = float(np.median(clipped)) < 0.1
    tests: dict[str, Callable[[int, Look], bool]] = {
        "constant": lambda i, v: v.flat,
        "black": lambda i, v: not v.flat and v.black >= 0.99,
        "white": lambda i, v: not v.flat and v.white >= 0.99,
        "saturated": lambda i, v: not v.flat and rare and v.clipped >= 0.5,
        "blurred": lambda i, v: not v.flat and sharp[i] < middle - max(4 * spread, 1.6),
    }
    made: dict[str, Any] = {}
    for what, test in tests.items():
        found = [i for i, look in enumerate(looks) if test(i, look)]
        made[what] = {"count": len(found), "files": [seen.entries[i].name for i in found[:NAMED]]}
    return made


def find_copies(seen: Seen) -> Alike:
    """Finds exact duplicates, and near duplicates among the distinct pictures."""
    exact = exact_groups([v.digest for v in seen.looks])
    extra = {i for group in exact for i in group[1:]}
    rest = [i for i, look in enumerate(seen.looks) if i not in extra and not look.flat]
    grey = np.frombuffer(b"".join(seen.looks[i].grey for i in rest), np.uint8).reshape(len(rest), SIDE * SIDE)
    colour = np.array([_wide(seen.looks[i].mean, 3) for i in rest], np.float32).reshape(-1, 3)
    near = near_pairs(grey, colour)
    return Alike(exact, replace(near, pairs=np.array(rest, np.int64)[near.pairs]))


def copies(seen: Seen, alike: Alike) -> dict[str, Any]:
    """Facts about exact and near duplicates: counts, by splits, and with conflicting labels."""
    exact, near, entries = alike.exact, alike.near, seen.entries
    pairs = near.pairs.tolist()
    scored = zip(pairs[:NAMED], near.similarity.tolist(), strict=False)
    return {
        "exact": {
            "groups": len(exact),
            "extra": sum(len(group) - 1 for group in exact),
            "across": _across(entries, exact),
            "conflicting": sum(len({entries[i].label for i in group} - {None}) > 1 for group in exact),
            "files": [[entries[i].name for i in group[:NAMED]] for group in exact[:NAMED]],
        },
        "near": {
            "pairs": len(pairs),
            "pictures": len({i for pair in pairs for i in pair}),
            "across": _across(entries, pairs),
            "conflicting": sum(len({entries[a].label, entries[b].label} - {None}) > 1 for a, b in pairs),
            "bar": near.bar,
            "all_compared": near.whole,
            "files": [{"a": entries[a].name, "b": entries[b].name, "similarity": round(s, 4)} for (a, b), s in scored],
        },
    }


def _across(entries: Sequence[Entry], groups: Iterable[Sequence[int]]) -> list[dict[str, Any]]:
    """Number of pictures of a later split with a duplicate in an earlier one; ``train`` is the first."""
    shared: dict[tuple[str, str], set[int]] = {}
    for group in groups:
        by = {entries[i].split for i in group}
        for i in group if len(by) > 1 else ():
            for other in by:
                if ORDER.get(other, 3) < ORDER.get(entries[i].split, 3):
                    shared.setdefault((entries[i].split, other), set()).add(i)
    return [{"split": s, "other": o, "pictures": len(found)} for (s, o), found in sorted(shared.items())]


def sheets(seen: Seen, alike: Alike, facts: Mapping[str, Any]) -> tuple[Sheet, ...]:
    """Sheets of examples by class, duplicates, unusual pictures, and the mean of all."""
    made = []
    with images.quiet():
        for label in _classes(seen.entries):
            own = [i for i, e in enumerate(seen.entries) if e.label == label]
            chosen = own[:: max(1, len(own) // _A_CLASS)][:_A_CLASS]
            made.append(_sheet(seen, "examples", label or "", chosen))
        made.append(_sheet(seen, "exact", "exact duplicates", [i for g in alike.exact[:_PAIRS] for i in g[:2]]))
        made.append(_sheet(seen, "near", "near duplicates", alike.near.pairs[:_PAIRS].ravel().tolist()))
        place = {e.name: i for i, e in enumerate(seen.entries)}
        for what, found in facts["odd"].items():
            made.append(_sheet(seen, what, what, [place[n] for n in found["files"][:_A_CLASS]]))
    if seen.looks:
        made.append(Sheet("mean", "mean of all pictures", (_mean(seen),), ("mean",)))
    return tuple(sheet for sheet in made if sheet is not None)


def _mean(seen: Seen) -> npt.NDArray[np.uint8]:
    """The mean of all pictures, with the most common aspect ratio."""
    square = np.round(seen.average).astype(np.uint8)
    height, width = Counter(look.size for look in seen.looks).most_common(1)[0][0]
    scale = len(square) / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(images.pillow().fromarray(square).resize(size))


def _classes(entries: Sequence[Entry]) -> list[str | None]:
    labels = sorted({e.label for e in entries if e.label is not None})
    return [*labels[:_CLASSES]] if labels else [None]


def _sheet(seen: Seen, key: str, title: str, chosen: Sequence[int]) -> Sheet | None:
    tiles, names = [], []
    for i in chosen:
        try:
            tiles.append(_tile(seen.entries[i].get()))
            names.append(seen.entries[i].name)
        except (DataError, OSError):  # deleted or changed in the meantime
            continue
    return Sheet(key, title, tuple(tiles), tuple(names)) if tiles else None


def _tile(content: Any) -> npt.NDArray[np.uint8]:
    """A thumbnail on a transparent square; small pictures are enlarged by a whole factor."""
    image, _ = images.normal_object(content) if hasattr(content, "convert") else images.load(content)
    image, _ = framing.to_channels(image, 3, (255, 255, 255))
    module, longest = images.pillow(), max(image.size)
    scale = TILE // longest if longest <= TILE else TILE / longest
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    resample = module.Resampling.NEAREST if scale >= 1 else module.Resampling.LANCZOS
    canvas = module.new("RGBA", (TILE, TILE))
    canvas.paste(image.resize(size, resample, reducing_gap=3.0), tuple((TILE - n) // 2 for n in size))
    return np.asarray(canvas)


def _bytes(sizes: Sequence[int]) -> dict[str, int]:
    if not sizes:
        return {}
    ordered = sorted(sizes)
    middle = ordered[len(ordered) // 2]
    return {"total": sum(sizes), "smallest": ordered[0], "median": middle, "largest": ordered[-1]}


def _counts(found: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(found).items(), key=lambda kv: (-kv[1], kv[0])))


def named(found: Iterable[tuple[str, str]]) -> list[dict[str, str]]:
    """The first :data:`NAMED` files with the reasons."""
    return [{"name": name, "reason": reason} for name, reason in islice(found, NAMED)]
