"""Recognises Python objects: arrays, tables, lists of examples, datasets, and pairs and splits of these."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sandglass.data.sources import arrays, tables
from sandglass.data.sources.raw import SPLITS, Pairs
from sandglass.errors import DataError


def recognised(source: Any) -> tuple[str, Pairs]:
    """A short name for a Python object, and its splits.

    Args:
        source: an array, tensor, DataFrame, list of examples or map-style dataset; ``(x, y)``; ``((x, y), (x2, y2))``
            for training and test set; or a mapping of splits to any of these.

    Returns:
        The name, and examples and labels of each split. The examples are an array, a tensor, a DataFrame, or a list of
        Pillow pictures.

    Raises:
        DataError: it is none of these; the message says how to convert it.

    Example:
        >>> x, y = np.zeros((4, 2)), [0, 1, 0, 1]
        >>> {split: (len(a), len(b)) for split, (a, b) in recognised(((x, y), (x[:2], y[:2])))[1].items()}
        {'train': (4, 4), 'test': (2, 2)}
    """
    if isinstance(source, Mapping) and not hasattr(source, "columns"):
        return "arrays", {split: _part(x, y) for split, (x, y) in name_splits(source).items()}
    if isinstance(source, tuple):
        if len(source) == 2 and all(isinstance(part, tuple) and len(part) == 2 for part in source):
            return "arrays", {split: _part(x, y) for split, (x, y) in zip(("train", "test"), source, strict=True)}
        if len(source) == 2 and not isinstance(source[0], tuple):
            return "arrays", {"train": _part(*source)}
        raise DataError(
            f"A tuple of {len(source)} cannot be read; give (x, y), ((x, y), (x_test, y_test)), or a mapping such as "
            "{'train': (x, y), 'validation': (x2, y2)}."
        )
    plain = isinstance(source, Tensor | np.ndarray | list)
    title = "table" if hasattr(source, "columns") else "arrays" if plain else type(source).__name__.lower()
    return title, {"train": _part(source)}


def name_splits(source: Mapping[str, Any]) -> Pairs:
    """Splits from a mapping: ``{"train": (x, y), "test": x}``.

    Raises:
        DataError: no ``"train"``, or a name that is not a split.
    """
    pairs: Pairs = {}
    for key, value in source.items():
        if str(key) not in SPLITS:
            raise DataError(f"'{key}' is not a split; name them train, validation and test.")
        pairs[SPLITS[str(key)]] = value if isinstance(value, tuple) and len(value) == 2 else (value, None)
    if "train" not in pairs:
        raise DataError(f"The splits {', '.join(pairs) or '(none)'} do not include 'train'.")
    return pairs


def _part(x: Any, y: Any = None) -> tuple[Any, Any]:
    """The examples of one split, and its labels: those given, else those of a dataset."""
    if hasattr(x, "columns"):
        return tables.as_frame(x), y
    if isinstance(x, Tensor | np.ndarray) or hasattr(x, "toarray"):
        return arrays.checked(x), y
    if is_image(x):
        raise DataError("A single picture cannot be read; give a list of pictures, such as [picture].")
    if isinstance(x, list | tuple) and not (x and _is_example(x[0])):
        return arrays.plain(x), y
    if hasattr(x, "__array__") and not isinstance(x, list | tuple):
        return arrays.checked(np.asarray(x)), y
    found, own = _items(x)
    return (found if is_image(found[0]) else _stacked(found)), own if y is None else y


def _is_example(item: Any) -> bool:
    """Whether the item of a list is an array, a picture, or a pair of one of these with a label."""
    if isinstance(item, tuple | list) and item:
        item = item[0]
    return isinstance(item, Tensor | np.ndarray) or is_image(item)


def _items(dataset: Any) -> tuple[list[Any], Any]:
    """Examples and labels of a list or a map-style ``torch.utils.data.Dataset``.

    Raises:
        DataError: it has no length or cannot be indexed, or is empty.
    """
    try:
        items = [dataset[i] for i in range(len(dataset))]
    except (TypeError, NotImplementedError, AttributeError, KeyError) as error:
        raise DataError(_way(dataset)) from error
    if not items:
        raise DataError("The dataset has no examples.")
    if not isinstance(items[0], tuple | list):
        return items, None
    if not all(isinstance(item, tuple | list) and len(item) == len(items[0]) for item in items):
        raise DataError("The examples of the dataset are not all pairs (example, label); make them alike.")
    if len(items[0]) < 2:
        return [item[0] for item in items], None
    y = [item[1].item() if isinstance(item[1], Tensor) and item[1].numel() == 1 else item[1] for item in items]
    return [item[0] for item in items], y


def _way(source: Any) -> str:
    """Says of an object that cannot be read what to give in its place."""
    name = type(source).__name__
    article = "An" if name[:1].lower() in "aeiou" else "A"
    if hasattr(source, "dataset") and hasattr(source, "batch_size"):
        inner = "loader.dataset" if hasattr(source.dataset, "__len__") else "list(loader.dataset)"
        return f"{article} {name} gives batches in an order of its own; give the dataset that it reads, {inner}."
    if hasattr(source, "__iter__") and not hasattr(source, "__len__"):
        return f"{article} {name} has no known length; give its examples as a list, list(...)."
    if hasattr(source, "__getitem__"):
        return f"{article} {name} has no length or no whole numbers as index; give a list, [data[i] for i in range(n)]."
    return f"{article} {name} cannot be read; give a name, a path, an array, a table or a dataset."


def _stacked(found: list[Any]) -> Any:
    """Stacks examples to an array or tensor.

    Raises:
        DataError: their shapes differ.
    """
    tensors = isinstance(found[0], Tensor)
    shapes = sorted({tuple(np.shape(x)) for x in found})
    if len(shapes) > 1:
        raise DataError(f"The examples have {len(shapes)} shapes, such as {shapes[0]} and {shapes[1]}; use only one.")
    if tensors and all(isinstance(x, Tensor) for x in found):
        x = torch.stack([t.detach() for t in found])
    else:
        tensors, x = False, torch.from_numpy(np.stack([arrays.plain(x) for x in found]))
    if x.ndim == 3:
        return x[:, None]  # items of two dimensions are grey pictures
    return x if tensors else x.numpy()


def is_image(x: Any) -> bool:
    """Whether an object is a Pillow picture."""
    return hasattr(x, "convert") and hasattr(x, "getexif")
