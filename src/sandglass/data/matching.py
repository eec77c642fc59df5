"""Matches companions with their examples: by file name, by position, or as columns of the same table."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sandglass.data import cells, reading
from sandglass.data.rows import take
from sandglass.data.sources import archives, arrays, axes, folders, images, layouts
from sandglass.data.sources.layouts import Item
from sandglass.data.sources.raw import SPLITS, Part, Raw
from sandglass.data.transform import ImageTransform, TableTransform, Transform
from sandglass.errors import ConfigError, DataError
from sandglass.registry import nearest
from sandglass.runs.storage import is_there

OPTIONS = ("channels_at", "value_range")
"""Options that a companion or an unpaired set of arrays may have of its own."""


@dataclass(frozen=True)
class Home:
    """The location of a source of picture files.

    Args:
        place: the folder, archive or picture.
        domain: which of two domains, see :func:`sandglass.data.sources.layouts.domains`; empty if there is one.
        half: which half of each picture; empty for the whole.
    """

    place: Path
    domain: str = ""
    half: str = ""

    def listed(self) -> dict[str, list[Item]]:
        """Its pictures by split."""
        if self.place.is_file() and not archives.is_archive(self.place):
            return {"train": [Item(self.place, images.shown(self.place.name))]}
        return layouts.list_splits(self.folder, labels=False, domain=self.domain)[0]

    @property
    def folder(self) -> Path:
        """The folder that the pictures are in."""
        if self.place.is_dir():
            return self.place
        return archives.unpack(self.place)[0] if archives.is_archive(self.place) else self.place.parent


@dataclass(frozen=True)
class Wanted:
    """The companions to attach.

    Args:
        given: sources of companions by name: a path, an array, columns, a derivation, or another :class:`Home`.
        absent: ``(N,)`` booleans by name, True where an example lacks the companion.
        home: location of the examples, None if they are not picture files.
        options: options for pictures: ``size``, ``fit``, ``value_range``, ``on_bad``; and ``channels_at`` for arrays.
        cache: whether to cache decoded pictures on disk.
        known: the transforms of a trained model's companions, by name; None without a model.
    """

    given: Mapping[str, Any]
    absent: Mapping[str, Any] = field(default_factory=dict)
    home: Home | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    cache: bool | None = None
    known: Mapping[str, Transform] | None = None


def by_name(raw: Raw, name: str, wanted: Wanted, other: Home, known: Transform | None) -> Raw:
    """Attaches pictures with the same relative path in another folder, ignoring file extensions."""
    assert wanted.home is not None
    keys = {split: {item.name: item.key for item in found} for split, found in wanted.home.listed().items()}
    theirs = _Listing(other)
    found = {s: [theirs.find(s, keys[s][n]) for n in part.names] for s, part in raw.parts.items()}
    items = {item.name: item for some in found.values() for item in some if item is not None}
    if not items:
        split, part = next(iter(raw.parts.items()))
        raise DataError(
            f"no picture in {images.shown(other.place)} has the same name as one in "
            f"{images.shown(wanted.home.place)}; there is none for {part.names[0]}, for example."
        )
    if known is not None and not isinstance(known, ImageTransform):
        raise DataError(f"the model reads rows or arrays of shape {known.spec().shape}; got pictures.")
    options = {k: v for k, v in wanted.options.items() if k != "channels_at"}
    options |= ({"size": None, "fit": None, "value_range": None} if known is not None else {})  # fmt: skip
    read = folders.read_items(
        {"train": list(items.values())},
        **options,
        transform=known,
        folder=other.folder,
        cache=wanted.cache if other.place.is_dir() or archives.is_archive(other.place) else False,
        half=other.half,
        role=f"given {other.domain}",
    )
    x, places = read.parts["train"].x, {n: i for i, n in enumerate(read.parts["train"].names)}
    rows = {s: [places.get(i.name, -1) if i is not None else -1 for i in some] for s, some in found.items()}
    parts = {}
    for split, part in raw.parts.items():
        index = torch.tensor(rows[split], dtype=torch.int64)
        parts[split] = _with(part, name, take(x, index.clamp(min=0)), index < 0)
    lacking = [n for s, part in raw.parts.items() for n, row in zip(part.names, rows[s], strict=True) if row < 0]
    notes = [f"companion '{name}': {note}" for note in read.notes]
    if lacking:
        n, total = len(lacking), sum(map(len, rows.values()))
        notes.append(f"companion '{name}': absent for {n} of the {total} pictures, such as {lacking[0]}")
    bad = tuple((f"{name}: {file}", why) for file, why in read.bad)
    raw = replace(raw, parts=parts, bad=(*raw.bad, *bad), given={**raw.given, name: read.transform})
    return raw.noted(*notes)


class _Listing:
    """Pictures by their path relative to the folder of their split, with and without the file extension."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.exact: dict[tuple[str, str], Item] = {}
        self.stems: dict[tuple[str, str], list[Item]] = {}
        for split, items in home.listed().items():
            for item in items:
                self.exact[split, item.key] = item
                self.stems.setdefault((split, _stem(item.key)), []).append(item)

    def find(self, split: str, key: str) -> Item | None:
        """The picture with this relative path, or else with another extension; None if there is none.

        Raises:
            DataError: several match.
        """
        if (split, key) in self.exact:
            return self.exact[split, key]
        found = self.stems.get((split, _stem(key)), [])
        if len(found) > 1:
            raise DataError(
                f"{images.shown(self.home.place)} has {len(found)} pictures for {images.shown(key)}: "
                f"{', '.join(item.name for item in found[:3])}; keep one of them."
            )
        return found[0] if found else None


