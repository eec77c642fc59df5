"""Invertible transforms from raw pictures, rows and arrays to examples; fitted once, stored with the model as JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from sandglass.core import Column, Spec
from sandglass.data import cells, coding, dtypes
from sandglass.data.fitted import Transform
from sandglass.data.sources import arrays, axes, framing, images
from sandglass.errors import ConfigError, DataError
from sandglass.runs import frames

__all__ = ["FITS", "ArrayTransform", "ImageTransform", "TableTransform", "Transform"]

FITS = ("crop", "pad", "stretch")


@dataclass(frozen=True)
class ImageTransform(Transform):
    """Converts pictures of any size and mode to ``(C, H, W)``.

    Args:
        size: height and width in pixels.
        channels: 1 (grey), 3 (RGB) or 4 (RGBA); any number for arrays.
        fit: how pictures are resized: ``"crop"``, ``"pad"`` or ``"stretch"``.
        levels: number of values of an element; 256 for bytes, 2 for black and white.
        background: red, green and blue behind transparency and in padding.
        continuous: whether to store float32 in [0, 1] in place of bytes.
        tones: whether most values are greys between black and white, as in photographs; then they are modelled as
            levels, not as soft bits.
        value_range: values mapped to black and white in arrays, and in grey pictures of floats or of more than 8 bits.
        white: the value of white in arrays of uint16, 255 or 65,535, by those of the training set.

    Raises:
        ConfigError: an invalid value.

    Example:
        >>> t = ImageTransform((4, 6), 3)
        >>> t.apply(np.zeros((40, 50, 3), np.uint8)).shape
        torch.Size([3, 4, 6])
        >>> t.inverse(torch.rand(2, 3, 4, 6)).shape
        (2, 4, 6, 3)
    """

    kind: ClassVar[str] = "image"
    size: tuple[int, int]
    channels: int
    fit: str = "crop"
    levels: int = 256
    background: tuple[int, int, int] = (255, 255, 255)
    continuous: bool = False
    value_range: tuple[float, float] | None = None
    white: int | None = None
    tones: bool = field(default=False, compare=False)  # of the training examples: it changes no conversion

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "value_range", images.check_range(self.value_range))
        object.__setattr__(self, "size", tuple(int(n) for n in self.size))
        object.__setattr__(self, "background", tuple(int(n) for n in self.background))
        if len(self.size) != 2 or min(self.size) < 1:
            raise ConfigError(f"size must be height and width in pixels, such as 64x64, not {self.size}.")
        if math.prod(self.size) > images.MAX_PIXELS:
            raise ConfigError(f"size {self.size} is over {images.MAX_PIXELS / 1e6:g} megapixels; choose a smaller one.")
        if not (isinstance(self.channels, int) and self.channels >= 1):
            raise ConfigError(f"channels must be a whole number of at least 1, not {self.channels}.")
        if self.fit not in FITS:
            raise ConfigError(f"fit must be one of {', '.join(FITS)}, not '{self.fit}'.")
        if not 2 <= self.levels <= 256:
            raise ConfigError(f"levels must lie in 2 to 256, not {self.levels}.")
        if self.white not in (None, 255, 65535):
            raise ConfigError(f"white must be 255 or 65535, not {self.white}.")
        if len(self.background) != 3 or not all(0 <= b <= 255 for b in self.background):
            raise ConfigError(f"background must be red, green and blue in 0 to 255, not {self.background}.")

    def _spec(self, classes: int) -> Spec:
        """Images of this size; two levels are binary."""
        support = "binary" if self.levels == 2 else "levels" if self.tones else "unit"
        return Spec((self.channels, *self.size), support, self.levels, classes)  # type: ignore[arg-type]

    def apply(self, raw: Any) -> Tensor:
        """Converts a picture to ``(C, H, W)``, a list or array of pictures to ``(N, C, H, W)``; uint8 levels.

        Args:
            raw: a Pillow picture; an array of ``layout``, or ``(H, W)``, ``(H, W, C)``, ``(C, H, W)`` or of four
                dimensions, with uint8 from 0 to 255, booleans, floats in [0, 1], or values of ``value_range``; or a
                list of these.

        Raises:
            DataError: another shape, or values outside that range.
        """
        if isinstance(raw, list | tuple):
            return torch.stack([self.apply(r) for r in raw])
        if hasattr(raw, "convert"):
            return self.encode(self.picture(raw)[0])
        array = arrays.plain(raw, "the picture")
        shape, tensor = (self.channels, *self.size), isinstance(raw, Tensor)
        if (laid := axes.as_laid(array, self.layout, shape)) is not None:
            return self.stored(self._in_range(laid))
        if (laid := axes.as_laid(array[None], self.layout, shape)) is not None:  # one of them
            return self.stored(self._in_range(laid))[0]
        if array.ndim == 4 or (self.layout in ("ND", "NHW") and array.ndim == len(self.layout)):
            end = axes.end_of(array.shape, self.layout, self.channels)
            layout = axes.layout_of(array.shape, channels=self.channels, channels_at=end, tensor=tensor)
            return self.stored(self._in_range(axes.channels_first(array, layout)))
        return self.stored(self._in_range(arrays.picture(raw, channels=self.channels)[None]))[0]

    def _in_range(self, array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        if self.value_range is not None:
            return arrays.ranged(array, self.value_range)[0]
        bits = self.levels == 2 and array.dtype.kind in "iu" and array.size and 0 <= array.min() and array.max() <= 1
        return array.astype(np.bool_) if bits else array

    def picture(self, image: Any) -> tuple[np.ndarray[Any, Any], frozenset[str]]:
        """A Pillow picture as ``(C, H, W)`` bytes from 0 to 255, with remarks on conversions."""
        return self.normal(*images.normal_object(image, self.value_range))

    def normal(self, image: Any, done: frozenset[str]) -> tuple[np.ndarray[Any, Any], frozenset[str]]:
        """As :meth:`picture`, for the result of :func:`sandglass.data.sources.images.load`."""
        image, done = framing.framed(image, done, self)
        return framing.planes(image), done

    def inverse(self, x: Any) -> np.ndarray[Any, Any]:
        """Converts ``(C, H, W)`` or ``(N, C, H, W)``, floats in [0, 1] or uint8 levels, to what was handed in.

        Returns:
            For pictures in files, their bytes as :meth:`pictures` gives them. For an array, its layout and type, and
            ``value_range`` or the values of the type: to 255 for whole numbers, ``white`` for uint16, 1 for others.

        Raises:
            DataError: another number of channels.

        Example:
            >>> t = ImageTransform((4, 6), 3, layout="NHWC", dtype="float32", value_range=(-1, 1))
            >>> back = t.inverse(torch.ones(2, 3, 4, 6))
            >>> back.shape, back.dtype, float(back.max())
            ((2, 4, 6, 3), dtype('float32'), 1.0)
        """
        if not self.layout:
            return self.pictures(x)
        array, top = self._checked(x)
        low, high = self.value_range or (0.0, self._white)
        unit = np.clip(np.nan_to_num(array.astype(np.float64)) / top, 0, 1)
        return axes.as_handed(unit * (high - low) + low, self.layout, self.dtype)

    @property
    def _white(self) -> float:
        """The value of white in an array of this type."""
        if self.levels == 2 or np.dtype(self.dtype or "uint8").kind not in "iu":
            return 1.0
        return float(self.white or 65535) if self.dtype == "uint16" else 255.0

    def pictures(self, x: Any) -> np.ndarray[Any, Any]:
        """Converts ``(C, H, W)`` or ``(N, C, H, W)``, floats in [0, 1] or uint8 levels, to bytes for Pillow.

        Returns:
            uint8 ``(H, W, C)`` or ``(N, H, W, C)``, without the last dimension if C is 1.

        Raises:
            DataError: another number of channels.
        """
        array, top = self._checked(x)
        array = np.nan_to_num(array) if array.dtype.kind == "f" else array  # NaN in samples becomes black
        array = np.round(np.clip(array.astype(np.float32) / np.float32(top), 0, 1) * 255).astype(np.uint8)
        array = np.moveaxis(array, -3, -1)
        return np.ascontiguousarray(array[..., 0] if self.channels == 1 else array)

    def _checked(self, x: Any) -> tuple[np.ndarray[Any, Any], int]:
        """Examples as an array, and the value of white in it."""
        array = arrays.plain(x)
        if array.ndim not in (3, 4) or array.shape[-3] != self.channels:
            raise DataError(f"pictures must be (N, {self.channels}, H, W), not {array.shape}.")
        return array, self.levels - 1 if array.dtype == np.uint8 else 1

    def stored(self, array: Any) -> Tensor:
        """Converts ``(N, C, H, W)`` of any size and number of channels, bytes or in [0, 1], to examples.

        Raises:
            DataError: values outside that range, or numbers of channels that cannot be converted.
        """
        array = arrays.plain(array)
        if array.shape[1:] == (self.channels, *self.size):
            if self.continuous and array.dtype.kind == "f":
                arrays.as_bytes(array, white=self.white)  # checks the range
                return torch.from_numpy(np.array(array, np.float32, order="C"))
            return self.encode(arrays.as_bytes(array, white=self.white))
        several = {self.channels, array.shape[1]} - set(axes.USUAL)
        if several and array.shape[1] != self.channels:
            raise DataError(
                f"Pictures of {array.shape[1]} channels were given for {self.channels}; only 1, 3 and 4 convert."
            )
        planes = arrays.as_bytes(array, white=self.white)
        if several:  # each channel as a grey picture
            grey = [
                framing.resize(self._pillow(c[None]), self.size, self.fit, self.background)
                for c in planes.reshape(-1, *planes.shape[2:])
            ]
            return self.encode(np.stack([framing.planes(g)[0] for g in grey]).reshape(-1, self.channels, *self.size))
        return self.encode(np.stack([self.picture(self._pillow(one))[0] for one in planes]))

    @staticmethod
    def _pillow(one: np.ndarray[Any, Any]) -> Any:
        image = one[0] if len(one) == 1 else np.moveaxis(one, 0, -1)
        return images.pillow().fromarray(np.ascontiguousarray(image))

    def encode(self, array: np.ndarray[Any, Any]) -> Tensor:
        """Converts bytes from 0 to 255 to stored values: uint8 levels, or float32 if ``continuous``."""
        return torch.from_numpy(np.array(framing.quantised(array, self), order="C", copy=True))


@dataclass(frozen=True)
class TableTransform(Transform):
    """Converts rows of a table to standardised numbers and one-hot codes; missing cells become 0 and are masked.

    Args:
        columns: one mapping per column, with ``name``, ``kind``, ``dtype`` (restored by the inverse) and the keys that
            :data:`sandglass.data.coding.KEYS` lists for its kind.
        frame: whether the inverse returns a pandas DataFrame or an array.
        binary: whether every value is 0 or 1.

    Example:
        >>> t = TableTransform(({"name": "a", "kind": "numeric", "mean": 2.0, "scale": 4.0, "dtype": "float64"},))
        >>> x, mask = t.observe(np.array([[6.0], [np.nan]]))
        >>> x.tolist(), mask.tolist(), t.inverse(x, mask).tolist()
        ([[1.0], [0.0]], [[True], [False]], [[6.0], [nan]])
    """

    kind: ClassVar[str] = "table"
    columns: Sequence[Mapping[str, Any]]
    frame: bool = False
    binary: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "columns", tuple(dict(c) for c in self.columns))
        for c in self.columns:
            if not coding.plausible(c):
                raise ConfigError(f"A column of a table transform is damaged: {str(c)[:200]}.")

    def _spec(self, classes: int) -> Spec:
        """Rows as wide as the encoded columns."""
        found = tuple(
            Column(c["name"], c["kind"], coding.width(c), tuple(c.get("categories", ())),
                   c.get("mean", 0.0), c.get("scale", 1.0)) for c in self.columns
        )  # fmt: skip
        shape = (sum(c.width for c in found),)
        return Spec(shape, "binary", 2, classes, found) if self.binary else Spec(shape, "real", 256, classes, found)

    def apply(self, raw: Any) -> Tensor:
        """As :meth:`observe`, without the mask."""
        return self.observe(raw)[0]

    def observe(self, raw: Any) -> tuple[Tensor, Tensor | None]:
        """Encodes a DataFrame with these columns in any order (others are ignored), or an array ``(N, D)``.

        Returns:
            float32 ``(N, D')``, 0 where a cell is missing, and the mask of that shape, None if no cell is missing.

        Raises:
            DataError: other columns, infinite values, an unknown category.
        """
        names = [c["name"] for c in self.columns]
        if hasattr(raw, "columns"):
            missing = [n for n in names if n not in raw.columns]
            if missing:
                known, got = cells.listed(names), cells.listed(raw.columns)
                raise DataError(f"The table lacks {cells.listed(missing)}: expected {known}, got {got}.")
            series = [cells.plain(raw[n]) for n in names]
        else:
            array = raw if _is_text(raw) else arrays.plain(raw, "the table")
            if array.ndim != 2 or array.shape[1] != len(names):
                raise DataError(
                    f"The rows have shape {array.shape}; expected (N, {len(names)}): {cells.listed(names)}."
                )
            series = list(array.T)
        parts, seen = zip(*(coding.encode(c, s) for c, s in zip(self.columns, series, strict=True)), strict=True)
        with np.errstate(over="ignore"):
            x, mask = np.concatenate(parts, axis=1).astype(np.float32), np.concatenate(seen, axis=1)
        if not np.isfinite(x).all():
            raise DataError("The rows hold values too far from those of the training set; check their unit.")
        if self.binary and not np.isin(x, (0, 1)).all():
            raise DataError("The rows hold other values than 0 and 1, but the model was trained on binary data.")
        return torch.from_numpy(x), None if mask.all() else torch.from_numpy(mask)

    def inverse(self, x: Any, mask: Any = None) -> Any:
        """Decodes ``(N, D')`` to a DataFrame with the original columns and types, or an array ``(N, D)`` of its type.

        Args:
            x: examples.
            mask: mask of the same shape, False where a cell is to be missing; None for no missing cells.

        Raises:
            DataError: another number of features.
        """
        array = arrays.plain(x).astype(np.float64)
        widths = [coding.width(c) for c in self.columns]
        if array.ndim != 2 or array.shape[1] != sum(widths):
            raise DataError(f"Encoded rows must be (N, {sum(widths)}), not {array.shape}.")
        cuts = np.cumsum(widths)[:-1]
        parts = np.split(array, cuts, axis=1)
        seen = [None] * len(parts) if mask is None else np.split(arrays.plain(mask).astype(bool), cuts, axis=1)
        series = [coding.decode(c, p, s) for c, p, s in zip(self.columns, parts, seen, strict=True)]
        if not self.frame:
            rows = np.stack(series, axis=1)
            gaps = rows.dtype.kind == "f" and np.isnan(rows).any()  # only floats can have them
            return axes.typed(rows, "" if gaps and np.dtype(self.dtype or "float64").kind != "f" else self.dtype)
        restored = {c["name"]: dtypes.restored(c, s) for c, s in zip(self.columns, series, strict=True)}
        return frames.pandas().DataFrame(restored)


@dataclass(frozen=True)
class ArrayTransform(Transform):
    """Standardises arrays of real numbers with a single mean and scale.

    Args:
        shape: shape of an example.
        mean: the mean to subtract.
        scale: the scale to divide by.

    Example:
        >>> t = ArrayTransform((1, 2, 2), mean=1.0, scale=2.0)
        >>> t.inverse(t.apply(np.full((3, 1, 2, 2), 5.0))).max()
        np.float64(5.0)
    """

    kind: ClassVar[str] = "array"
    shape: tuple[int, ...]
    mean: float = 0.0
    scale: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))
        if not (math.isfinite(self.mean) and math.isfinite(self.scale) and self.scale > 0):
            raise ConfigError(
                f"An array transform needs a finite mean and a positive scale, not {self.mean}, {self.scale}."
            )

    def _spec(self, classes: int) -> Spec:
        """Real numbers of this shape."""
        return Spec(self.shape, "real", 256, classes)

    def apply(self, raw: Any) -> Tensor:
        """Converts ``(N, *shape)``, a single example ``shape``, or the layout that was handed in, to float32.

        Raises:
            DataError: another shape, or values that are not finite.
        """
        array = arrays.plain(raw, "the array")
        laid = axes.as_laid(array, self.layout, self.shape)
        return self.stored(array if laid is None else laid)

    def stored(self, array: Any) -> Tensor:
        """Converts ``(N, *shape)`` or a single example ``shape`` to float32, whatever the layout handed in.

        Raises:
            DataError: another shape, or values that are not finite.
        """
        array = arrays.plain(array, "the array")
        if array.shape not in (self.shape, (len(array), *self.shape)):
            raise DataError(f"The array has shape {array.shape}; expected (N, {', '.join(map(str, self.shape))}).")
        arrays.finite(array, "the array")
        return torch.from_numpy(((array.astype(np.float64) - self.mean) / self.scale).astype(np.float32))

    def inverse(self, x: Any) -> np.ndarray[Any, Any]:
        """Restores the original unit, in the layout and type that was handed in, else as float64 of the same shape."""
        back: np.ndarray[Any, Any] = arrays.plain(x).astype(np.float64) * self.scale + self.mean
        return axes.as_handed(back, self.layout, self.dtype) if self.layout else back


def _is_text(raw: Any) -> bool:
    return isinstance(raw, np.ndarray) and raw.dtype.kind in "OUS"
