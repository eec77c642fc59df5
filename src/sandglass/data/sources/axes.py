"""The axes of arrays: which one has the channels, and the way back to the layout and type of what was handed in."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from sandglass.errors import ConfigError, DataError

USUAL = (1, 3, 4)
"""Numbers of channels of pictures in files: grey, RGB and RGBA."""

Axis = Literal["first", "last"]
LAYOUTS = ("ND", "NHW", "NHWC", "NCHW", "HWC", "CHW")
"""Layouts of an array of pictures: rows, grey, channels last, channels first, and a single picture."""

DTYPES = (
    "bool",
    *(f"{sign}int{bits}" for sign in ("u", "") for bits in (8, 16, 32, 64)),
    "float16",
    "float32",
    "float64",
)
"""Types of an array that samples can be given back in."""


@dataclass(frozen=True)
class Form:
    """The layout and type of an array that was handed in, in which samples are given back.

    Args:
        layout: one of :data:`LAYOUTS`.
        dtype: one of :data:`DTYPES`.
    """

    layout: str
    dtype: str

    @classmethod
    def of(cls, array: np.ndarray[Any, Any], layout: str) -> Form:
        """The form of an array in a layout; other types are given back as float64."""
        return cls(layout, array.dtype.name if array.dtype.name in DTYPES else "float64")


_ENDS: dict[str, tuple[Axis, int]] = {"NCHW": ("first", 1), "NHWC": ("last", 3)}


def layout_of(
    shape: Sequence[int],
    *,
    channels: int | None = None,
    channels_at: Axis | None = None,
    tensor: bool = False,
    name: str = "x",
) -> str:
    """The layout of an array by its shape, whatever its values.

    ``channels_at`` decides, then ``channels`` where it names one end. Else the end with 1, 3 or 4 channels has them; if
    both have, a tensor has them first, and an array is asked about. With other numbers of channels it is the end whose
    other two sides are equal, else the shortest of the three.

    Args:
        shape: of three or four dimensions.
        channels: number of channels, if known.
        channels_at: which end has the channels, if known.
        tensor: whether it was passed as a tensor.
        name: name of the argument, for messages.

    Returns:
        One of :data:`LAYOUTS`.

    Raises:
        DataError: another number of dimensions, or two readings; the message names the option that decides.

    Example:
        >>> layout_of((9, 32, 32, 3)), layout_of((9, 13, 8, 8)), layout_of((9, 4, 4, 3), channels=3)
        ('NHWC', 'NCHW', 'NHWC')
    """
    shape = tuple(shape)
    if len(shape) == 3:
        return _grey_or_single(shape, channels, name)
    if len(shape) != 4:
        raise DataError(f"{name} has shape {shape}; pictures are (N, H, W), (N, H, W, C) or (N, C, H, W).")
    if channels_at is not None:
        return next(layout for layout, (axis, _) in _ENDS.items() if axis == channels_at)
    if channels in (shape[1], shape[3]) and shape[1] != shape[3]:
        return "NCHW" if channels == shape[1] else "NHWC"
    usual = [layout for layout, (_, axis) in _ENDS.items() if shape[axis] in USUAL]
    square = [layout for layout, sides in (("NCHW", shape[2:]), ("NHWC", shape[1:3])) if sides[0] == sides[1]]
    short = [layout for layout, (_, axis) in _ENDS.items() if shape[1:].count(shape[axis]) == 1]
    short = [layout for layout in short if shape[_ENDS[layout][1]] == min(shape[1:])]
    for found in [usual] if usual else [square, short]:
        if len(found) == 1:
            return found[0]
    if tensor or set(shape[1:]) == {1}:
        return "NCHW"
    options = [f"channels_at='{axis}' (--channels-at {axis})" for axis in get_args(Axis)]
    raise DataError(
        f"{name} has shape {shape}, which can be {shape[1]} channels first or {shape[3]} channels last; "
        f"give {' or '.join(options)}."
    )


def _grey_or_single(shape: tuple[int, ...], channels: int | None, name: str) -> str:
    """Three dimensions: grey pictures, or a single one whose channels are first or last."""
    ends = {layout: shape[axis] for layout, axis in (("CHW", 0), ("HWC", 2))}
    single = [layout for layout, n in ends.items() if n in USUAL and (layout, n) != ("CHW", 1)]
    if channels == 1 or not single:
        return "NHW"
    named = [layout for layout in single if ends[layout] == channels]
    if len(named) == 1:
        return named[0]
    raise DataError(
        f"{name} has shape {shape}, which can be several grey pictures or one picture; "
        "give channels=1 (--channels 1) for grey ones (N, H, W), x[None] for one picture."
    )


def check_axis(axis: Any) -> None:
    """Checks the option ``channels_at``.

    Raises:
        ConfigError: it is neither "first" nor "last".
    """
    if axis not in (None, *get_args(Axis)):
        raise ConfigError(f"channels_at must be first or last, not {axis!r}.")


def check_usual(channels: int | None) -> None:
    """Checks the option ``channels`` for pictures that are converted to that number.

    Raises:
        ConfigError: it is not one of :data:`USUAL`.
    """
    if channels not in (None, *USUAL):
        raise ConfigError(
            f"channels must be 1, 3 or 4 for pictures, not {channels}; other numbers are for arrays that have them."
        )


def channels_first(array: np.ndarray[Any, Any], layout: str) -> np.ndarray[Any, Any]:
    """A view ``(N, C, H, W)`` of pictures in a layout.

    Example:
        >>> channels_first(np.zeros((9, 8, 6, 3)), "NHWC").shape
        (9, 3, 8, 6)
    """
    if layout in ("HWC", "CHW"):
        return channels_first(array[None], f"N{layout}")
    return array[:, None] if layout == "NHW" else np.moveaxis(array, -1, 1) if layout == "NHWC" else array


def end_of(shape: Sequence[int], layout: str, channels: int) -> Axis | None:
    """The end of an array that has the channels, if it has the shape of those that a model was trained on.

    Example:
        >>> end_of((9, 3, 8, 3), "NHWC", 3), end_of((9, 3, 8, 8), "NHWC", 3)
        ('last', None)
    """
    if layout not in _ENDS or len(shape) != 4:
        return None
    end, axis = _ENDS[layout]
    return end if shape[axis] == channels else None


def as_laid(array: np.ndarray[Any, Any], layout: str, shape: Sequence[int]) -> np.ndarray[Any, Any] | None:
    """A view ``(N, *shape)`` of an array in a layout; None if it is not one of examples of that shape.

    Example:
        >>> as_laid(np.zeros((9, 8, 6, 3)), "NHWC", (3, 8, 6)).shape, as_laid(np.zeros((9, 144)), "ND", (3, 8, 6)).shape
        ((9, 3, 8, 6), (9, 3, 8, 6))
    """
    shape = tuple(shape)
    if not layout or array.ndim != len(layout):
        return None
    if layout == "ND":
        return array.reshape(-1, *shape) if array.shape[1] == math.prod(shape) else None
    array = channels_first(array, layout)
    return array if array.shape[1:] == shape else None


def as_handed(array: np.ndarray[Any, Any], layout: str, dtype: str) -> np.ndarray[Any, Any]:
    """Pictures ``(N, C, H, W)``, or one without N, in the layout and type of the array that a model was trained on.

    Whole numbers are rounded, and cut to what their type holds; booleans are True from 0.5.

    Example:
        >>> as_handed(np.full((9, 3, 8, 6), 254.7), "NHWC", "uint8")[0, 0, 0]
        array([255, 255, 255], dtype=uint8)
    """
    if layout == "ND":
        array = array.reshape(*array.shape[:-3], -1)
    elif layout == "NHW" and array.shape[-3] == 1:
        array = array[..., 0, :, :]
    elif layout in ("NHWC", "HWC"):
        array = np.moveaxis(array, -3, -1)
    return np.ascontiguousarray(typed(array, dtype))


def typed(array: np.ndarray[Any, Any], dtype: str) -> np.ndarray[Any, Any]:
    """Numbers in another type: rounded and cut to what it holds if it is of whole numbers; unchanged if it is empty."""
    if not dtype or array.dtype == dtype:
        return array
    kind = np.dtype(dtype).kind
    if kind == "b":
        return array >= 0.5
    if kind == "f":
        return array.astype(dtype)
    limits = np.iinfo(dtype)
    top = float(limits.max) if limits.bits < 64 else np.nextafter(float(limits.max), 0)  # as a float it rounds up
    return np.clip(np.nan_to_num(np.round(array.astype(np.float64))), float(limits.min), top).astype(dtype)
