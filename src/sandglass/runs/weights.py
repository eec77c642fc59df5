"""Files of tensors: written and read as safetensors, every name, type, shape and value checked on the way to a model.

A file is judged by its header, against what the configuration asks for, before memory is taken for any tensor in it.
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
"""Bytes of a header; safetensors itself takes ten times as many."""

MAX_TENSORS = 100_000
"""Tensors in one file."""

_FLOATS = {"F32", "F64"}
_DTYPES = {
    torch.float32: "F32", torch.float64: "F64", torch.float16: "F16", torch.bfloat16: "BF16", torch.bool: "BOOL",
    torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8",
}  # fmt: skip

Header = dict[str, tuple[str, tuple[int, ...]]]
"""For each tensor its type, as safetensors names it, and its shape."""


def tensor_file(tensors: Mapping[str, Tensor]) -> storage.Content:
    """What writes tensors into a file; for :func:`sandglass.runs.storage.write_folder`."""

    def write(path: Path) -> None:
        copies = {k: v.detach().to("cpu", copy=True).contiguous() for k, v in tensors.items()}
        try:
            safetensors.torch.save_file(copies, path, metadata={"format": "pt"})
        except SafetensorError as error:  # a full disk, among others, comes in its own words
            code = re.search(r"os error (\d+)", str(error))
            number = int(code[1]) if code else errno.EIO
            raise OSError(number, re.sub(r"^.*I/O error: | \(os error.*$", "", str(error))) from error
        path.chmod(path.parent.stat().st_mode & 0o666)  # safetensors gives it to its owner alone, umask or not

    return write


def read_tensors(path: Path, model: nn.Module | None = None) -> dict[str, Tensor]:
    """The tensors of a file.

    Args:
        path: the file.
        model: its names, types and shapes, which may be on the device ``meta``, are compared with the header first.

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
    """The header of a file of tensors, which takes memory for none of them.

    Raises:
        CheckpointError: it is damaged, or claims more than a file of that size can hold.
    """
    try:
        if not path.is_file():
            raise ValueError("it is no file")
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > MAX_HEADER:
                raise ValueError(f"its header has {length:,} bytes; at most {MAX_HEADER:,} are read")
            data = file.read(length)
        # Counted in the text, for each costs far more memory than that.
        if data.count(b"{") > MAX_TENSORS + 2 or data.count(b"[") > 2 * MAX_TENSORS:
            raise ValueError(f"it lists more than {MAX_TENSORS:,} tensors")
        if len(data) < length:
            raise ValueError("it is cut within its header")
        values = parse_json(data)
        header = {name: _entry(name, value) for name, value in values.items() if name != "__metadata__"}
        held = path.stat().st_size - 8 - length
        if sum(math.prod(shape) for _, shape in header.values()) > 8 * held:  # a type has at least one bit
            raise ValueError("its tensors are larger than the file")
    except (OSError, ValueError, TypeError, AttributeError, KeyError) as error:
        raise CheckpointError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.") from error
    return header


def compare(wanted: Header, found: Header, source: Path | str) -> None:
    """Checks names, types and shapes.

    Raises:
        CheckpointError: a tensor is missing, unknown, or of another type or shape; the message names it.

    Example:
        >>> compare({"w": ("F32", (2,))}, {"w": ("F64", (2,))}, "x")  # all in double precision is a model in it
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
    """Puts weights into a model after checking every name, type, shape and value.

    Args:
        model: takes the type of the weights.
        tensors: by name.
        source: where they are from, for messages.
        allow_nonfinite: warn of values that are not finite in place of refusing them.

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
            warnings.warn(f"{line}; they were let in.", stacklevel=3)
    model.load_state_dict(dict(tensors))


def _entry(name: str, value: Any) -> tuple[str, tuple[int, ...]]:
    shape = value["shape"]
    if not all(type(n) is int and 0 <= n < 2**48 for n in shape) or not isinstance(value["dtype"], str):
        raise ValueError(f"the tensor '{name}' has no shape that a tensor can have")
    return value["dtype"], tuple(shape)
