"""Interprets arrays: pictures or rows, and the range of values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from sandglass.data.sources import axes, depth
from sandglass.data.sources.axes import Form
from sandglass.errors import DataError


@dataclass(frozen=True)
class Reading:
    """An interpreted array.

    Args:
        x: ``(N, C, H, W)`` uint8 or float32 for ``"bytes"``, ``"unit"`` and ``"binary"``; ``(N, C, H, W)`` or
            ``(N, D)`` floats for ``"real"``.
        nature: ``"bytes"`` (0 to 255), ``"unit"`` (floats in [0, 1]), ``"binary"`` (uint8 0 or 1) or ``"real"``.
        form: its layout and type.
        notes: remarks on conversions.
        white: the value of white in pictures of uint16 without a ``value_range``; None for others.
        value_range: the values that became 0 and 1; None for those of the type.
    """

    x: Tensor
    nature: Literal["bytes", "unit", "binary", "real"]
    form: Form
    notes: tuple[str, ...] = ()
    white: int | None = None
    value_range: tuple[float, float] | None = None


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
    x = checked(x, name)
    if isinstance(x, Tensor):
        try:
            x = x.detach().cpu().resolve_conj().resolve_neg()
            x = (x.float() if x.dtype == torch.bfloat16 else x).numpy()
        except NotImplementedError as error:  # of the device "meta"
            raise DataError(f"{name} is a tensor without values; give one with values.") from error
        except (TypeError, RuntimeError) as error:
            raise DataError(f"{name} is a tensor of {x.dtype} that NumPy cannot hold; give {name}.float().") from error
    if isinstance(x, np.ma.MaskedArray):
        x = _unmasked(x, name)
    try:
        array = np.asarray(x)
    except (ValueError, TypeError) as error:
        raise DataError(f"{name} is not an array ({error}); all rows must have the same length.") from error
    if array.dtype.kind not in "buif":
        raise DataError(f"{name} holds {array.dtype} values, not numbers; {_instead(array, name)}.")
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def checked(x: Any, name: str = "x") -> Any:
    """The array or tensor, unless it is sparse.

    Raises:
        DataError: it is sparse or nested; the message says how to convert it.
    """
    if isinstance(x, Tensor) and x.is_nested:
        raise DataError(f"{name} is a nested tensor; pad it: {name}.to_padded_tensor(0.0).")
    if isinstance(x, Tensor) and x.layout != torch.strided:
        raise DataError(f"{name} is a sparse tensor; give it as a dense one: {name}.to_dense().")
    if hasattr(x, "toarray") and hasattr(x, "nnz"):
        raise DataError(f"{name} is a sparse matrix; give it as an array: {name}.toarray().")
    return x


_INSTEAD = {
    "c": "give their real and imaginary parts as two channels or columns, or abs(x)",
    "V": "give the fields as a pandas DataFrame, pandas.DataFrame(x)",
    "M": "give a pandas DataFrame for dates",
    "m": "divide them by a unit, such as numpy.timedelta64(1, 's')",
}


def _instead(array: np.ndarray[Any, Any], name: str) -> str:
    """What to give in place of an array that does not hold numbers."""
    if array.dtype.kind == "O" and array.size:
        some = array.ravel()[:1000].tolist()
        if all(isinstance(v, np.ndarray | Tensor) for v in some):
            return f"stack the arrays in it: numpy.stack(list({name}))"
        if all(hasattr(v, "getexif") for v in some):
            return f"give the pictures in it as a list: list({name})"
        if all(hasattr(v, "__float__") for v in some):
            return f"convert them: {name}.astype(float)"
        if all(hasattr(v, "__dataclass_fields__") for v in some):
            return "give mappings: [vars(item) for item in data]"
        if any(hasattr(v, "read") for v in some):
            return "open each file first, such as with PIL.Image.open"
    return _INSTEAD.get(array.dtype.kind, "give a pandas DataFrame for texts")


def _unmasked(x: np.ma.MaskedArray[Any, Any], name: str) -> np.ndarray[Any, Any]:
    """Rows of a masked array, with NaN where it is masked.

    Raises:
        DataError: it has masked values and is not of rows.
    """
    if not np.ma.is_masked(x):
        return np.asarray(x.data)
    if x.ndim != 2:
        raise DataError(f"{name} has masked values, which only rows (N, D) can have; fill them: {name}.filled(0).")
    return np.ma.filled(x.astype(np.float64), np.nan)


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


def read_array(
    x: Any,
    name: str = "x",
    *,
    channels: int | None = None,
    channels_at: axes.Axis | None = None,
    value_range: tuple[float, float] | None = None,
    shared_range: tuple[float, float] | None = None,
    white: int | None = None,
) -> Reading:
    """Interprets an array as rows or pictures, and converts pictures to ``(N, C, H, W)``.

    Two dimensions are rows, in which NaN is a missing value. Three are grey pictures ``(N, H, W)``. Four are pictures
    with channels last or first, by :func:`sandglass.data.sources.axes.layout_of`.

    Args:
        x: an array or tensor; not modified.
        name: name of the argument, for messages.
        channels: number of channels, if known.
        channels_at: which end has the channels, if known.
        value_range: values of pictures that become 0 and 1; by default those of their type, or as they are.
        shared_range: that of other pictures, which holds if :func:`is_shared` says so.
        white: the value of white in uint16, 255 or 65,535; by default 255 if no value is larger.

    Raises:
        DataError: no examples, non-numeric values, NaN in pictures, or an ambiguous layout.

    Example:
        >>> reading = read_array(np.zeros((5, 28, 20, 3), np.uint8))
        >>> reading.x.shape, reading.nature, reading.form
        (torch.Size([5, 3, 28, 20]), 'bytes', Form(layout='NHWC', dtype='uint8'))
    """
    array = plain(x, name)
    if array.ndim < 2 or array.size == 0:
        raise DataError(
            f"{name} has shape {array.shape}; give rows (N, D) or pictures (N, H, W) with at least one example"
            + (f", numbers as one column: {name}[:, None]." if array.ndim == 1 and array.size else ".")
        )
    finite(array, name, gaps=array.ndim == 2)
    seen = array[~np.isnan(array)] if array.ndim == 2 and array.dtype.kind == "f" else array
    if not seen.size:
        raise DataError(f"{name} holds no value, only NaN.")
    low, high = seen.min(), seen.max()
    notes = []
    if shared_range is not None and array.ndim > 2 and array.dtype != np.bool_:
        if is_shared(array, low.item(), high.item(), shared_range):
            value_range = shared_range
        elif high > (255 if array.dtype.kind in "iu" else 1 + _ROUNDED) or low < 0:
            notes.append(
                f"value_range {shared_range[0]:g} to {shared_range[1]:g} is not for these values, {_shown(low.item())} "
                f"to {_shown(high.item())}; they may have their own: {{'source': ..., 'value_range': ...}}"
            )
    deep = array.dtype == np.uint16 and array.ndim > 2 and value_range is None
    bits = not deep or white is None  # else 1 is the darkest grey
    binary = array.dtype == np.bool_ or (bits and low == 0 and high == 1 and bool(np.isin(seen, (0, 1)).all()))
    if array.ndim == 2:
        return Reading(_own(array, np.float64), "binary" if binary else "real", Form.of(array, "ND"))
    tensor = isinstance(x, Tensor)
    layout = axes.layout_of(array.shape, channels=channels, channels_at=channels_at, tensor=tensor, name=name)
    form, array = Form.of(array, layout), axes.channels_first(array, layout)
    if array.shape[1] not in axes.USUAL and channels_at is None and channels != array.shape[1]:
        n, height, width = array.shape[1:]
        end = "first" if layout == "NCHW" else "last"
        notes.append(f"read as {n} channels of {height}x{width}, channels {end}; channels_at (--channels-at) decides")
    if value_range is not None:
        array, remarks = ranged(array, value_range)
        x, nature = _unit(array)
        return Reading(x, nature, form, (*notes, *remarks), value_range=value_range)
    if binary:
        return Reading(_own(array, np.uint8), "binary", form, tuple(notes))
    if deep:
        white = white or (255 if high <= 255 else 65535)
        notes += ["16-bit values were scaled to 8 bits"] if white > 255 else []
        notes += depth_used(int(low), int(high), white)
        return Reading(_own(as_bytes(array, name, white), np.uint8), "bytes", form, tuple(notes), white)
    x, nature, remarks = _values(array, low.item(), high.item(), name)
    return Reading(x, nature, form, (*notes, *remarks))


def is_shared(array: np.ndarray[Any, Any], low: float, high: float, span: tuple[float, float]) -> bool:
    """Whether the range of values of other pictures is also that of an array: its whole numbers all lie inside it.

    A range of more than 8 bits is not that of pictures of 8 bits or of Booleans, such as masks. One that begins below
    0, such as -1 to 1, is that of fractions which fill more than half of it, too.

    Example:
        >>> is_shared(np.array([0, 3000], np.uint16), 0, 3000, (0.0, 4095.0))
        True
        >>> is_shared(np.array([0, 255], np.uint8), 0, 255, (0.0, 4095.0))
        False
        >>> is_shared(np.array([0.5, 300.0]), 0.5, 300, (0.0, 4095.0))
        False
        >>> is_shared(np.array([-0.9, 0.8]), -0.9, 0.8, (-1.0, 1.0))
        True
    """
    if not (span[0] <= low and high <= span[1]) or (low >= 0 and high <= 1):
        return False
    if array.dtype.kind in "iu" or np.array_equal(array, np.round(array)):
        return span[1] <= 255 or low < 0 or high > 255
    return span[0] < 0 and low < 0 and high - low > (span[1] - span[0]) / 2


_ROUNDED = 1e-6  # how far rounding errors of float32 take values out of [0, 1] where the largest is about 1
_Nature = Literal["bytes", "unit", "binary", "real"]


def _values(array: np.ndarray[Any, Any], low: float, high: float, name: str) -> tuple[Tensor, _Nature, tuple[str, ...]]:
    """Determines the value range of pictures."""
    kind = array.dtype.kind
    if kind in "iu" and low >= 0 and high <= 255:
        return _own(array, np.uint8), "bytes", depth_used(int(low), int(high), 255)
    if kind == "f" and -_ROUNDED <= low and 0.5 <= high <= 1 + _ROUNDED and (low < 0 or high > 1):
        array, low, high = np.clip(array, 0, 1), max(low, 0.0), min(high, 1.0)
    if kind == "f" and low >= 0 and high <= 1:
        used = f"values reach only {high:.4g} of 1; {depth.range_option(0, high)} uses all"
        return (*_unit(array), (used,) if 0 < high <= 0.5 else ())
    if low >= 0 and 1 < high <= 255 and np.array_equal(array, np.round(array)):
        raise DataError(
            f"{name} holds whole numbers up to {high:g} as {array.dtype}; give the values of black and white, "
            f"{depth.range_option(0, 255 if high > 127 else high)}."
        )
    top = depth.whole_top(int(high)) if kind in "iu" and low >= 0 else high
    option = depth.range_option(0 if 0 <= low else low, top)
    note = (
        f"values from {_shown(low)} to {_shown(high)} lie outside [0, 1]: they are modelled as real numbers; "
        f"as pictures with {option}"
    )
    return _own(array, np.float64), "real", (note,)


def _shown(value: float) -> str:
    """A value in short, unless that rounds it to 0 or 1, which are inside the range."""
    short = f"{value:.4g}"
    return short if float(short) not in (0, 1) or value in (0, 1) else f"{value:.9g}"


def _unit(array: np.ndarray[Any, Any]) -> tuple[Tensor, _Nature]:
    """Floats in [0, 1], as bytes if all are levels of bytes."""
    levels = np.round(array.astype(np.float32) * 255)
    if np.array_equal((levels / np.float32(255)).astype(np.float32), array.astype(np.float32)):
        return _own(levels, np.uint8), "bytes"
    return _own(array, np.float32), "unit"


def ranged(
    array: np.ndarray[Any, Any], value_range: tuple[float, float]
) -> tuple[np.ndarray[Any, Any], tuple[str, ...]]:
    """Numbers in [0, 1], with the ends of a range as 0 and 1, and remarks.

    Example:
        >>> ranged(np.array([0, 4095, 5000], np.uint16), (0.0, 4095.0))
        (array([0., 1., 1.], dtype=float32), ('values below 0 or above 4095 were clipped',))
    """
    low, high = value_range
    unit: np.ndarray[Any, Any] = array.astype(np.float64 if array.dtype.itemsize > 2 else np.float32)  # a copy
    unit -= low
    unit /= high - low
    if 0 <= unit.min() and unit.max() <= 1:
        return unit, ()
    return np.clip(unit, 0, 1), (f"values below {low:g} or above {high:g} were clipped",)


def depth_used(low: int, high: int, top: int) -> tuple[str, ...]:
    """A remark on whole numbers that leave more than half of their range unused.

    Example:
        >>> [remark.partition(";")[0] for remark in depth_used(0, 4000, 65535)]
        ['values reach only 4000 of 65535, which leaves 17 of 256 grey levels']
        >>> depth_used(0, 200, 255)
        ()
    """
    if not 0 < high <= top // 2:
        return ()
    levels, option = (
        depth.grey_levels(high, top) - depth.grey_levels(low, top) + 1,
        depth.range_option(0, depth.whole_top(high)),
    )
    return (f"values reach only {high} of {top}, which leaves {levels} of 256 grey levels; {option} uses all",)


def picture(x: Any, name: str = "the picture", *, channels: int = 0) -> np.ndarray[Any, Any]:
    """A picture ``(H, W)``, ``(H, W, C)`` or ``(C, H, W)`` as ``(C, H, W)``, by the rule for several.

    Args:
        x: an array or tensor.
        name: name of the argument, for messages.
        channels: a number of channels that it may have beside 1, 3 and 4.

    Raises:
        DataError: another shape, or one with two readings.
    """
    array = plain(x, name)
    if array.ndim == 2:
        return array[None]
    if array.ndim == 3 and {array.shape[0], array.shape[2]} & {*axes.USUAL, channels}:
        tensor = isinstance(x, Tensor)
        try:
            layout = axes.layout_of((1, *array.shape), channels=channels or None, tensor=tensor, name=name)
        except DataError as error:
            first, _, last = array.shape
            raise DataError(
                f"{name} has shape {array.shape}, which can be {first} channels first or {last} channels last; give a "
                "tensor, which has them first: torch.from_numpy(x), or torch.from_numpy(x).movedim(-1, 0)."
            ) from error
        found: np.ndarray[Any, Any] = axes.channels_first(array[None], layout)[0]
        return found
    raise DataError(
        f"{name} has shape {array.shape}; a picture is (H, W), (H, W, C) or (C, H, W) with 1, 3 or 4 channels."
    )


def as_bytes(x: np.ndarray[Any, Any], name: str = "the picture", white: int | None = None) -> np.ndarray[Any, Any]:
    """Converts to uint8: uint16 is rescaled, booleans and floats in [0, 1] are multiplied by 255.

    Args:
        x: pictures.
        name: their name, for messages.
        white: the value of white in uint16, 255 or 65,535; None for 65,535.

    Raises:
        DataError: floats outside [0, 1], integers outside 0 to 255.
    """
    if x.dtype == np.uint8:
        return x
    finite(x, name)
    if x.dtype == np.bool_:
        return x.astype(np.uint8) * np.uint8(255)
    if x.dtype == np.uint16 and white != 255:
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
