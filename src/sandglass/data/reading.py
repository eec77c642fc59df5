"""Recognises the kind of a source and reads it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from sandglass.data.sources import archives, folders, images, items, memory, numpy_files, objects, saved, tables
from sandglass.data.sources.layouts import Item
from sandglass.data.sources.raw import Raw
from sandglass.errors import ConfigError, DataError, NotFoundError
from sandglass.registry import names, resolve
from sandglass.runs.storage import place_of


def read(
    source: Any,
    labels: Any,
    options: dict[str, Any],
    pictured: dict[str, Any],
    cache: bool | None = None,
    arrays: Mapping[str, Any] | None = None,
    *,
    labels_from_names: str | None = None,
    image: str | None = None,
) -> tuple[str, str | dict[str, Any] | None, Raw]:
    """Reads a source.

    Args:
        source: as for :func:`sandglass.load_data`.
        labels: as for :func:`sandglass.load_data`.
        options: ``size``, ``fit``, ``channels`` and ``transform``.
        pictured: further options for picture files: ``value_range``, ``on_bad``, and for pairs ``half`` or ``domain``.
        cache: whether to cache decoded pictures of a folder on disk; None to decide by their size.
        arrays: further options for arrays: ``value_range`` and ``channels_at``; for a companion or unpaired set also
            ``shared_range``, the range of the examples, see :func:`sandglass.data.sources.arrays.is_shared`.
        labels_from_names: as for :func:`sandglass.load_data`.
        image: as for :func:`sandglass.load_data`.

    Returns:
        A short name, the name or path to read it again (None for Python objects), and the source.

    Raises:
        NotFoundError, DataError, ConfigError, MissingPackageError: as :func:`sandglass.load_data`.
    """
    path = existing(source)
    if cache and not is_folder(source):
        raise ConfigError("cache keeps the decoded pictures of a folder or archive; leave it out for other sources.")
    if labels_from_names is not None and not is_folder(source):
        raise ConfigError("labels_from_names is for the file names of a folder or archive of pictures; leave it out.")
    if image is not None and not _has_columns(source, path):
        raise ConfigError("image names a key of items, or a column of pictures in a saved dataset or a .parquet file.")
    arrays = arrays or {}
    if _is_known(source):
        return _read_known(source, labels)
    if path is not None:
        path = path.resolve()
        title = archives.stem(path) if path.is_file() else path.name
        if path.is_dir() and saved.is_saved(path):
            if labels_from_names is not None:
                raise ConfigError("A saved dataset names its labels by a column: labels=COLUMN (--labels COLUMN).")
            return images.shown(title), str(path), saved.read_saved(path, labels, options, pictured, image)
        if is_folder(path):
            folder, notes = archives.unpack(path) if path.is_file() else (path, ())
            raw = folders.read_folder(
                folder, labels=labels, labels_from_names=labels_from_names, cache=cache,
                **folders.for_pictures(options), **pictured,
            )  # fmt: skip
            return images.shown(title), str(path), replace(raw, notes=(*notes, *raw.notes))
        return images.shown(title), str(path), _read_file(path, labels, options, pictured, arrays, image)
    title, found = objects.recognised(source, image)
    if any(items.are_items(x) for x, _ in found.values()):
        return title, None, items.read(found, labels, image, options, pictured, arrays)
    return title, None, memory.read_pairs(memory.labelled(found, labels), **options, **arrays)


def existing(source: Any) -> Path | None:
    """The path of a source; None for Python objects and registered datasets.

    Raises:
        NotFoundError: there is nothing.
        DataError: it is an empty text, whose path would be the current folder.
    """
    if isinstance(source, str) and not source.strip():
        raise DataError("The data has an empty name; give a name from `sandglass datasets`, a folder or a file.")
    path = place_of(source) if is_path(source) else None
    if path is None or path.exists():
        return path
    if "://" in str(source):
        raise NotFoundError(f"'{source}' is an address; download it first, and give the file.")
    if any(c in path.name for c in "*?["):
        raise NotFoundError(
            f"There is no file '{images.shown(path)}'; give the folder, or in Python a list of files, "
            "sorted(glob.glob(...))."
        )
    known = ", ".join(names("dataset"))
    raise NotFoundError(f"There is no file, folder or dataset '{images.shown(path)}'. Known datasets: {known}.")


def is_path(source: Any) -> bool:
    """Whether a source is a path, not the name of a registered dataset."""
    return isinstance(source, str | os.PathLike) and not _is_known(source)


def pictures_at(source: Any) -> Path | None:
    """The path of a source that is a folder, archive or picture, else None."""
    if not is_path(source):
        return None
    path = place_of(source)
    pictures = path.is_dir() or (path.is_file() and (archives.is_archive(path) or images.is_picture(path)))
    return path.resolve() if pictures else None


def is_unnamed(source: Any) -> bool:
    """Whether a source is a picture or an ``.npy`` file, where labels cannot be named by a text."""
    if not is_path(source):
        return False
    path = place_of(source)
    return path.is_file() and (path.suffix.lower() == ".npy" or images.is_picture(path))


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
    path = place_of(source)
    return path.is_dir() or (path.is_file() and archives.is_archive(path))


def _has_columns(source: Any, path: Path | None) -> bool:
    """Whether the examples of a source can be one of several columns."""
    if path is not None:
        return path.suffix.lower() in (".parquet", ".feather") or (path.is_dir() and saved.is_saved(path))
    return items.are_items(source) or isinstance(source, Mapping) or hasattr(source, "columns")


def _read_file(
    path: Path,
    labels: Any,
    options: dict[str, Any],
    pictured: dict[str, Any],
    arrays: Mapping[str, Any],
    image: str | None,
) -> Raw:
    suffix = path.suffix.lower()
    if isinstance(labels, str) and is_unnamed(path):
        raise ConfigError(
            f"labels='{labels}' names a column, a key or a table of file names, and {images.shown(path.name)} has none "
            "of these; leave the labels out, put pictures into a folder, or give an array of labels in Python."
        )
    if suffix in (".npy", ".npz"):
        pairs = memory.labelled(numpy_files.read_numpy(path, labels), None if isinstance(labels, str) else labels)
        return memory.read_pairs(pairs, **options, **arrays)
    if suffix in tables.ENDINGS and path.is_file():
        table, notes = tables.read_file(path)
        if (rows := items.of_frame(table, image)) is not None:
            return items.read({"train": (rows, None)}, labels, image, options, pictured, arrays).noted(*notes)
        return memory.read_pairs(memory.labelled({"train": (table, None)}, labels), **options).noted(*notes)
    if images.is_picture(path) and path.is_file():
        item = Item(path, images.shown(path.name))
        return folders.read_items({"train": [item]}, **folders.for_pictures(options), **pictured)
    raise DataError(
        f"{images.shown(path.name)} cannot be read; give a folder of pictures or a zip or tar file of one, a picture, "
        f"or a file that ends in .npy, .npz, {', '.join(tables.ENDINGS)}."
    )
