"""Examples as files: a grid or single pictures, a CSV file in the original columns, or a NumPy array.

A file appears whole or not at all. A folder is only written where there is none, or an empty one. A name that was not
asked for never replaces a file that is there.
"""

from __future__ import annotations

import csv
import io
import math
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from sandglass import storage
from sandglass.data.transform import ImageTransform, TableTransform, Transform
from sandglass.errors import ConfigError, SaveError

_CELL = 56  # small pictures are enlarged in a grid by a whole factor, to about so many pixels
_GAP = 2


def write_examples(
    transform: Transform,
    x: Tensor,
    out: str | None,
    *,
    default: str,
    columns: int | None = None,
    separate: bool = False,
    extra: Mapping[str, Sequence[Any]] | None = None,
) -> Path:
    """Writes examples as what they are.

    Args:
        transform: leads back to pictures or rows.
        x: ``(N, *shape)``.
        out: a file or folder; its ending decides between picture, table and array.
        default: the name without an ending where ``out`` is not given.
        columns: of the grid; about a square when not given.
        separate: a file an example in a folder.
        extra: columns that go before those of a table.

    Returns:
        What was written.
    """
    table = isinstance(transform, TableTransform)
    if separate and table:
        raise ConfigError("--separate is for pictures; rows of a table go into one CSV file.")
    ending = ".csv" if table else "" if separate else ".png"
    path = Path(out) if out else free(Path(default + ending))
    given = path.suffix.lower()
    if given in (".npy", ".npz"):
        raw = transform.inverse(x)
        return write_array(path, raw.to_numpy() if hasattr(raw, "to_numpy") else raw)
    if table:
        if given not in (".csv", ""):
            raise ConfigError(f"{path} should end in .csv (or .npy): the model makes rows of a table.")
        return write_rows(path if given else path.with_suffix(".csv"), transform, x, extra or {})
    pictures = as_pictures(transform, x)
    if separate or (out and not given):
        return write_pictures(path, pictures)
    if given not in (".png", ".jpg", ".jpeg", ".webp"):
        raise ConfigError(f"{path} should end in .png (or .npy): the model makes pictures.")
    return write_picture(path, grid(pictures, columns))


def as_pictures(transform: Transform, x: Tensor) -> np.ndarray[Any, Any]:
    """``(N, H, W)`` or ``(N, H, W, 3 or 4)`` bytes; values without a scale of their own are spread over all of it."""
    raw = transform.inverse(x)
    if isinstance(transform, ImageTransform):
        return np.asarray(raw)
    values = np.asarray(raw, np.float64)
    low, high = values.min(), values.max()
    array = np.round((values - low) / max(high - low, 1e-12) * 255).astype(np.uint8)
    return np.moveaxis(array, 1, -1) if array.shape[1] == 3 else array[:, 0]


def grid(pictures: np.ndarray[Any, Any], columns: int | None = None) -> np.ndarray[Any, Any]:
    """All pictures in one, row by row on white, small ones enlarged by a whole factor.

    Example:
        >>> grid(np.zeros((6, 28, 28), np.uint8), columns=3).shape
        (118, 176)
    """
    n, height, width = pictures.shape[:3]
    columns = columns or math.ceil(math.sqrt(n))
    rows = math.ceil(n / columns)
    factor = max(1, round(_CELL / min(height, width)))
    h, w = height * factor + _GAP, width * factor + _GAP
    sheet = np.full((rows * h + _GAP, columns * w + _GAP, *pictures.shape[3:]), 255, np.uint8)
    for i, one in enumerate(pictures):
        top, left = i // columns * h + _GAP, i % columns * w + _GAP
        sheet[top : top + h - _GAP, left : left + w - _GAP] = one.repeat(factor, 0).repeat(factor, 1)
    return sheet


def write_picture(path: Path, picture: np.ndarray[Any, Any]) -> Path:
    """One picture file without metadata."""
    make_parent(path)
    storage.write_file(path, _encoded(picture, path.suffix.lower()))
    return path


def write_pictures(path: Path, pictures: np.ndarray[Any, Any], names: Sequence[str] = ()) -> Path:
    """A PNG file each, in a folder that is there whole or not at all.

    Raises:
        ConfigError: there is something in that folder.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ConfigError(f"{path} already exists and is not empty; name another folder.")
    make_parent(path)
    digits = len(str(max(len(pictures) - 1, 1)))
    temporary = path.parent / f".{path.name}.tmp-{os.getpid()}"
    try:
        temporary.mkdir()
        for i, one in enumerate(pictures):
            name = f"{names[i] if names else str(i).zfill(digits)}.png"
            (temporary / name).write_bytes(_encoded(one, ".png"))
        if path.exists():
            path.rmdir()
        os.rename(temporary, path)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise SaveError(f"{path} could not be written: {error.strerror or error}.") from error
    return path


def write_rows(path: Path, transform: Transform, x: Tensor, extra: Mapping[str, Sequence[Any]]) -> Path:
    """Rows in their original columns."""
    assert isinstance(transform, TableTransform)
    raw = transform.inverse(x)
    names = [c["name"] for c in transform.columns]
    lists = [raw[n].to_numpy() for n in names] if hasattr(raw, "columns") else list(np.asarray(raw).T)
    return write_csv(path, {**extra, **{n: numbers(values) for n, values in zip(names, lists, strict=True)}})


def numbers(values: np.ndarray[Any, Any]) -> list[Any]:
    """The values of a column as text that is no more exact than what the model computes in.

    Example:
        >>> numbers(np.array([179.00000020234677]))
        ['179.0']
    """
    return [str(v) for v in values.astype(np.float32)] if values.dtype.kind == "f" else list(values.tolist())


def write_csv(path: Path, columns: Mapping[str, Sequence[Any]]) -> Path:
    """A CSV file with a header."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    make_parent(path)
    storage.write_file(path, text.getvalue().encode())
    return path


def write_array(path: Path, array: np.ndarray[Any, Any]) -> Path:
    """A ``.npy`` file, or a ``.npz`` file with the array ``x``."""
    return write_npz(path, {"x": array}) if path.suffix.lower() == ".npz" else _write_buffer(path, np.save, array)


def write_npz(path: Path, arrays: Mapping[str, np.ndarray[Any, Any]]) -> Path:
    """A ``.npz`` file that needs no pickle to be read."""
    return _write_buffer(path, lambda f: np.savez_compressed(f, **arrays))  # type: ignore[arg-type]


def _write_buffer(path: Path, write: Any, *values: Any) -> Path:
    buffer = io.BytesIO()
    write(buffer, *values)
    make_parent(path)
    storage.write_file(path, buffer.getvalue())
    return path


def free(path: Path) -> Path:
    """The path, or the next of that name with a number that nothing has yet."""
    number, candidate = 1, path
    while candidate.exists():
        number += 1
        candidate = path.with_name(f"{path.stem}-{number}{path.suffix}")
    return candidate


def make_parent(path: Path) -> None:
    """Makes the folder that a file is to be in.

    Raises:
        SaveError: it could not be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SaveError(f"The folder {path.parent} could not be made: {error.strerror or error}.") from error


def _encoded(picture: np.ndarray[Any, Any], ending: str) -> bytes:
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(picture))
    kind = {".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}.get(ending, "PNG")
    if kind == "JPEG" and image.mode == "RGBA":
        image = image.convert("RGB")
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()
