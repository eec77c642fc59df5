"""``inspect``: reports the contents and problems of a source before training."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch import Tensor

from sandglass.census import advice, arrays, files, pictures, table
from sandglass.census.census import Census, ordered, sentence
from sandglass.census.pictures import Entry
from sandglass.data.dataset import Dataset
from sandglass.data.load import load_data
from sandglass.data.reading import existing, is_folder
from sandglass.data.sources import archives, axes, images, items, labelling, numpy_files, tables
from sandglass.data.sources.arrays import plain
from sandglass.errors import ConfigError, DataError, NotFoundError
from sandglass.runs.finding import Finding

Span = tuple[float, float] | None

_FOR_PICTURES = "{} is for pictures; leave it out for tables and rows."


def inspect(
    source: Any,
    *,
    labels: Any = None,
    labels_from_names: str | None = None,
    name: str | None = None,
    channels: int | None = None,
    channels_at: Literal["first", "last"] | None = None,
    value_range: Sequence[float] | None = None,
    progress: bool = False,
) -> Census:
    """Inspects a source: its contents, problems, and advice.

    Every picture is decoded completely and every cell is read; nothing is changed or written. Data that cannot be read
    is a finding, not an error.

    Args:
        source: as for :func:`sandglass.load_data`, or a :class:`~sandglass.data.dataset.Dataset`.
        labels: as for :func:`sandglass.load_data`.
        labels_from_names: as for :func:`sandglass.load_data`.
        name: name for titles; by default that of the source.
        channels: as for :func:`sandglass.load_data`, for arrays.
        channels_at: likewise.
        value_range: as for :func:`sandglass.load_data`, for arrays and pictures in files.
        progress: whether to show a progress bar on a terminal for large sources.

    Returns:
        Facts, findings and a few of the pictures.

    Raises:
        NotFoundError: no such file, folder or name.
        ConfigError: labels or options that do not apply to the source.

    Example:
        >>> census = inspect("digits")
        >>> census.kind, census.facts["examples"], census.facts["splits"]["test"]["classes"]["0"]
        ('pictures', 1797, 36)
    """
    each, span = partial(_each, progress=progress), images.check_range(value_range)
    options = {"channels": channels, "channels_at": channels_at, "value_range": span}
    asked = [option for option, value in options.items() if value is not None]
    path = existing(source)
    path = None if path is None else path.resolve()
    title = name or (images.shown(path.stem if path.is_file() else path.name) if path is not None else "")
    if labels_from_names is not None and (path is None or not is_folder(path)):
        raise ConfigError("labels_from_names is for the file names of a folder or archive of pictures; leave it out.")
    if path is not None and (path.is_dir() or archives.is_archive(path) or images.is_picture(path)):
        if asked and asked != ["value_range"]:
            raise ConfigError(f"{asked[0]} is for arrays; leave it out.")
        if path.is_dir():
            return _folder(path, title, labels, labels_from_names, each, span)
        if archives.is_archive(path):
            title = name or images.shown(archives.stem(path))
            return _archive(path, title, labels, labels_from_names, each, span)
        return _pictures([Entry(lambda: path, images.shown(path.name), "train")], title, each, None, span)
    flat = isinstance(source, np.ndarray | Tensor) and source.ndim == 2
    if asked and flat:
        raise ConfigError(_FOR_PICTURES.format(asked[0]))
    if path is not None and path.suffix.lower() in tables.ENDINGS:
        return _table(lambda: tables.read_file(path), title, labels, each, options)
    if path is not None and path.suffix.lower() == ".npy" and labels is None:
        return _numbers(path, title, each, options)
    if flat and labels is None:
        return _rows(source, name or "rows")
    if hasattr(source, "columns") and not isinstance(source, Dataset):
        return _table(lambda: (tables.as_frame(source), ()), name or "table", labels, each, options)
    return _loaded(source, labels, name, each, options)


def _folder(path: Path, title: str, labels: Any, pattern: str | None, each: Any, span: Span) -> Census:
    passed = list(files.ignored(path))
    try:
        found, notes = labelling.listed(path, labels, pattern)
    except DataError as error:
        return _failed(title, error)
    entries = [
        Entry(
            lambda item=item: item.content,  # type: ignore[misc]
            item.name,
            split,
            None if item.label is None else str(item.label),
            file=True,
        )
        for split, items in sorted(found.items.items(), key=lambda pair: pictures.ORDER.get(pair[0], 3))
        for item in items
    ]
    census = _pictures(entries, title, each, passed, span)
    own = [n for n in notes if not n.startswith("skipped")]  # ``passed`` has these with reasons
    return _noted(census, (*own, *found.notes))


def _archive(path: Path, title: str, labels: Any, pattern: str | None, each: Any, span: Span) -> Census:
    try:
        folder, notes = archives.unpack(path)
    except DataError as error:
        return _failed(title, error)
    return _noted(_folder(folder, title, labels, pattern, each, span), notes)


def _pictures(
    entries: Sequence[Entry], title: str, each: Any, passed: list[tuple[str, str]] | None, span: Span = None
) -> Census:
    seen = pictures.look_through(entries, each, span)
    alike = pictures.find_copies(seen)
    facts = pictures.picture_facts(seen, alike)
    if passed is not None:
        reasons = dict(sorted(Counter(r for _, r in passed).items()))
        facts["ignored"] = {"count": len(passed), "reasons": reasons, "files": pictures.named(passed)}
    kind = "pictures" if seen.looks else "nothing"
    sheets = pictures.sheets(seen, alike, facts)
    return Census(title, kind, facts, ordered([*advice.picture_findings(facts)]), sheets)  # type: ignore[arg-type]


def _table(read: Any, title: str, labels: Any, each: Any, options: Mapping[str, Any]) -> Census:
    try:
        frame, notes = read()
        rows = items.of_frame(frame)
    except DataError as error:
        return _failed(title, error)
    if rows is not None:
        return _noted(_loaded(rows, labels, title, each, options), notes)
    if asked := [option for option, value in options.items() if value is not None]:
        raise ConfigError(_FOR_PICTURES.format(asked[0]))
    facts = table.table_facts({name: frame.iloc[:, k] for k, name in enumerate(table.headers(frame))})
    if isinstance(labels, str):
        facts |= table.label_facts(frame, labels)
    return _noted(Census(title, "table", facts, ordered([*table.table_findings(facts)])), notes)


def _numbers(path: Path, title: str, each: Any, options: Mapping[str, Any]) -> Census:
    try:
        x = numpy_files.read_numpy(path, None)["train"][0]
    except DataError as error:
        return _failed(title, error)
    return _rows(x, title) if x.ndim == 2 and not any(options.values()) else _loaded(path, None, title, each, options)


def _rows(x: Any, title: str) -> Census:
    """The census of rows of numbers, without preprocessing."""
    try:
        rows = plain(x)
    except DataError as error:
        return _failed(title, error)
    facts = table.table_facts(arrays.columns_of(rows))
    return Census(title, "table", facts, ordered([*table.table_findings(facts)]))


def _loaded(source: Any, labels: Any, name: str | None, each: Any, options: Mapping[str, Any]) -> Census:
    """The census of the dataset that :func:`load_data` reads."""
    try:
        known = isinstance(source, Dataset)
        data = source if known else load_data(source, labels=labels, validation=0, test=0, **options)
    except NotFoundError:
        raise
    except DataError as error:
        named = isinstance(source, str | os.PathLike)
        return _failed(name or (images.shown(Path(source).name) if named else "data"), error)
    title = name or data.name
    if not data.spec.is_image or data.transform.kind != "image" or data.spec.shape[0] not in axes.USUAL:
        return arrays.array_census(data, title)
    census = _pictures(list(_of_dataset(data)), title, each, None)
    return _noted(census, data.notes)


def _noted(census: Census, notes: Sequence[str]) -> Census:
    """The census with the loader's notes as findings."""
    said = tuple(Finding("read", "info", sentence(note)) for note in notes)
    return replace(census, findings=(*census.findings, *said))