def _stem(key: str) -> str:
    return os.path.splitext(key)[0]


def with_options(where: Any) -> tuple[Any, dict[str, Any]]:
    """A source, and the options of its own: ``{"source": x, "channels_at": "first", "value_range": (0, 4095)}``.

    Raises:
        ConfigError: an unknown option, or a wrong value of one.
    """
    if not isinstance(where, Mapping) or hasattr(where, "columns") or "source" not in where:
        return where, {}
    own = {key: value for key, value in where.items() if key != "source"}
    if strange := [str(key) for key in own if key not in OPTIONS]:
        raise ConfigError(
            f"'{strange[0]}' is no option of a companion or unpaired set.{nearest(strange[0], [*OPTIONS])} "
            f"They are: {', '.join(OPTIONS)}."
        )
    axes.check_axis(own.get("channels_at"))
    span = images.check_range(own.get("value_range"))
    return where["source"], own | ({} if span is None else {"value_range": span})


def for_one(error: DataError, option: str, name: str) -> str:
    """How to give one companion or unpaired set the option that an error asks for; empty if it asks for none."""
    asked = next((key for key in OPTIONS if f"{key}=" in str(error)), None)
    return f" For this one alone: {option}={{'{name}': {{'source': ..., '{asked}': ...}}}}." if asked else ""


