"""Converts what is handed to a model, arrays and lists of numbers, to tensors."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from numbers import Integral
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sandglass.errors import DataError, named_type


def numbers(value: Any, shapes: Sequence[tuple[int, ...]], name: str, like: Tensor, levels: int = 256) -> Tensor:
    """Examples or codes ``(B, *shape)`` as a tensor.

    Args:
        value: an array of any type of numbers, byte order and strides, a tensor, or nested lists.
        shapes: of one of them; the first is named in messages.
        name: what takes them, for messages.
        like: a tensor whose device and type the result has.
        levels: number of levels of pictures ``(C, H, W)``; their bytes are divided by ``levels - 1``.

    Raises:
        DataError: not numbers, or of another shape.

    Example:
        >>> numbers(np.full((2, 1, 1, 1), 255, np.uint8), [(1, 1, 1)], "encode()", torch.zeros(1)).flatten()
        tensor([1., 1.])
        >>> numbers([[1.0, 2.0]], [(3,)], "encode()", torch.zeros(1))
        Traceback (most recent call last):
        sandglass.errors.DataError: encode() takes numbers (B, 3), not (1, 2).
    """
    found = value if isinstance(value, Tensor) else _tensor(value, name)
    if not found.dim() or tuple(found.shape[1:]) not in shapes:
        raise DataError(f"{name} takes numbers (B, {', '.join(map(str, shapes[0]))}), not {tuple(found.shape)}.")
    if found.is_complex():
        raise DataError(f"{name} takes real numbers, not {found.dtype}.")
    whole = found.dtype == torch.uint8 and found.dim() == 4
    found = found.to(like.device, like.dtype)
    return found / (levels - 1) if whole else found


def _tensor(value: Any, name: str) -> Tensor:
    try:
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"{name} takes an array of numbers: {' '.join(str(error).split())}.") from error
    if array.dtype.kind not in "buif":
        what = f"an array of {array.dtype}" if isinstance(value, np.ndarray | list | tuple) else named_type(value)
        raise DataError(f"{name} takes numbers, a Batch, an array or a tensor, not {what}.")
    wide = np.float64 if array.dtype.itemsize > 8 else array.dtype.newbyteorder("=")
    return torch.from_numpy(np.array(array, dtype=wide, order="C"))


def whole(n: Any, name: str) -> int:
    """A number of examples.

    Raises:
        DataError: it is no whole number, or below 0.

    Example:
        >>> whole(np.int64(3), "sample()")
        3
        >>> whole(-1, "sample()")
        Traceback (most recent call last):
        sandglass.errors.DataError: sample() takes a whole number of examples, 0 or more, not -1.
    """
    if isinstance(n, bool) or not isinstance(n, Integral) or int(n) < 0:
        raise DataError(f"{name} takes a whole number of examples, 0 or more, not {n!r:.80}.")
    return int(n)


def taking_arrays(capability: Callable[..., Any], takes: type) -> Callable[..., Any]:
    """A method of a model, with a conversion of arrays to what it takes.

    Args:
        capability: the method.
        takes: tensors of codes, a number of examples, or batches, to which bare examples are converted.
    """
    name, codes = f"{capability.__name__}()", takes is Tensor

    @functools.wraps(capability)
    def counting(self: Any, n: Any, *args: Any, **kwargs: Any) -> Any:
        return capability(self, whole(n, name), *args, **kwargs)

    if takes is int:
        return counting

    @functools.wraps(capability)
    def call(self: Any, value: Any, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(value, takes):
            shapes = [(self.code_size,)] if codes else [s.shape for s in (self.spec, *self.spec.beside.values())]
            found = numbers(value, shapes, name, next(iter(self.parameters())), self.spec.levels)
            value = found if codes else takes(found)
        return capability(self, value, *args, **kwargs)

    return call