def _of_dataset(data: Dataset) -> Iterator[Entry]:
    for split, part in data.splits.items():
        labels = None if part.y is None else part.y.tolist()
        for i in range(len(part)):
            where = part.names[i] if part.names else f"{split} {i}"
            k = -1 if labels is None else labels[i]
            label = None if k < 0 else data.classes[k] if data.classes else str(k)
            yield Entry(lambda x=part.x, i=i, top=part.levels - 1: _image(x[i], top), where, split, label)  # type: ignore[misc]


def _image(x: Tensor, top: int) -> Any:
    """A Pillow picture of one example ``(C, H, W)``."""
    array = x.numpy()
    if array.dtype != np.uint8:
        array = np.round(array * 255).astype(np.uint8)
    elif top != 255:
        array = np.round(array * (255 / top)).astype(np.uint8)
    return images.pillow().fromarray(array[0] if len(array) == 1 else np.ascontiguousarray(np.moveaxis(array, 0, -1)))


def _failed(title: str, error: Exception) -> Census:
    """The census of a source that cannot be read, with the reason."""
    return Census(title, "nothing", {"examples": 0}, (Finding("unreadable", "problem", str(error)),))


def _each(f: Any, items: Sequence[Entry], *, progress: bool) -> Iterable[Any]:
    """``map`` in order; in threads for files, and with a progress bar for many items."""
    found = _threads(f, items) if len(items) >= 64 and items[0].file else map(f, items)
    if not progress or len(items) < 2000 or not sys.stderr.isatty():
        return found
    from rich.console import Console
    from rich.progress import track

    return track(found, "Inspecting", len(items), console=Console(stderr=True), transient=True)


def _threads(f: Any, items: Sequence[Entry]) -> Iterator[Any]:
    """``map`` in threads, in blocks, to bound memory."""
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        for start in range(0, len(items), 512):
            yield from pool.map(f, items[start : start + 512])