def plain(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of :func:`with_options` as plain values."""
    return {key: list(value) if isinstance(value, tuple) else value for key, value in options.items()}


def by_position(
    raw: Raw, name: str, where: Any, wanted: Wanted, known: Transform | None, gone: Any, own: Mapping[str, Any]
) -> Raw:
    """Attaches an array, a table or another source with as many rows, in the same order as the examples.

    Args:
        raw: the examples.
        name: name of the companion.
        where: its source.
        wanted: options.
        known: its transform in a trained model, or None.
        gone: which examples lack it.
        own: options of its own, see :func:`with_options`.
    """
    absent, pieces = flags(gone, raw), _pieces(where)
    if pieces is not None:
        pieces, absent = _without_gaps(pieces, absent)
        where = pieces
    rows = pieces is not None and any(np.ndim(x) == 2 for x in pieces.values())
    fixed = rows or known is not None
    options = {"size": None, "fit": None} if fixed else {k: wanted.options.get(k) for k in ("size", "fit")}
    shared = {k: wanted.options.get(k) for k in ("on_bad", *OPTIONS)}
    _, read = read_other(where, {**options, "channels": None, "transform": known}, shared, own)
    sizes, counts = ({s: len(p) for s, p in r.parts.items()} for r in (read, raw))
    if sizes != counts:
        raise DataError(f"it has {_counted(sizes)} rows for {_counted(counts)} examples; give one for each, in order.")
    parts = {s: _with(part, name, read.parts[s].x, absent[s]) for s, part in raw.parts.items()}
    forms = {**raw.forms, **({name: read.forms[""]} if "" in read.forms else {})}
    raw = replace(raw, parts=parts, given={**raw.given, name: read.transform}, forms=forms)
    return raw.noted(*(f"companion '{name}': {note}" for note in read.notes))


def read_other(
    where: Any, options: dict[str, Any], shared: Mapping[str, Any], own: Mapping[str, Any], cache: bool | None = None
) -> tuple[str | dict[str, Any] | None, Raw]:
    """A companion or an unpaired set with its own options, else with those of the examples where it needs them.

    ``channels_at`` is needed if its shape has two readings. ``value_range`` holds for picture files, and for an array
    as :func:`sandglass.data.sources.arrays.is_shared` says.

    Args:
        where: its source.
        options: see :func:`sandglass.data.reading.read`; with a ``transform`` no range is needed.
        shared: options of the examples: ``on_bad``, ``value_range`` and ``channels_at``, and further ones for files.
        own: its own, see :func:`with_options`.
        cache: see :func:`sandglass.data.reading.read`.

    Returns:
        The name or path to read it again, None for Python objects, and what was read.
    """
    own, pictured = dict(own), {k: v for k, v in shared.items() if k != "channels_at"}
    if options["transform"] is not None:
        own.pop("value_range", None)
        pictured["value_range"] = None
    span, axis = pictured["value_range"], shared.get("channels_at")
    asked = own if "value_range" in own else {**own, "shared_range": span}
    pictured["value_range"] = own.get("value_range", span)
    try:
        return reading.read(where, False, options, pictured, cache, asked)[1:]
    except DataError:
        if axis is None or own.get("channels_at") is not None:
            raise
        return reading.read(where, False, options, pictured, cache, {**asked, "channels_at": axis})[1:]


def _pieces(where: Any) -> dict[str, Any] | None:
    """Arrays or tables by split; None for other sources."""
    by_split = where if isinstance(where, Mapping) and not hasattr(where, "columns") else {"train": where}
    if not all(str(split) in SPLITS for split in by_split):
        return None
    found = {SPLITS[str(split)]: x for split, x in by_split.items()}
    listed = [isinstance(x, list) and bool(x) and not hasattr(x[0], "convert") for x in found.values()]
    able = [hasattr(x, "columns") or isinstance(x, np.ndarray | Tensor) for x in found.values()]
    return found if all(a or b for a, b in zip(able, listed, strict=True)) else None


def _without_gaps(pieces: Mapping[str, Any], absent: Mapping[str, Tensor]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Replaces companions that are absent or all NaN by 0, and flags them as absent."""
    found, gone = dict(pieces), dict(absent)
    for split, x in pieces.items():
        if hasattr(x, "columns"):
            continue
        array = arrays.plain(x)
        array = array[:, None] if array.ndim == 1 else array
        if split in gone and len(gone[split]) == len(array):
            if array.dtype.kind == "f":
                gone[split] = gone[split] | torch.from_numpy(np.isnan(array.reshape(len(array), -1)).all(1))
            if gone[split].any():
                array = array.copy()
                array[gone[split].numpy()] = 0
        found[split] = torch.from_numpy(np.array(array)) if isinstance(x, Tensor) else array
    return found, gone


def from_columns(raw: Raw, name: str, columns: list[str], absent: Mapping[str, Tensor]) -> Raw:
    """Attaches columns of the table and removes them from the rows."""
    parts = {}
    for split, part in raw.parts.items():
        rows = replace(part, x=part.x.drop(columns=columns))
        parts[split] = _with(rows, name, part.x[columns], absent[split])
    return replace(raw, parts=parts, given={**raw.given, name: None})


def columns(raw: Raw, where: Any) -> list[str]:
    """Parses columns of the table: a name, several joined by +, or a list; empty if they are not columns."""
    frame = raw.parts["train"].x
    if not hasattr(frame, "columns") or not isinstance(where, str | list | tuple):
        return []
    names = [where] if isinstance(where, str) and where in frame.columns else where
    names = names.split("+") if isinstance(names, str) else list(names)
    if not all(isinstance(n, str) for n in names):
        return []
    lacking = [n for n in names if n not in frame.columns]
    if not lacking:
        return names
    if isinstance(where, str) and (len(lacking) == len(names) or (reading.is_path(where) and is_there(where))):
        return []
    raise DataError(f"the table has no column '{lacking[0]}'. It has: {cells.listed(frame.columns)}.")


def known_columns(raw: Raw, known: Mapping[str, Transform]) -> dict[str, list[str]]:
    """The companions of a trained model that are columns of the table."""
    frame = raw.parts["train"].x
    if not hasattr(frame, "columns"):
        return {}
    named = {n: [c["name"] for c in t.columns] for n, t in known.items() if isinstance(t, TableTransform) and t.frame}
    return {name: columns for name, columns in named.items() if set(columns) <= set(frame.columns)}


def flags(gone: Any, raw: Raw) -> dict[str, Tensor]:
    """``(N,)`` booleans by split, all False if ``gone`` is None."""
    found = {s: torch.zeros(len(part), dtype=torch.bool) for s, part in raw.parts.items()}
    if gone is None:
        return found
    by_split = (
        {SPLITS.get(str(s), str(s)): v for s, v in gone.items()} if isinstance(gone, Mapping) else {"train": gone}
    )
    for split, values in by_split.items():
        array = arrays.plain(values, "absent")
        if split not in found or array.shape != (len(found[split]),) or not np.isin(array, (0, 1)).all():
            own = ", ".join(f"{s}: ({len(f)},)" for s, f in found.items())
            raise DataError(f"absent must be true or false for every example, {own}; got {split}: {array.shape}.")
        found[split] = torch.from_numpy(array.astype(bool))
    return found


def _with(part: Part, name: str, x: Any, gone: Tensor) -> Part:
    return replace(part, given={**part.given, name: x}, absent={**part.absent, name: gone})


def _counted(sizes: Mapping[str, int]) -> str:
    return ", ".join(f"{n} ({split})" for split, n in sizes.items())
