"""Reads NumPy files without pickle, after checking their declared sizes."""

from __future__ import annotations

import math
import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from sandglass.data.cells import listed
from sandglass.data.sources.images import shown
from sandglass.data.sources.raw import SPLITS, Pairs
from sandglass.errors import DataError
from sandglass.registry import nearest

_X, _Y = ("x", "images", "data"), ("y", "labels", "targets")
_LARGEST = 2**36
DAMAGE = (
    ValueError, TypeError, OSError, EOFError, MemoryError, KeyError, SyntaxError, RecursionError, NotImplementedError,
    RuntimeError, ArithmeticError, zipfile.BadZipFile, zlib.error, tokenize.TokenError,
)  # fmt: skip
"""Exceptions that NumPy and the archive modules raise for a damaged file."""

_HARMLESS, _RATIO = 2**27, 200  # unpacked bytes that are always accepted, and the largest compression ratio beyond


def read_numpy(path: Path, labels: Any) -> Pairs:
    """Splits from a ``.npy`` or ``.npz`` file.

    In an archive, ``x`` (or ``images``, ``data``, or the first array) has the examples and ``y`` (``labels``,
    ``targets``) the classes; names such as ``x_train``, ``y_test`` and ``val_images`` give splits.

    Raises:
        DataError: it is damaged, needs pickle, or is too large.
    """
    name = shown(path.name)
    try:
        if path.suffix.lower() == ".npy":
            return {"train": (np.load(path, mmap_mode="r", allow_pickle=False), None)}
        found = read_npz(path)
    except DataError:
        raise
    except DAMAGE as error:
        raise DataError(f"{name} cannot be read as NumPy data: {' '.join(str(error).split())}.") from error
    if not found:
        raise DataError(f"{name} holds no array; save the examples as 'x'.")
    pairs = _named(found)
    if isinstance(labels, str) and labels not in found:
        raise DataError(
            f"{name} has no array '{labels}' for labels.{nearest(labels, [*found])} It has: {listed(found)}."
        )
    if isinstance(labels, str):
        pairs = {"train": (pairs["train"][0], found[labels])}
    return pairs


def read_npz(path: Path) -> dict[str, Any]:
    """All arrays of a ``.npz`` file by name, after checking their declared sizes.

    Raises:
        DataError: it is too large, looks like a decompression bomb, or contains something that is not an array.
        Exception: one of :data:`DAMAGE`, if it is damaged.
    """
    _check_npz(path)
    with np.load(path, allow_pickle=False) as archive:
        found = {key: archive[key] for key in archive.files}
    for key, value in found.items():
        if not isinstance(value, np.ndarray):
            raise DataError(f"{shown(path.name)}: '{key}' is not an array.")
    return found


def _check_npz(path: Path) -> None:
    """Checks the declared sizes of an archive of arrays.

    Raises:
        DataError: it is too large, its compression ratio is too high, or an array is larger than its entry.
    """
    name, packed = shown(path.name), path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        size = sum(entry.file_size for entry in archive.infolist())
        if size > _LARGEST:
            raise DataError(f"{name} unpacks to {size / 2**30:.0f} GiB; split it into smaller files.")
        if size > max(_HARMLESS, _RATIO * packed):
            raise DataError(
                f"{name} has {packed / 2**20:.1f} MiB and would unpack to {size / 2**20:,.0f} MiB, like a "
                "decompression bomb; if you trust it, save its arrays as .npy files."
            )
        for entry in archive.infolist():
            if not entry.filename.endswith(".npy"):
                continue
            with archive.open(entry) as file:
                version = np.lib.format.read_magic(file)
                read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                shape, _, dtype = read(file)
            if math.prod(shape) * dtype.itemsize > entry.file_size:
                raise DataError(f"{name} is damaged: '{shown(entry.filename)}' declares more values than it holds.")


def _named(found: dict[str, Any]) -> Pairs:
    """Assigns the arrays of an archive to splits by their names."""
    roles: dict[tuple[str, str], Any] = {}
    for key, value in found.items():
        words = set(key.lower().split("_"))
        split = next((SPLITS[w] for w in words if w in SPLITS), "train")
        role = "x" if words & set(_X) else "y" if words & set(_Y) else ""
        if role:
            roles.setdefault((split, role), value)
    if ("train", "x") not in roles:
        roles["train", "x"] = next(v for v in found.values() if v is not roles.get(("train", "y")))
    splits = [s for s in ("train", "validation", "test") if (s, "x") in roles]
    return {s: (roles[s, "x"], roles.get((s, "y"))) for s in splits}
