"""Interprets arrays: pictures or rows, the channel axis, and the range of values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from sandglass.errors import DataError

CHANNELS = (1, 3, 4)


@dataclass(frozen=True)
class Reading:
    """An interpreted array.

    Args:
        x: ``(N, C, H, W)`` uint8 or float32 for ``"bytes"``, ``"unit"`` and ``"binary"``; ``(N, C, H, W)`` or
            ``(N, D)`` floats for ``"real"``.
        nature: ``"bytes"`` (0 to 255), ``"unit"`` (floats in [0, 1]), ``"binary"`` (uint8 0 or 1) or ``"real"``.
        notes: remarks on conversions.
    """

    x: Tensor
    nature: Literal["bytes", "unit", "binary", "real"]
    notes: tuple[str, ...] = ()


def plain(x: Any, name: str = "x") -> np.ndarray[Any, Any]:
    """Converts to a numeric NumPy array in native byte order; a view if possible, so it must not be modified.

    Args:
        x: an array, a memory map, a tensor on any device, or a list of numbers.
        name: name of the argument, for messages.

    Raises:
        DataError: strings, objects or complex numbers.

    Example:
        >>> plain(np.arange(3, dtype=">i4")).dtype.isnative
        True
    """
    if isinstance(x, Tensor):
        x = x.detach().cpu()
        x = (x.float() if x.dtype == torch.bfloat16 else x).numpy()
    try:
        array = np.asarray(x)
    except ValueError as error:
        raise DataError(f"{name} is not an array ({error}); all rows must have the same length.") from error
    if array.dtype.kind not in "buif":
        raise DataError(f"{name} holds {array.dtype} values, not numbers; give a pandas DataFrame for texts.")
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def finite(x: np.ndarray[Any, Any], name: str = "x", *, gaps: bool = False) -> None:
    """Raises an error if an array has missing or infinite values.

    Args:
        x: the array.
        name: name of the argument, for the message.
        gaps: whether to allow NaN, as missing values.

    Raises:
        DataError: there is such a value; the message has its index.

    Example:
        >>> finite(np.array([[0.0, 1.0], [float("nan"), 2.0]]))
        Traceback (most recent call last):
        sandglass.errors.DataError: x has 1 missing or infinite value, the first at index (1, 0); remove or replace it.
    """
    if x.dtype.kind != "f" or np.isfinite(x.sum(dtype=np.float64)):
        return
    bad = np.isinf(x) if gaps else ~np.isfinite(x)
    count = int(bad.sum())
    if count:  # a sum of finite values may overflow
        first = tuple(int(i) for i in np.argwhere(bad)[0])
        values, them = ("values", "them") if count > 1 else ("value", "it")
        raise DataError(
            f"{name} has {count} {'' if gaps else 'missing or '}infinite {values}, the first at index {first}; "
            f"remove or replace {them}."
        )


def read_array(x: Any, name: str = "x") -> Reading:
    """Interprets an array as rows or pictures, and converts pictures to ``(N, C, H, W)``.

    Two dimensions are rows, in which NaN is a missing value. Three are grey pictures ``(N, H, W)``. Four are pictures
    with channels last or first; if both are possible, a tensor is taken as channels first and an array is rejected. A
    tensor with another number of channels is taken as real numbers.

    Args:
        x: an array or tensor; not modified.
        name: name of the argument, for messages.

    Raises:
        DataError: no examples, non-numeric values, NaN in pictures, or an ambiguous layout.

    Example:
        >>> reading = read_array(np.zeros((5, 28, 20, 3), np.uint8))
        >>> reading.x.shape, reading.nature
        (torch.Size([5, 3, 28, 20]), 'bytes')
    """
    array = plain(x, name)
    if array.ndim < 2 or array.size == 0:
        raise DataError(
            f"{name} has shape {array.shape}; give rows (N, D) or pictures (N, H, W) with at least one example."
        )
    finite(array, name, gaps=array.ndim == 2)
    seen = array[~np.isnan(array)] if array.ndim == 2 and array.dtype.kind == "f" else array
    if not seen.size:
        raise DataError(f"{name} holds no value, only NaN.")
    low, high = seen.min(), seen.max()
    binary = array.dtype == np.bool_ or (low == 0 and high == 1 and bool(np.isin(seen, (0, 1)).all()))
    if array.ndim == 2:
        return Reading(_own(array, np.float64), "binary" if binary else "real")
    tensor = isinstance(x, Tensor)
    if tensor and array.ndim == 4 and not {array.shape[1], array.shape[3]} & set(CHANNELS):
        note = f"{array.shape[1]} channels are not a picture: they are modelled as real numbers"
        return Reading(_own(array, np.float64), "real", (note,))
    array = channels_first(array, name, tensor=tensor, real=array.dtype.kind == "f" and not 0 <= low <= high <= 1)
    if binary:
        return Reading(_own(array, np.uint8), "binary")
    return _values(array, float(low), float(high), name)


def _values(array: np.ndarray[Any, Any], low: float, high: float, name: str) -> Reading:
    """Determines the value range of pictures."""
    kind = array.dtype.kind
    if kind in "iu" and low >= 0 and high <= 255:
        return Reading(_own(array, np.uint8), "bytes")
    if array.dtype == np.uint16:
        return Reading(_own(_divide(array), np.uint8), "bytes", ("16-bit values were scaled to 8 bits",))
    if kind == "f" and low >= 0 and high <= 1:
        levels = np.round(array.astype(np.float32) * 255)
        if np.array_equal((levels / np.float32(255)).astype(np.float32), array.astype(np.float32)):
            return Reading(_own(levels, np.uint8), "bytes")
        return Reading(_own(array, np.float32), "unit")
    if low >= 0 and 1 < high <= 255 and np.array_equal(array, np.round(array)):
        raise DataError(
            f"{name} holds whole numbers up to {high:g} as {array.dtype}; give uint8, or divide by the largest value."
        )
    note = f"values from {low:.4g} to {high:.4g} lie outside [0, 1]: they are modelled as real numbers"
    return Reading(_own(array, np.float64), "real", (note,))


def channels_first(
    array: np.ndarray[Any, Any], name: str = "x", *, tensor: bool = False, real: bool = False
) -> np.ndarray[Any, Any]:
    """A view ``(N, C, H, W)`` of pictures ``(N, H, W)``, ``(N, H, W, C)`` or ``(N, C, H, W)``.

    Args:
        array: an array of three or four dimensions.
        name: name of the argument, for messages.
        tensor: whether it was passed as a tensor, so that an ambiguous layout is taken as channels first.
        real: whether to accept any number of channels.

    Raises:
        DataError: an ambiguous or invalid layout.
    """
    shape = array.shape
    if array.ndim == 3:
        if shape[0] in CHANNELS[1:] or shape[2] in CHANNELS:
            raise DataError(
                f"{name} has shape {shape}, which can be several grey pictures or one picture; "
                "give x[None] for one picture, x[:, None] as a tensor for grey ones (N, 1, H, W)."
            )
        return array[:, None]
    if array.ndim != 4:
        raise DataError(f"{name} has shape {shape}; pictures are (N, H, W), (N, H, W, C) or (N, C, H, W).")
    first, last = shape[1] in CHANNELS, shape[3] in CHANNELS
    if first and last and not tensor:
        raise DataError(
            f"{name} has shape {shape}, whose channels can be first or last; give a tensor (N, C, H, W), "
            "such as torch.from_numpy(x) or torch.from_numpy(x).movedim(-1, 1)."
        )
    if first or real:
        return array
    if last:
        return np.moveaxis(array, -1, 1)
    raise DataError(f"{name} has shape {shape}; pictures have 1, 3 or 4 channels, first or last.")


def picture(x: Any, name: str = "the picture") -> np.ndarray[Any, Any]:
    """A picture ``(H, W)``, ``(H, W, C)`` or ``(C, H, W)`` as ``(C, H, W)``; an ambiguous tensor is channels first.

    Raises:
        DataError: another shape.
    """
    array = plain(x, name)
    if array.ndim == 2:
        return array[None]
    if array.ndim == 3:
        first, last = array.shape[0] in CHANNELS, array.shape[2] in CHANNELS
        if last and not (first and isinstance(x, Tensor)):
            return np.moveaxis(array, -1, 0)
        if first:
            return array
    raise DataError(
        f"{name} has shape {array.shape}; a picture is (H, W), (H, W, C) or (C, H, W) with 1, 3 or 4 channels."
    )


def as_bytes(x: np.ndarray[Any, Any], name: str = "the picture") -> np.ndarray[Any, Any]:
    """Converts to uint8: uint16 is rescaled, booleans and floats in [0, 1] are multiplied by 255.

    Raises:
        DataError: floats outside [0, 1], integers outside 0 to 255.
    """
    if x.dtype == np.uint8:
        return x
    finite(x, name)
    if x.dtype == np.bool_:
        return x.astype(np.uint8) * np.uint8(255)
    if x.dtype == np.uint16:
        return _divide(x)
    low, high = x.min(), x.max()
    top = 1 if x.dtype.kind == "f" else 255
    if low < 0 or high > top:
        raise DataError(f"{name} has {x.dtype} values from {low:.4g} to {high:.4g}; they must lie in 0 to {top}.")
    return (np.round(x * 255.0) if top == 1 else x).astype(np.uint8)


def _divide(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Converts 16 bits to 8 by rounding x / 257, so that 0 and 65,535 become 0 and 255."""
    return ((x.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _own(array: np.ndarray[Any, Any], dtype: Any) -> Tensor:
    """A tensor with a copy of the array, in row-major order."""
    return torch.from_numpy(np.array(array, dtype=dtype, order="C", copy=True))
