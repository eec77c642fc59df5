"""Recognises Python objects: arrays, tables, datasets of items, and pairs and splits of these."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from sandglass.data import cells
from sandglass.data.sources import arrays, items, tables
from sandglass.data.sources.held import is_picture
from sandglass.data.sources.raw import SPLITS, Pairs
from sandglass.errors import DataError
from sandglass.runs import frames


def recognised(source: Any, image: str | None = None) -> tuple[str, Pairs]:
    """A short name for a Python object, and its splits.

    Args:
        source: an array, tensor, DataFrame, or dataset or list of items; a mapping of columns to lists; ``(x, y)``;
            ``((x, y), (x2, y2))`` for training and test set; or a mapping of splits to any of these.
        image: the column of pictures in a DataFrame.

    Returns:
        The name, and examples and labels of each split. The examples are an array, a tensor, a DataFrame, or items as
        :func:`sandglass.data.sources.items.are_items` knows them.

    Raises:
        DataError: it is none of these; the message says how to convert it.

    Example:
        >>> x, y = np.zeros((4, 2)), [0, 1, 0, 1]
        >>> {split: (len(a), len(b)) for split, (a, b) in recognised(((x, y), (x[:2], y[:2])))[1].items()}
        {'train': (4, 4), 'test': (2, 2)}
    """
    if isinstance(source, Mapping) and not hasattr(source, "columns"):
        rows = items.of_columns(source)
        splits = name_splits(source) if rows is None else {"train": (rows, None)}
    elif isinstance(source, tuple):
        splits = _of_tuple(source)
    else:
        splits = {"train": (source, None)}
    found = {split: (_examples(x, image), y) for split, (x, y) in splits.items()}
    if not isinstance(source, Tensor | np.ndarray | list | tuple | Mapping) and not hasattr(source, "columns"):
        return type(source).__name__.lower(), found
    first = found["train"][0]
    return "table" if hasattr(first, "columns") else "items" if items.are_items(first) else "arrays", found


def _of_tuple(source: tuple[Any, ...]) -> Pairs:
    if len(source) == 2 and all(isinstance(part, tuple) and len(part) == 2 for part in source):
        return dict(zip(("train", "test"), source, strict=True))
    if len(source) == 2 and not isinstance(source[0], tuple):
        return {"train": source}
    raise DataError(
        f"A tuple of {len(source)} cannot be read; give (x, y), ((x, y), (x_test, y_test)), or a mapping such as "
        "{'train': (x, y), 'validation': (x2, y2)}."
    )


def name_splits(source: Mapping[str, Any]) -> Pairs:
    """Splits from a mapping: ``{"train": (x, y), "test": x}``.

    Raises:
        DataError: no ``"train"``, or a name that is not a split.
    """
    pairs: Pairs = {}
    for key, value in source.items():
        if str(key) not in SPLITS:
            table = all(hasattr(x, "__len__") and not isinstance(x, tuple) for x in source.values())
            way = (
                f" For a table give pandas.DataFrame({{'{key}': ..., ...}})." if table and isinstance(key, str) else ""
            )
            raise DataError(f"'{key}' is not a split; name them train, validation and test.{way}")
        if value is None:
            raise DataError(f"The split '{key}' is None; leave it out.")
        pairs[SPLITS[str(key)]] = value if isinstance(value, tuple) and len(value) == 2 else (value, None)
    if "train" not in pairs:
        raise DataError(f"The splits {', '.join(pairs) or '(none)'} do not include 'train'.")
    return pairs


def _examples(x: Any, image: str | None) -> Any:
    """The examples of one split."""
    if isinstance(x, np.ndarray) and x.dtype.names:
        wide = next((name for name in x.dtype.names if x[name].ndim != 1), None)
        if x.ndim != 1 or wide is not None:
            where = f"the field '{wide}'" if wide is not None else "rows"
            raise DataError(f"An array with named fields has {where} of several values; give an array of each field.")
        x = frames.pandas().DataFrame(x)
    if isinstance(x, Mapping) and not hasattr(x, "columns") and (rows := items.of_columns(x)) is not None:
        return rows
    if hasattr(x, "columns"):
        frame = tables.as_frame(x)
        rows = items.of_frame(frame, image)
        return frame if rows is None else rows
    if isinstance(x, Tensor | np.ndarray) or hasattr(x, "toarray"):
        return arrays.checked(x)
    if is_picture(x):
        raise DataError("A single picture cannot be read; give a list of pictures, such as [picture].")
    if isinstance(x, type):
        raise DataError(_way(x))
    if items.are_items(x):
        _check_length(x)
        return x
    if isinstance(x, list | tuple):
        return arrays.plain(x)
    if hasattr(x, "__array__"):
        return arrays.checked(np.asarray(x))
    raise DataError(_way(x))


def _check_length(dataset: Any) -> None:
    """Refuses a dataset whose length is not a number.

    Raises:
        DataError: it is none, or its code fails.
    """
    try:
        len(dataset)
    except Exception as error:  # the code of the dataset may raise anything
        reason = " ".join(str(error).split())
        raise DataError(f"The length of the dataset cannot be read: {type(error).__name__}: {reason}.") from error


def _way(source: Any) -> str:
    """Says of an object that cannot be read what to give in its place."""
    if isinstance(source, bytes | bytearray):
        return "Bytes cannot be read; give a path, or the content of several picture files as a list, [content, ...]."
    if isinstance(source, type):
        return f"{source.__name__} is a class; give an object of it."
    name = type(source).__name__
    article = "An" if name[:1].lower() in "aeiou" else "A"
    if hasattr(source, "dataset") and hasattr(source, "batch_size"):
        inner = "loader.dataset" if hasattr(source.dataset, "__len__") else "list(loader.dataset)"
        return f"{article} {name} gives batches in an order of its own; give the dataset that it reads, {inner}."
    if hasattr(source, "__iter__") and not hasattr(source, "__len__"):
        return f"{article} {name} has no known length; give its examples as a list, list(...)."
    if isinstance(source, Mapping):
        return (
            f"{article} {name} with the keys {cells.listed(source)} cannot be read; give columns by name, such as "
            "{'image': [...], 'label': [...]}, or {'train': ..., 'test': ...}."
        )
    if hasattr(source, "__iter__") and not hasattr(source, "__getitem__"):
        return f"{article} {name} has no order; give its examples as a list, list(...)."
    if hasattr(source, "__getitem__"):
        return f"{article} {name} has no length or no whole numbers as index; give a list, [data[i] for i in range(n)]."
    return f"{article} {name} cannot be read; give a name, a path, an array, a table or a dataset."
