"""In-memory sources: arrays, tables and map-style datasets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sandglass.data.sources import arrays, tables
from sandglass.data.sources.raw import SPLITS, Pairs, Part, Raw, number_classes
from sandglass.data.transform import ArrayTransform, ImageTransform, TableTransform, Transform
from sandglass.errors import DataError


def read_pairs(
    pairs: Pairs,
    *,
    size: tuple[int, int] | None = None,
    fit: str | None = None,
    channels: int | None = None,
    transform: Transform | None = None,
) -> Raw:
    """Reads splits of arrays, tensors or DataFrames, all of the same type.

    Args:
        pairs: the splits.
        size: height and width of pictures; also reshapes rows ``(N, C * H * W)`` to pictures.
        fit: how pictures are resized.
        channels: 1, 3 or 4.
        transform: a fitted transform, or None.
    """
    for split, (x, y) in pairs.items():
        if not getattr(x, "shape", True):
            raise DataError(f"'{split}' is a single number; give rows (N, D) or pictures (N, H, W).")
        if y is not None and len(y) != len(x):
            raise DataError(f"'{split}' has {len(x)} examples and {len(y)} labels; give one label per example.")
    pairs = {s: pair for s, pair in pairs.items() if s == "train" or len(pair[0])}
    labels, classes = number_classes({split: y for split, (_, y) in pairs.items()})
    first = pairs["train"][0]
    if hasattr(first, "columns"):
        frames = {s: tables.check_frame(x) for s, (x, _) in pairs.items()}
        notes = _beside(frames["train"], transform)
        named = any(map(tables.has_row_labels, frames.values()))
        parts = {s: Part(f, labels[s], names=tuple(map(str, f.index)) if named else ()) for s, f in frames.items()}
        return Raw(parts, classes=classes, notes=notes)
    if size is None and isinstance(transform, ImageTransform):
        unfold: tuple[int, int] | None = transform.size
        depth = transform.channels
    else:
        unfold, depth = size, channels or 1
    joined = _join({s: _unfold(x, unfold, depth) for s, (x, _) in pairs.items()})
    lengths = [len(x) for x, _ in pairs.values()]
    if transform is None:
        x, transform, notes = _understand(joined, size, fit, channels)
    else:
        x, notes = _obey(joined, transform), ()
    parts = {s: Part(part, labels[s]) for s, part in zip(pairs, torch.split(x, lengths), strict=True)}
    return Raw(parts, transform if isinstance(transform, ImageTransform) else None, classes=classes, notes=notes)


def labelled(pairs: Pairs, labels: Any) -> Pairs:
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


def stack(found: list[Any]) -> Any:
    """Stacks examples to an array or tensor.

    Raises:
        DataError: their shapes differ.
    """
    tensors = isinstance(found[0], Tensor)
    shapes = sorted({tuple(np.shape(x)) for x in found})
    if len(shapes) > 1:
        raise DataError(f"The examples have {len(shapes)} shapes, such as {shapes[0]} and {shapes[1]}; use only one.")
    x = torch.stack(found) if tensors else torch.from_numpy(np.stack([arrays.plain(x) for x in found]))
    if x.ndim == 3:
        return x[:, None]  # items of two dimensions are grey pictures
    return x if tensors else x.numpy()


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


def _unfold(x: Any, size: tuple[int, int] | None, channels: int) -> Any:
    """Reshapes rows ``(N, C * H * W)`` to pictures if a size is given."""
    if size is None or np.ndim(x) != 2:
        return x
    shape = (len(x), channels, *size)
    if np.shape(x)[1] != np.prod(shape[1:]):
        raise DataError(
            f"Rows of {np.shape(x)[1]} numbers are not pictures of {channels}x{size[0]}x{size[1]}; check size."
        )
    return torch.from_numpy(np.array(arrays.plain(x), order="C").reshape(shape))


def _join(xs: dict[str, Any]) -> Any:
    """Concatenates all splits, so that they are interpreted in the same way."""
    first = next(iter(xs.values()))
    if len(xs) == 1:
        return first
    plain = {s: arrays.plain(x, f"'{s}'") for s, x in xs.items()}
    looks = {s: (x.dtype.kind, x.shape[1:]) for s, x in plain.items()}
    for split, look in looks.items():
        if look != looks["train"]:
            raise DataError(
                f"'{split}' has {plain[split].dtype} examples of shape {look[1]}, 'train' "
                f"{plain['train'].dtype} of {looks['train'][1]}; all splits must have the same type and shape."
            )
    joined = np.concatenate(list(plain.values()))
    return torch.from_numpy(joined) if isinstance(first, Tensor) else joined


def _understand(
    x: Any, size: tuple[int, int] | None, fit: str | None, channels: int | None
) -> tuple[Tensor, Transform | None, tuple[str, ...]]:
    """The stored examples, their transform if it needs no fitting, and notes."""
    reading = arrays.read_array(x)
    found, notes = reading.x, reading.notes
    if reading.nature == "real" or found.ndim == 2:
        return found, None, notes
    natural = (int(found.shape[1]), tuple(int(n) for n in found.shape[2:]))
    binary = reading.nature == "binary"
    same = natural == (channels or natural[0], size or natural[1])
    transform = ImageTransform(
        size or natural[1],  # type: ignore[arg-type]
        channels or natural[0],
        fit or "crop",
        2 if binary else 256,
        continuous=reading.nature == "unit" and same,
    )
    if same:
        return found, transform, notes
    if reading.nature == "unit":
        notes = (*notes, "values in [0, 1] were rounded to 256 levels")
    notes = (*notes, f"{len(found)} pictures: converted from {natural[0]}x{natural[1][0]}x{natural[1][1]} "
             f"to {transform.channels}x{transform.size[0]}x{transform.size[1]} ({transform.fit})")  # fmt: skip
    return transform.apply(found.bool() if binary else found), transform, notes


def _obey(x: Any, transform: Transform) -> Tensor:
    """Prepares new data for a fitted transform; rows and real arrays are transformed later, with their own checks."""
    if isinstance(transform, TableTransform):
        if np.ndim(x) != 2:
            raise DataError(f"The model reads rows of {len(transform.columns)} columns; got an array {np.shape(x)}.")
        return torch.from_numpy(np.array(arrays.plain(x), np.float64, order="C"))
    array = arrays.plain(x)
    if array.ndim < 3:
        raise DataError(f"The model reads pictures or arrays of three dimensions; got an array {array.shape}.")
    if isinstance(transform, ArrayTransform):
        array = arrays.channels_first(array, tensor=isinstance(x, Tensor), real=True)
        return torch.from_numpy(np.array(array, np.float64, order="C"))
    reading = arrays.read_array(x)
    if reading.nature == "real":
        raise DataError(
            f"The model reads pictures of bytes or in [0, 1]; got values from {array.min():.4g} to {array.max():.4g}."
        )
    whole = reading.nature == "binary" and (array.dtype.kind in "bf" or getattr(transform, "levels", 256) == 2)
    return transform.apply(reading.x.bool() if whole else reading.x)


def _beside(frame: Any, transform: Transform | None) -> tuple[str, ...]:
    """A note on columns of a table that a trained model does not use."""
    if transform is None:
        return ()
    if not isinstance(transform, TableTransform):
        raise DataError(
            f"The model reads pictures or arrays; got a table with the columns {', '.join(frame.columns[:8])}."
        )
    companions = (t for t in transform.given.values() if isinstance(t, TableTransform))
    known = {c["name"] for t in (transform, *companions) for c in t.columns}
    extra = [c for c in frame.columns if c not in known]
    return (f"columns that the model does not use were left out: {', '.join(extra)}",) if extra else ()
