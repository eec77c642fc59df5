"""Recognises the kind of a source and reads it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from sandglass.data.sources import archives, folders, images, memory, numpy_files, objects, saved, tables
from sandglass.data.sources.layouts import Item
from sandglass.data.sources.raw import Pairs, Raw
from sandglass.data.transform import ImageTransform
from sandglass.errors import ConfigError, DataError, NotFoundError
from sandglass.registry import names, resolve


def read(
    source: Any,
    labels: Any,
    options: dict[str, Any],
    pictured: dict[str, Any],
    cache: bool | None = None,
    arrays: Mapping[str, Any] | None = None,
) -> tuple[str, str | dict[str, Any] | None, Raw]:
    """Reads a source.

    Args:
        source: as for :func:`sandglass.load_data`.
        labels: as for :func:`sandglass.load_data`.
        options: ``size``, ``fit``, ``channels`` and ``transform``.
        pictured: further options for picture files: ``value_range``, ``on_bad``, and for pairs ``half`` or ``domain``.
        cache: whether to cache decoded pictures of a folder on disk; None to decide by their size.
        arrays: further options for arrays: ``value_range`` and ``channels_at``.

    Returns:
        A short name, the name or path to read it again (None for Python objects), and the source.

    Raises:
        NotFoundError, DataError, ConfigError, MissingPackageError: as :func:`sandglass.load_data`.
    """
    if cache and not is_folder(source):
        raise ConfigError("cache keeps the decoded pictures of a folder or archive; leave it out for other sources.")
    if _is_known(source):
        return _read_known(source, labels)
    if isinstance(source, str | os.PathLike):
        path = Path(source).expanduser()
        if not path.exists():
            known = ", ".join(names("dataset"))
            raise NotFoundError(f"There is no file, folder or dataset '{images.shown(path)}'. Known datasets: {known}.")
        path = path.resolve()
        title = archives.stem(path) if path.is_file() else path.name
        return images.shown(title), str(path), _read_path(path, labels, options, pictured, cache, arrays or {})
    title, found = objects.recognised(source)
    found = _labelled(found, labels)
    if isinstance(found["train"][0], list):
        items = {split: folders.from_pillow(x, y) for split, (x, y) in found.items()}
        return title, None, folders.read_items(items, **_for_images(options), **pictured)
    return title, None, memory.read_pairs(found, **options, **(arrays or {}))


def is_path(source: Any) -> bool:
    """Whether a source is a path, not the name of a registered dataset."""
    return isinstance(source, str | os.PathLike) and not _is_known(source)


def pictures_at(source: Any) -> Path | None:
    """The path of a source that is a folder, archive or picture, else None."""
    if not is_path(source):
        return None
    path = Path(source).expanduser()
    pictures = path.is_dir() or (path.is_file() and (archives.is_archive(path) or images.is_picture(path)))
    return path.resolve() if pictures else None


def _is_known(source: Any) -> bool:
    """Whether a source is a registered name, alone or in a mapping with options."""
    return source in names("dataset") if isinstance(source, str) else isinstance(source, Mapping) and "name" in source


def _read_known(source: str | Mapping[str, Any], labels: Any) -> tuple[str, str | dict[str, Any], Raw]:
    title = source if isinstance(source, str) else str(source["name"])
    if labels is not None and not isinstance(labels, bool):
        raise ConfigError(f"'{title}' brings its own labels; leave labels out, or give False for none.")
    raw = resolve("dataset", source).read()
    if labels is False:
        raw = replace(raw, parts={s: replace(p, y=None) for s, p in raw.parts.items()}, classes=())
    return title, source if isinstance(source, str) else dict(source), raw


def is_folder(source: Any) -> bool:
    """Whether a source is a folder or an archive."""
    if not isinstance(source, str | os.PathLike) or _is_known(source):
        return False
    path = Path(source).expanduser()
    return path.is_dir() or (path.is_file() and archives.is_archive(path))


def _read_path(
    path: Path,
    labels: Any,
    options: dict[str, Any],
    pictured: dict[str, Any],
    cache: bool | None,
    arrays: Mapping[str, Any],
) -> Raw:
    packed = path.is_file() and archives.is_archive(path)
    if path.is_dir() or packed:
        if path.is_dir() and saved.is_saved(path):
            return saved.read_saved(path, labels, options, pictured)
        if isinstance(labels, str) or _is_labels(labels):
            raise ConfigError("A folder's labels are its class folders; leave labels out, or give False for none.")
        folder, notes = archives.unpack(path) if packed else (path, ())
        raw = folders.read_folder(folder, labels=labels is not False, cache=cache, **_for_images(options), **pictured)
        return replace(raw, notes=(*notes, *raw.notes))
    suffix = path.suffix.lower()
    if suffix in (".npy", ".npz"):
        pairs = _labelled(numpy_files.read_numpy(path, labels), None if isinstance(labels, str) else labels)
        return memory.read_pairs(pairs, **options, **arrays)
    if suffix in tables.ENDINGS and path.is_file():
        table, notes = tables.read_file(path)
        return memory.read_pairs(_labelled({"train": (table, None)}, labels), **options).noted(*notes)
    if images.is_picture(path) and path.is_file():
        item = Item(path, images.shown(path.name))
        return folders.read_items({"train": [item]}, **_for_images(options), **pictured)
    raise DataError(
        f"{images.shown(path.name)} cannot be read; give a folder of pictures or a zip or tar file of one, a picture, "
        f"or a file that ends in .npy, .npz, {', '.join(tables.ENDINGS)}."
    )


def _labelled(pairs: Pairs, labels: Any) -> Pairs:
    """The splits with the labels that ``labels`` selects."""
    if labels is None:
        return pairs
    if labels is False:
        return {s: (x, None) for s, (x, _) in pairs.items()}
    if isinstance(labels, str):
        if not all(hasattr(x, "columns") for x, _ in pairs.values()):
            raise DataError(
                f"labels='{labels}' names a column, but the source is not a table; give the labels as an array."
            )
        return {s: tables.take_labels(x, labels) for s, (x, _) in pairs.items()}
    if len(pairs) > 1:
        raise DataError("The source has several splits; give labels for each, {'train': (x, y), ...}.")
    return {"train": (pairs["train"][0], labels)}


def _for_images(options: dict[str, Any]) -> dict[str, Any]:
    transform = options["transform"]
    if transform is not None and not isinstance(transform, ImageTransform):
        raise DataError(f"The model reads rows or arrays of shape {transform.spec().shape}; got pictures.")
    return options


def _is_labels(labels: Any) -> bool:
    return labels is not None and not isinstance(labels, bool)
