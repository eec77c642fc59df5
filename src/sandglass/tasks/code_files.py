"""Reading files of latent codes: NumPy archives, Parquet and CSV."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sandglass.data.sources.numpy_files import DAMAGE, read_npz
from sandglass.errors import DataError, NotFoundError
from sandglass.runs.frames import pandas


def read(path: Path, dim: int) -> np.ndarray[Any, Any]:
    """``(N, dim)`` codes.

    Raises:
        NotFoundError: the file does not exist.
        DataError: it does not contain codes of this size.
    """
    z = _guarded(path, _codes)
    if z.ndim != 2 or z.shape[1] != dim or not len(z):
        raise DataError(f"{path} contains codes of shape {z.shape}; this model needs (N, {dim}).")
    if not np.isfinite(z).all():
        raise DataError(f"{path} contains codes that are not finite.")
    return z


def read_labels(path: Path, classes: Sequence[str]) -> Tensor | None:
    """``(N,)`` class indices of the codes, -1 where unknown; None where the file has no labels."""
    labels = _guarded(path, _labels)
    if labels is None:
        return None
    if labels.dtype.kind in "iu":
        whole = torch.from_numpy(labels.astype(np.int64))
        return whole if bool((whole < max(1, len(classes))).all()) else None
    number = {name: k for k, name in enumerate(classes)}
    return torch.tensor([number.get(str(label), -1) for label in labels.tolist()])


def _guarded(path: Path, read_: Any) -> Any:
    if not path.is_file():
        raise NotFoundError(f"There is no file {path}.")
    try:
        return read_(path)
    except DataError:
        raise
    except DAMAGE as error:
        raise DataError(f"{path} cannot be read as codes: {' '.join(str(error).split())}.") from error


def _codes(path: Path) -> np.ndarray[Any, Any]:
    ending = path.suffix.lower()
    if ending == ".npy":
        return np.array(np.load(path, mmap_mode="r", allow_pickle=False), np.float64)  # mmap checks the declared size
    if ending == ".npz":
        arrays = read_npz(path)
        if "codes" not in arrays:
            raise ValueError(f"it has no array 'codes', only {', '.join(arrays)}")
        return np.asarray(arrays["codes"], np.float64)
    if ending not in (".csv", ".parquet"):
        raise ValueError("it should end in .npz, .npy, .csv or .parquet")
    frame = _frame(path)
    found = sorted((int(m[1]), c) for c in frame.columns if (m := re.fullmatch(r"z(\d+)", str(c))))
    if not found:
        raise ValueError("it has no columns z0, z1, ...")
    return np.array(frame[[c for _, c in found]].to_numpy(np.float64))  # a writable copy


def _labels(path: Path) -> np.ndarray[Any, Any] | None:
    ending = path.suffix.lower()
    if ending == ".npz":
        return read_npz(path).get("labels")
    if ending not in (".csv", ".parquet"):
        return None
    frame = _frame(path)
    # As strings, since a class named "3" need not have index 3.
    return frame["labels"].astype(str).to_numpy(object) if "labels" in frame.columns else None


def _frame(path: Path) -> Any:
    if path.suffix.lower() == ".parquet":
        return pandas().read_parquet(path)
    return pandas().read_csv(path, dtype={"labels": str})
