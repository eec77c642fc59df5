"""Writes examples to files: an image grid or single images, a CSV file with the original columns, or a NumPy array.

Files are written atomically. A folder is only written if it does not exist or is empty. Default names never overwrite
an existing file.
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

from sandglass.data.cells import plain
from sandglass.data.pixels import Pixels, enlarge, grid, png, to_images
from sandglass.data.transform import TableTransform, Transform
from sandglass.errors import ConfigError, MissingPackageError, SaveError
from sandglass.runs import storage
from sandglass.runs.frames import pandas
from sandglass.runs.plain import strict_json
from sandglass.runs.storage import make_folder
from sandglass.tasks.sheet import with_labels

_CELL = 56  # small images are enlarged in a grid by an integer factor, to about this many pixels


def sheet(transform: Transform, x: Tensor, columns: int | None = None, rows: Sequence[str] = ()) -> Pixels:
    """All examples as one image grid ``(H, W, C)``; small images are enlarged by an integer factor.

    Args:
        transform: inverts examples to images.
        x: ``(N, C, H, W)``.
        columns: examples per row; by default about a square.
        rows: labels of the rows.
    """
    images = to_images(x, transform)
    times = max(1, round(_CELL / min(images.shape[1:3])))
    whole = grid(enlarge(images, times), columns or math.ceil(math.sqrt(len(images))))
    return with_labels(whole, rows) if rows else whole


def write_image(path: Path, image: Pixels) -> Path:
    """Writes an image ``(H, W, C)`` to a file without metadata."""
    make_folder(path.parent)
    storage.write_file(path, _encoded(image, path.suffix.lower()))
    return path


def write_images(path: Path, images: Pixels, names: Sequence[str] = ()) -> Path:
    """Writes one PNG file per image to a folder, atomically.

    Raises:
        ConfigError: the folder is not empty.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ConfigError(f"{path} already exists and is not empty; name another folder.")
    make_folder(path.parent)
    digits = len(str(max(len(images) - 1, 1)))
    temporary = path.parent / f".{path.name}.tmp-{os.getpid()}"
    try:
        temporary.mkdir()
        for i, one in enumerate(images):
            name = f"{names[i] if names else str(i).zfill(digits)}.png"
            (temporary / name).write_bytes(_encoded(one, ".png"))
        if path.exists():
            path.rmdir()
        os.rename(temporary, path)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise SaveError(f"{path} could not be written: {error.strerror or error}.") from error
    return path


def write_rows(
    path: Path, transform: Transform, x: Tensor, extra: Mapping[str, Sequence[Any]], mask: Tensor | None = None
) -> Path:
    """Writes rows with their original columns, as CSV, or as Parquet with types.

    Raises:
        MissingPackageError: pandas or pyarrow is missing for Parquet.
    """
    assert isinstance(transform, TableTransform)
    raw = transform.inverse(x, mask)
    names = [c["name"] for c in transform.columns]
    lists = [raw[n] for n in names] if hasattr(raw, "columns") else list(np.asarray(raw).T)
    if path.suffix.lower() == ".parquet":
        return write_parquet(path, {**extra, **dict(zip(names, lists, strict=True))})
    texts = [words(_whole(values), c["dtype"]) for values, c in zip(lists, transform.columns, strict=True)]
    return write_csv(path, {**extra, **dict(zip(names, texts, strict=True))})


def words(values: np.ndarray[Any, Any], dtype: str = "") -> list[Any]:
    """The cells of a column for a CSV file: numbers in float32 precision, missing values empty.

    Example:
        >>> words(np.array([179.00000020234677, np.nan]))
        ['179.0', '']
    """
    if values.dtype.kind == "f":
        return ["" if np.isnan(v) else str(v) for v in values.astype(np.float32)]
    if values.dtype.kind == "M":
        texts = np.datetime_as_string(values, unit="D" if dtype == "date" else "s").tolist()
        return ["" if text == "NaT" else text + "Z" * (dtype == "utc") for text in texts]
    return [_word(v) for v in values.tolist()]


def _whole(values: Any) -> np.ndarray[Any, Any]:
    """A column as an array; integer columns with missing values (None) keep integers."""
    if values.dtype.kind in "iub" and not isinstance(values.dtype, np.dtype):
        return values.to_numpy(object, na_value=None)
    return plain(values)


def _word(value: Any) -> Any:
    if isinstance(value, np.ndarray):  # a sequence
        return strict_json(value.astype(np.float32).astype(np.float64).round(7).tolist())
    return "" if value is None else value


def write_parquet(path: Path, columns: Mapping[str, Any]) -> Path:
    """Writes a Parquet file.

    Raises:
        MissingPackageError: pandas or pyarrow is missing.
    """
    buffer = io.BytesIO()
    try:
        pandas().DataFrame(columns).to_parquet(buffer, index=False)
    except ImportError as error:
        raise MissingPackageError("Parquet files need pyarrow: pip install 'sandglass-ml[tables]'.") from error
    make_folder(path.parent)
    storage.write_file(path, buffer.getvalue())
    return path


def write_csv(path: Path, columns: Mapping[str, Sequence[Any]]) -> Path:
    """Writes a CSV file with a header."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    make_folder(path.parent)
    storage.write_file(path, text.getvalue().encode())
    return path


def write_columns(path: Path, columns: Mapping[str, Sequence[Any]]) -> Path:
    """Writes a ``.parquet`` or ``.csv`` file; NaN is an empty cell of the latter."""
    if path.suffix.lower() == ".parquet":
        return write_parquet(path, columns)
    return write_csv(path, {name: ["" if v != v else v for v in values] for name, values in columns.items()})


def write_array(path: Path, array: np.ndarray[Any, Any]) -> Path:
    """Writes a ``.npy`` file, or a ``.npz`` file with the array ``x``."""
    return write_npz(path, {"x": array}) if path.suffix.lower() == ".npz" else _write_buffer(path, np.save, array)


def write_npz(path: Path, arrays: Mapping[str, np.ndarray[Any, Any]]) -> Path:
    """Writes a ``.npz`` file that can be read without pickle."""
    return _write_buffer(path, lambda f: np.savez_compressed(f, **arrays))  # type: ignore[arg-type]


def _write_buffer(path: Path, write: Any, *values: Any) -> Path:
    buffer = io.BytesIO()
    write(buffer, *values)
    make_folder(path.parent)
    storage.write_file(path, buffer.getvalue())
    return path


def free(path: Path) -> Path:
    """The path if unused, else the next unused path with a number."""
    number, candidate = 1, path
    while candidate.exists():
        number += 1
        candidate = path.with_name(f"{path.stem}-{number}{path.suffix}")
    return candidate


def _encoded(pixels: Pixels, suffix: str) -> bytes:
    if suffix == ".png":
        return png(pixels)
    from PIL import Image

    image: Image.Image = Image.open(io.BytesIO(png(pixels)))
    kind = {".webp": "WEBP"}.get(suffix, "JPEG")
    if kind == "JPEG" and image.mode in ("RGBA", "LA"):
        image = image.convert("RGB")
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()
