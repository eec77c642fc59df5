"""Datasets of items: pictures, arrays, ``(x, label)`` pairs, or mappings such as ``{"image": ..., "label": ...}``.

Nothing but indexing is asked of a dataset, so any map-style one will do: of PyTorch, of Hugging Face, or a plain list.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from sandglass.data import cells
from sandglass.data.sources import contents, folders, images, memory
from sandglass.data.sources.held import Held, is_picture
from sandglass.data.sources.label_table import LABELS
from sandglass.data.sources.raw import Pairs, Raw, name_classes
from sandglass.errors import DataError, named_type
from sandglass.registry import nearest
from sandglass.runs import frames

IMAGES = ("image", "img", "images", "picture", "pixel_values", "x", "input", "data")
"""Keys of pictures or arrays, if ``image`` does not name one; the first that an item has."""

_CELLS = str | int | float | list | tuple | date | Decimal | None  # of the rows of a table


def are_items(source: Any) -> bool:
    """Whether a source is a dataset or list of items, not an array of numbers or a table.

    Example:
        >>> are_items([{"x": 1}]), are_items([(np.zeros((2, 2)), 1)]), are_items([np.zeros((2, 2))])
        (True, True, True)
        >>> are_items([(1, 2)]), are_items([[[1, 2], [3, 4]]]), are_items(np.zeros((2, 2)))
        (False, False, False)
    """
    if isinstance(source, str | bytes | Mapping | tuple) or hasattr(source, "__array__") or hasattr(source, "columns"):
        return False
    if not (hasattr(source, "__getitem__") and hasattr(source, "__len__")):
        return False
    if not isinstance(source, list):
        return True
    first = _first(source)
    part = _first(item[0] if isinstance(item, tuple | list) and item else item for item in source)
    if first is None:
        return bool(source)
    if is_picture(part) or isinstance(part, Mapping | Tensor | np.ndarray | bytes | bytearray):
        return True
    pair = isinstance(first, tuple) or (isinstance(first, list) and not _even(first))
    return _is_path(first) or (pair and np.ndim(_array(part)) > 0)


def of_frame(frame: Any, image: str | None = None) -> list[Mapping[str, Any]] | None:
    """The rows of a DataFrame as items, if it has a column of pictures, of the content of files or named ``image``.

    Raises:
        DataError: it has no such column.
    """
    if image is None and not any(_holds_pictures(column) for _, column in frame.items() if column.dtype == object):
        return None
    rows: list[Mapping[str, Any]] = frame.astype(object).where(frame.notna(), None).to_dict("records")
    return rows


def _holds_pictures(column: Any) -> bool:
    present = column[column.notna()]
    first = _first(present)
    if isinstance(first, bytes) or (isinstance(first, Mapping) and "bytes" in first):
        return contents.are_pictures(present)
    return is_picture(first)


def of_columns(source: Mapping[Any, Any]) -> list[Mapping[str, Any]] | None:
    """The rows of a mapping of columns as items; None for other mappings.

    Raises:
        DataError: the columns have different lengths, or one is a single value.

    Example:
        >>> of_columns({"image": ["a.png", "b.png"], "label": [0, 1]})
        [{'image': 'a.png', 'label': 0}, {'image': 'b.png', 'label': 1}]
    """
    named = [key for key in source if isinstance(key, str)]
    sizes = {len(value) for value in source.values() if _is_column(value)}
    if len(named) != len(source) or not sizes or not set(named) & {*IMAGES, *LABELS}:
        return None
    single = next((key for key, value in source.items() if not _is_column(value)), None)
    if single is not None:
        kind = type(source[single]).__name__
        raise DataError(f"The column '{single}' is of type {kind}; give a list or array with one value per example.")
    if len(sizes) > 1:
        lengths = ", ".join(f"'{key}' {len(value)}" for key, value in source.items())
        raise DataError(f"The columns have different lengths: {lengths}; give one value per example.")
    return [dict(zip(named, row, strict=True)) for row in zip(*source.values(), strict=True)]


def _is_column(value: Any) -> bool:
    return hasattr(value, "__len__") and not isinstance(value, str | bytes) and getattr(value, "shape", None) != ()


@dataclass(frozen=True)
class Columns:
    """The items of a split, taken apart.

    Args:
        x: examples.
        y: class of each example, or None.
    """

    x: list[Any]
    y: Any


def read(
    splits: Pairs,
    labels: Any,
    image: str | None,
    options: dict[str, Any],
    pictured: Mapping[str, Any],
    arrays: Mapping[str, Any],
) -> Raw:
    """Reads datasets of items.

    Args:
        splits: the dataset of each split, and its classes if they are given apart.
        labels: the key of the classes; an array ``(N,)``; None for one of :data:`LABELS`, False for none.
        image: the key of the examples; None for one of :data:`IMAGES`, or the only picture.
        options: see :func:`sandglass.data.sources.memory.read_pairs`.
        pictured: further options of :func:`sandglass.data.sources.folders.read_items`.
        arrays: further options of :func:`sandglass.data.sources.memory.read_pairs`.

    Raises:
        DataError: items that cannot be read; the message names their keys.
    """
    splits = {split: pair for split, pair in splits.items() if split == "train" or len(pair[0])}
    sources = {split: Held(dataset) for split, (dataset, _) in splits.items()}
    every = {split: fetched(source, split) for split, source in sources.items()}
    apart = {split: y for split, (_, y) in splits.items()}
    if labels is not None and not isinstance(labels, str | bool):
        apart = {split: y for split, (_, y) in memory.labelled(splits, labels).items()}
    first, notes = every["train"][0], []
    names: Sequence[str] = ()
    y: Any = 1  # where the class of an item is
    named = image is not None or isinstance(labels, str)
    if isinstance(first, Mapping) and (named or not _are_contents(every["train"])):
        first = _typical(every["train"])
        x, y = _keys(first, labels, image)
        if x is None:
            frame = frames.pandas().DataFrame
            pairs = {split: (frame(_records(found, first)), apart[split]) for split, found in every.items()}
            return memory.read_pairs(
                memory.labelled(pairs, labels) if isinstance(labels, str | bool) else pairs, **options
            )
        parts = {split: _columns(found, x, y) for split, found in every.items()}
        left = [key for key in first if key not in (x, y)]
        used = cells.listed(key for key in (x, y) if key is not None)
        notes = [f"other keys than {used} were left out: {cells.listed(left)}"] if left else []
        own = labels is not False and any(given is not None for given in apart.values())
        names = () if own else _class_names(splits["train"][0], y)
    elif named:
        raise DataError("image and labels name keys of items that are mappings, which these are not.")
    else:
        parts = {split: _pairs(found, labels is not False) for split, found in every.items()}
    for split, part in parts.items():
        if part.y is not None and apart[split] is None:
            sources[split].expect(part.y, lambda item: _class(item[y]))
    if labels is not False:
        parts = {s: part if apart[s] is None else replace(part, y=apart[s]) for s, part in parts.items()}
    return _read(parts, names, options, pictured, arrays).noted(*notes)


def _are_contents(found: Sequence[Any]) -> bool:
    """Whether mappings are the contents of picture files, ``{"bytes": ..., "path": ...}``, not items with keys.

    Raises:
        DataError: one has a path alone.
    """
    if not (all(set(item) <= {"bytes", "path"} for item in found) and contents.are_pictures(found)):
        return False
    empty = next((i for i, item in enumerate(found) if item.get("bytes") is None), None)
    if empty is not None:
        raise DataError(
            f"Item {empty} of 'train' has a path and no content; if 'path' is the key of the pictures, name it: "
            "image='path'."
        )
    return True


def fetched(source: Held, split: str) -> list[Any]:
    """The items of a map-style dataset.

    Raises:
        DataError: it is empty, an item is None, or its code fails.
    """
    found = []
    for i in range(len(source.dataset)):
        try:
            found.append(source.item(i))
        except Exception as error:  # the code of the dataset may raise anything
            reason = " ".join(str(error).split())
            raise DataError(f"Item {i} of '{split}' cannot be read: {type(error).__name__}: {reason}.") from error
    if not found:
        raise DataError(f"'{split}' has no examples; give at least one.")
    _complete(found, split, "items")
    kinds = {isinstance(item, Mapping) for item in found}
    if len(kinds) > 1:
        raise DataError(f"Some items of '{split}' are mappings and others are not; give only one kind.")
    return found


def _read(
    parts: Mapping[str, Columns],
    names: Sequence[str],
    options: dict[str, Any],
    pictured: Mapping[str, Any],
    arrays: Mapping[str, Any],
) -> Raw:
    """Examples and labels, read as pictures or as arrays."""
    for split, part in parts.items():
        memory.check_labels(part.y, len(part.x), split)
    parts = {split: replace(part, y=_known(part.y, split, bool(names))) for split, part in parts.items()}
    first = parts["train"].x[0]
    if is_picture(first) or isinstance(first, str | Path | bytes | Mapping):
        with tempfile.TemporaryDirectory(prefix="sandglass-") as place:
            listed = {
                split: contents.listed(
                    part.x, part.y or [None] * len(part.x), split, Path(place),
                    ("picture {}" if split == "train" else f"{split} {{}}").format,
                )
                for split, part in parts.items()
            }  # fmt: skip
            raw = folders.read_items(listed, **folders.for_pictures(options), **pictured)
    else:
        pairs: Pairs = {split: (memory.stack(part.x), part.y) for split, part in parts.items()}
        grey = len(np.shape(first)) == 2  # stacked with a channel
        raw = memory.read_pairs(pairs, **options, **arrays, layout="NHW" if grey else "")
    return name_classes(raw, names)


def _known(y: Any, split: str, named: bool) -> list[Any] | None:
    """The classes of a split, None if all are missing; a class of -1 is missing where the classes have names.

    Raises:
        DataError: some are missing.
    """
    if y is None:
        return None
    found = [_class(value) for value in y]
    missing = [value is None or (named and value == -1) for value in found]
    if any(missing) and not all(missing):
        raise DataError(
            f"{sum(missing)} of the {len(found)} labels of '{split}' are missing, the first is number "
            f"{missing.index(True)}; remove those examples, or leave the labels out: labels=False."
        )
    return None if all(missing) else found


def _first(values: Iterable[Any]) -> Any:
    """The first of some values that is not None; None if all are."""
    return next((value for value in values if value is not None), None)


def _typical(found: Sequence[Mapping[Any, Any]]) -> Mapping[Any, Any]:
    """All keys of items, each with its first value that is not None."""
    keys = dict.fromkeys(key for item in found for key in item)
    return {key: _first(item.get(key) for item in found) for key in keys}


def _keys(item: Mapping[Any, Any], labels: Any, image: str | None) -> tuple[str | None, str | None]:
    """The keys of the examples and of the classes, by a typical item; no key of examples for the row of a table."""
    seen = f"Its keys: {cells.listed(item)}."
    for option, key in (("image", image), ("labels", labels)):
        if isinstance(key, str) and key not in item:
            hint = nearest(key, [str(k) for k in item])
            raise DataError(f"The items have no key '{key}' for {option}.{hint} {seen.replace('Its', 'Their')}")
    y = labels if isinstance(labels, str) else None
    if labels is None or labels is True:
        y = next((key for key in LABELS if key in item and key != image and _is_class(item[key])), None)
    if image is not None:
        return image, y
    able = [key for key, value in item.items() if key != y and (is_picture(value) or np.ndim(_array(value)) > 1)]
    flat = [key for key, value in item.items() if key != y and np.ndim(_array(value)) == 1]
    able = able or (flat if len(flat) == len([key for key in item if key != y]) else [])
    named = [key for key in IMAGES if key in able] or [key for key in IMAGES if _is_path(item.get(key))]
    if len(able) > 1 and not named:
        raise DataError(f"The items have several pictures or arrays; name the one to model, image='{able[0]}'. "
                        f"Their keys: {cells.listed(item)}.")  # fmt: skip
    undecoded = [k for k in IMAGES if isinstance(item.get(k), Mapping | bytes)]
    return next(iter([*named, *able, *undecoded]), None), y


def _is_path(value: Any) -> bool:
    return isinstance(value, str | Path) and images.is_picture(value)


def _array(value: Any) -> Any:
    """A value whose dimensions count: an array, a tensor or a list; 0 for anything else."""
    return value if isinstance(value, np.ndarray | Tensor) else value if isinstance(value, list) and _even(value) else 0


def _even(value: list[Any]) -> bool:
    try:
        return np.asarray(value).dtype.kind in "biuf"
    except ValueError:
        return False


def _is_class(value: Any) -> bool:
    """Whether a value can be a class: a string, a number, or a one-hot vector."""
    if isinstance(value, str | int | float | np.generic):
        return True
    return np.ndim(_array(value)) <= 1 and isinstance(value, np.ndarray | Tensor | list)


def _columns(found: Sequence[Mapping[Any, Any]], x: str, y: str | None) -> Columns:
    """The examples and classes of items that are mappings."""
    for key in (x, y) if y is not None else (x,):
        lacking = next((i for i, item in enumerate(found) if key not in item), None)
        if lacking is not None:
            raise DataError(f"Item {lacking} has no key '{key}'. Its keys: {cells.listed(found[lacking])}.")
    examples = [item[x] for item in found]
    _complete(examples, x, "values")
    return Columns(examples, None if y is None else [_class(item[y]) for item in found])


def _records(found: Sequence[Mapping[Any, Any]], first: Mapping[Any, Any]) -> list[dict[Any, Any]]:
    """Items that are the rows of a table."""
    odd = [key for key, value in first.items() if not isinstance(_class(value), _CELLS)]
    if odd and isinstance(first[odd[0]], Mapping) and "bytes" in first[odd[0]]:
        raise DataError(
            f"'{odd[0]}' holds files that are no pictures, such as {contents.file_name(first[odd[0]])}; leave that key "
            f"out, or name the key to model, image=... Their keys: {cells.listed(first)}."
        )
    if odd:
        raise DataError(
            f"The items have no picture or array, and '{odd[0]}' holds {named_type(first[odd[0]])}; name the key "
            f"to model, image=... Their keys: {cells.listed(first)}."
        )
    return [{key: _class(value) for key, value in item.items()} for item in found]


def _pairs(found: Sequence[Any], labels: bool) -> Columns:
    """The examples and classes of items that are ``x``, ``(x,)`` or ``(x, label, ...)``."""
    if not isinstance(found[0], tuple | list):
        return Columns(list(found), None)
    short = next(
        (i for i, item in enumerate(found) if not isinstance(item, tuple | list) or len(item) < len(found[0])), None
    )
    if short is not None:
        raise DataError(f"Item {short} has fewer parts than the first one, which has {len(found[0])}.")
    x = [item[0] for item in found]
    _complete(x, "items", "first parts of items")
    if isinstance(x[0], Mapping):
        raise DataError(f"The items are tuples of mappings; give the mappings alone. Their keys: {cells.listed(x[0])}.")
    second = _first(item[1] for item in found) if len(found[0]) > 1 else None
    if labels and isinstance(second, Mapping):
        raise DataError(
            f"The second part of the items is a mapping with the keys {cells.listed(second)}, which is no class; give "
            "(x, class), or leave the labels out: labels=False."
        )
    if is_picture(second) or np.ndim(_array(second)) > 1:
        raise DataError(
            "The items are pairs of pictures; give the first of each as the data, and the second as its companion: "
            "given={'source': [second for first, second in pairs]}."
        )
    return Columns(x, [_class(item[1]) for item in found] if labels and second is not None else None)


def _class(value: Any) -> Any:
    """A class or cell as a Python value; a one-hot vector as a list."""
    if isinstance(value, Tensor):
        value = value.detach().cpu().numpy()
    if isinstance(value, np.ndarray | np.generic):
        return value.item() if value.size == 1 else value.tolist()
    return value


def _class_names(dataset: Any, key: str | None) -> Sequence[str]:
    """The class names that a dataset declares for a key, as Hugging Face's ``features`` do; else none."""
    features = getattr(dataset, "features", None)
    names = getattr(features[key], "names", None) if isinstance(features, Mapping) and key in features else None
    return names if isinstance(names, list | tuple) and all(isinstance(n, str) for n in names) else ()


def _complete(values: Sequence[Any], where: str, what: str) -> None:
    missing = [i for i, value in enumerate(values) if value is None]
    if missing:
        raise DataError(
            f"{len(missing)} of the {len(values)} {what} of '{where}' are None, the first is number {missing[0]}; "
            "leave them out of the dataset."
        )
