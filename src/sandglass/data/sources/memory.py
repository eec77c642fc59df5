"""In-memory sources: arrays, tables and map-style datasets."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from sandglass.data.sources import arrays, axes, depth, tables
from sandglass.data.sources.axes import Form
from sandglass.data.sources.raw import Pairs, Part, Raw, number_classes
from sandglass.data.transform import ArrayTransform, ImageTransform, TableTransform, Transform
from sandglass.errors import ConfigError, DataError, named_type


def read_pairs(
    pairs: Pairs,
    *,
    size: tuple[int, int] | None = None,
    fit: str | None = None,
    channels: int | None = None,
    transform: Transform | None = None,
    value_range: tuple[float, float] | None = None,
    shared_range: tuple[float, float] | None = None,
    channels_at: axes.Axis | None = None,
    layout: str = "",
) -> Raw:
    """Reads splits of arrays, tensors or DataFrames, all of the same type.

    Args:
        pairs: the splits.
        size: height and width of pictures; also reshapes rows ``(N, C * H * W)`` to pictures.
        fit: how pictures are resized.
        channels: number of channels.
        transform: a fitted transform, or None.
        value_range: values of pictures that become 0 and 1.
        shared_range: those of other pictures, see :func:`sandglass.data.sources.arrays.is_shared`.
        channels_at: which end of arrays of four dimensions has the channels.
        layout: of the examples as they were handed in, if they were brought into another shape.
    """
    for split, (x, y) in pairs.items():
        if np.ndim(x) == 0:
            raise DataError(f"'{split}' is a single number; give rows (N, D) or pictures (N, H, W).")
        check_labels(y, len(x), split)
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
        planes = transform.channels
    else:
        unfold, planes = size, channels or 1
    joined = _join({s: _unfold(x, unfold, planes) for s, (x, _) in pairs.items()})
    layout = "ND" if np.ndim(first) == 2 and unfold is not None else layout
    channels_at = "first" if layout else channels_at
    lengths = [len(x) for x, _ in pairs.values()]
    if transform is None:
        ranges = value_range, shared_range
        x, transform, form, notes = _understand(joined, size, fit, channels, ranges, channels_at, layout)
    else:
        x, form, notes = _obey(joined, transform, channels_at)
        form = Form(layout, form.dtype) if layout else form
    if len(x) != sum(lengths):  # a single picture
        raise DataError(f"An array of shape {np.shape(first)} is one picture; give x[None].")
    parts = {s: Part(part, labels[s]) for s, part in zip(pairs, torch.split(x, lengths), strict=True)}
    known = transform if isinstance(transform, ImageTransform) else None
    return Raw(parts, known, classes=classes, notes=notes, forms={"": form})


def check_labels(y: Any, n: int, split: str) -> None:
    """Refuses labels that are not as many as the examples of their split; None is no labels.

    Raises:
        DataError: they are of another number, or a single one.
    """
    if y is not None and not hasattr(y, "__len__"):
        raise DataError(f"The labels of '{split}' are {named_type(y)}; give one class per example, (N,).")
    if y is not None and _length(y) != n:
        raise DataError(f"'{split}' has {n} examples and {_length(y)} labels; give one label per example.")


def _length(y: Any) -> int:
    shape = getattr(y, "shape", None)
    return (shape[0] if shape else 1) if shape is not None else len(y)


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
    """Stacks examples to an array or tensor; pictures of two dimensions are grey.

    Raises:
        DataError: their shapes differ.
    """
    shapes = sorted({tuple(np.shape(x)) for x in found})
    if len(shapes) > 1:
        raise DataError(f"The examples have {len(shapes)} shapes, such as {shapes[0]} and {shapes[1]}; use only one.")
    if all(isinstance(x, Tensor) for x in found):
        x = torch.stack([t.detach() for t in found])
        return x[:, None] if x.ndim == 3 else x
    array = np.stack([arrays.plain(x) for x in found])
    return torch.from_numpy(array)[:, None] if array.ndim == 3 else array


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
    x: Any,
    size: tuple[int, int] | None,
    fit: str | None,
    channels: int | None,
    ranges: tuple[tuple[float, float] | None, tuple[float, float] | None],
    channels_at: axes.Axis | None,
    layout: str,
) -> tuple[Tensor, Transform | None, Form, tuple[str, ...]]:
    """The stored examples, their transform if it needs no fitting, the form of the array, and notes."""
    own, shared = ranges
    reading = arrays.read_array(x, channels=channels, channels_at=channels_at, value_range=own, shared_range=shared)
    found, notes, form = reading.x, reading.notes, reading.form
    form = Form(layout, form.dtype) if layout else form
    if found.ndim == 2:
        return found, None, form, notes
    natural = (int(found.shape[1]), tuple(int(n) for n in found.shape[2:]))
    same = natural == (channels or natural[0], size or natural[1])
    if reading.nature == "real":
        if not same or fit is not None:
            raise ConfigError(
                "size, fit and channels convert pictures, and these values are modelled as real numbers; give the "
                f"values of black and white, {depth.range_option(float(np.min(x)), float(np.max(x)))}."
            )
        return found, None, form, notes
    if channels != natural[0]:
        axes.check_usual(channels)
    binary = reading.nature == "binary"
    if form.layout == "NHW" and (channels or 1) != 1:
        form = Form("NHWC", form.dtype)
    transform = ImageTransform(
        size or natural[1],  # type: ignore[arg-type]
        channels or natural[0],
        fit or "crop",
        2 if binary else 256,
        continuous=reading.nature == "unit" and same,
        value_range=reading.value_range,
        white=reading.white,
        layout=form.layout,
        dtype=form.dtype,
    )
    if same:
        return found, transform, form, notes
    if reading.nature == "unit":
        notes = (*notes, "values in [0, 1] were rounded to 256 levels")
    notes = (*notes, f"{len(found)} pictures: converted from {natural[0]}x{natural[1][0]}x{natural[1][1]} "
             f"to {transform.channels}x{transform.size[0]}x{transform.size[1]} ({transform.fit})")  # fmt: skip
    return transform.stored(found.bool() if binary else found), transform, form, notes


def _obey(x: Any, transform: Transform, channels_at: axes.Axis | None) -> tuple[Tensor, Form, tuple[str, ...]]:
    """Prepares new data for a fitted transform; rows and real arrays are transformed later, with their own checks."""
    if isinstance(transform, TableTransform):
        if np.ndim(x) != 2:
            raise DataError(f"The model reads rows of {len(transform.columns)} columns; got an array {np.shape(x)}.")
        array = arrays.plain(x)
        return torch.from_numpy(np.array(array, np.float64, order="C")), Form.of(array, "ND"), ()
    array = arrays.plain(x)
    if array.ndim < 3:
        raise DataError(f"The model reads pictures or arrays of three dimensions; got an array {array.shape}.")
    channels = transform.spec().shape[0]
    if isinstance(transform, ArrayTransform):
        layout = axes.layout_of(
            array.shape,
            channels=channels,
            channels_at=channels_at or axes.end_of(array.shape, transform.layout, channels),
            tensor=isinstance(x, Tensor),
        )
        laid = np.array(axes.channels_first(array, layout), np.float64, order="C")
        return torch.from_numpy(laid), Form.of(array, layout), ()
    assert isinstance(transform, ImageTransform)
    reading = arrays.read_array(
        x,
        channels=channels,
        channels_at=channels_at or axes.end_of(array.shape, transform.layout, channels),
        value_range=transform.value_range,
        white=transform.white,
    )
    if reading.nature == "real":
        raise DataError(
            f"The model reads pictures of bytes or in [0, 1]; got values from {array.min():.4g} to {array.max():.4g}."
        )
    whole = reading.nature == "binary" and (array.dtype.kind in "bf" or transform.levels == 2)
    clipped = tuple(note for note in reading.notes if "clipped" in note)
    return transform.stored(reading.x.bool() if whole else reading.x), reading.form, clipped


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
