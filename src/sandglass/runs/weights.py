"""Reads and writes safetensors files; names, types, shapes and values are checked before they enter a model.

The header of a file is compared with the configuration before memory is allocated for tensors.
"""

from __future__ import annotations

import errno
import math
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from sandglass.errors import CheckpointError
from sandglass.runs import storage
from sandglass.runs.plain import parse_json

MAX_HEADER = 10 * 2**20
"""Largest header in bytes; the limit of safetensors itself is ten times larger."""

MAX_TENSORS = 100_000
"""Largest number of tensors in a file."""

_FLOATS = {"F32", "F64"}
_DTYPES = {
    torch.float32: "F32", torch.float64: "F64", torch.float16: "F16", torch.bfloat16: "BF16", torch.bool: "BOOL",
    torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8",
}  # fmt: skip

Header = dict[str, tuple[str, tuple[int, ...]]]
"""The safetensors type and the shape of each tensor."""


def tensor_file(tensors: Mapping[str, Tensor]) -> storage.Content:
    """A function that writes tensors to a file; for :func:`sandglass.runs.storage.write_folder`."""

    def write(path: Path) -> None:
        copies = {k: v.detach().to("cpu", copy=True).contiguous() for k, v in tensors.items()}
        try:
            safetensors.torch.save_file(copies, path, metadata={"format": "pt"})
        except SafetensorError as error:  # safetensors wraps system errors, such as a full disk
            code = re.search(r"os error (\d+)", str(error))
            number = int(code[1]) if code else errno.EIO
            raise OSError(number, re.sub(r"^.*I/O error: | \(os error.*$", "", str(error))) from error
        path.chmod(path.parent.stat().st_mode & 0o666)  # safetensors creates files readable only by their owner

    return write


def read_tensors(path: Path, model: nn.Module | None = None) -> dict[str, Tensor]:
    """Reads the tensors of a file.

    Args:
        path: the file.
        model: a model, which may be on the device ``meta``, whose names, types and shapes must match the header.

    Raises:
        CheckpointError: it is damaged, too large, or does not fit the model.
    """
    header = read_header(path)
    if model is not None:
        compare({k: (_DTYPES.get(v.dtype, "?"), tuple(v.shape)) for k, v in model.state_dict().items()}, header, path)
    try:
        return safetensors.torch.load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {' '.join(str(error).split())}.") from error


def read_header(path: Path) -> Header:
    """Reads the header of a file of tensors, without the tensors.

    Raises:
        CheckpointError: it is damaged, or declares more than a file of that size can hold.
    """
    try:
        if not path.is_file():
            raise ValueError("it is not a file")
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > MAX_HEADER:
                raise ValueError(f"its header has {length:,} bytes; at most {MAX_HEADER:,} are read")
            data = file.read(length)
        # Counted in the text before parsing, which takes far more memory for each.
        if data.count(b"{") > MAX_TENSORS + 2 or data.count(b"[") > 2 * MAX_TENSORS:
            raise ValueError(f"it lists more than {MAX_TENSORS:,} tensors")
        if len(data) < length:
            raise ValueError("its header is truncated")
        values = parse_json(data)
        header = {name: _entry(name, value) for name, value in values.items() if name != "__metadata__"}
        held = path.stat().st_size - 8 - length
        if sum(math.prod(shape) for _, shape in header.values()) > 8 * held:  # a type has at least one bit
            raise ValueError("its tensors are larger than the file")
    except (OSError, ValueError, TypeError, AttributeError, KeyError) as error:
        raise CheckpointError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.") from error
    return header


def compare(wanted: Header, found: Header, source: Path | str) -> None:
    """Compares names, types and shapes.

    Raises:
        CheckpointError: a tensor is missing, unknown, or of another type or shape; the message names it.

    Example:
        >>> compare({"w": ("F32", (2,))}, {"w": ("F64", (2,))}, "x")  # a file with all tensors in double is accepted
        >>> compare({"w": ("F32", (2,))}, {"w": ("F16", (2,))}, "x")
        Traceback (most recent call last):
        sandglass.errors.CheckpointError: x: the tensor 'w' has the type F16; the model needs F32.
    """
    double = {dtype for dtype, _ in found.values() if dtype in _FLOATS} == {"F64"}
    for name in sorted(wanted.keys() | found.keys()):
        if name not in found or name not in wanted:
            raise CheckpointError(
                f"{source}: the tensor '{name}' is {'missing' if name in wanted else 'not in the model'}."
            )
        (dtype, shape), (its_dtype, its_shape) = wanted[name], found[name]
        if shape != its_shape:
            raise CheckpointError(f"{source}: the tensor '{name}' has shape {its_shape}; the model needs {shape}.")
        dtype = "F64" if double and dtype in _FLOATS else dtype
        if dtype not in (its_dtype, "?"):
            raise CheckpointError(f"{source}: the tensor '{name}' has the type {its_dtype}; the model needs {dtype}.")


def fill(model: nn.Module, tensors: Mapping[str, Tensor], source: str, *, allow_nonfinite: bool = False) -> None:
    """Loads weights into a model after checking every name, type, shape and value; see :func:`check_tensors`."""
    check_tensors(model, tensors, source, allow_nonfinite=allow_nonfinite)
    model.load_state_dict(dict(tensors))


def check_tensors(
    model: nn.Module, tensors: Mapping[str, Tensor], source: str, *, allow_nonfinite: bool = False
) -> None:
    """Checks every name, type, shape and value of weights for a model.

    Args:
        model: the model; converted to double precision if the weights are.
        tensors: weights by name.
        source: origin of the weights, for messages.
        allow_nonfinite: warn about non-finite values instead of raising an error.

    Raises:
        CheckpointError: a tensor is missing, unknown, of another type or shape, or not finite; the message names it.
    """
    if any(t.dtype == torch.float64 for t in tensors.values()):
        model.double()
    own, given = (
        {k: (_DTYPES.get(v.dtype, "?"), tuple(v.shape)) for k, v in values.items()}
        for values in (model.state_dict(), tensors)
    )
    compare(own, given, source)
    for name in sorted(tensors):
        if tensors[name].is_floating_point() and not bool(torch.isfinite(tensors[name]).all()):
            line = f"{source}: the tensor '{name}' has values that are not finite"
            if not allow_nonfinite:
                raise CheckpointError(f"{line}.")
            warnings.warn(f"{line}; they were loaded.", stacklevel=4)


def _entry(name: str, value: Any) -> tuple[str, tuple[int, ...]]:
    shape = value["shape"]
    if not all(type(n) is int and 0 <= n < 2**48 for n in shape) or not isinstance(value["dtype"], str):
        raise ValueError(f"the tensor '{name}' has an invalid shape or type")
    return value["dtype"], tuple(shape)
