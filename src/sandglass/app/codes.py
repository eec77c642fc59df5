"""Files of latent codes: NumPy archives, Parquet and CSV."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sandglass.app.files import write_csv, write_npz, write_parquet
from sandglass.app.trained import Trained, joined
from sandglass.data.dataset import Dataset, Split
from sandglass.data.sources.numpy_files import DAMAGE, read_npz
from sandglass.errors import DataError, MissingPackageError, NotFoundError

Columns = dict[str, "np.ndarray[Any, Any]"]


def of(trained: Trained, data: Dataset, splits: Mapping[str, Split]) -> Columns:
    """``codes`` ``(N, D)``, ``index`` in the split, and where there are such ``labels``, ``names`` and ``split``."""
    whole = joined(dict(splits))
    columns: Columns = {"codes": trained.encode(whole).numpy()}
    if whole.y is not None:
        columns["labels"] = whole.y.numpy()
    if whole.names:
        columns["names"] = np.array(whole.names)
    columns["index"] = np.concatenate([np.arange(len(s)) for s in splits.values()])
    if len(data.splits) > 1:
        columns["split"] = np.repeat(list(splits), [len(s) for s in splits.values()])
    return columns


def write(path: Path, columns: Columns, classes: Sequence[str]) -> None:
    """Writes codes in the form that the file's ending names; a table has a column ``z0``, ``z1``, ... a dimension.

    Raises:
        MissingPackageError: Parquet needs pandas and pyarrow.
    """
    if path.suffix.lower() == ".npz":
        write_npz(path, columns | ({"classes": np.array(classes)} if classes else {}))
        return
    flat: dict[str, Sequence[Any]] = {f"z{i}": z.tolist() for i, z in enumerate(columns["codes"].T)}
    flat |= {k: v.tolist() for k, v in columns.items() if k != "codes"}
    if "labels" in flat and classes:
        flat["labels"] = [classes[y] for y in flat["labels"]]
    if path.suffix.lower() == ".csv":
        write_csv(path, flat | {f"z{i}": [str(v) for v in z] for i, z in enumerate(columns["codes"].T)})
        return
    write_parquet(path, flat)


def read(path: Path, dim: int) -> np.ndarray[Any, Any]:
    """``(N, dim)`` codes.

    Raises:
        NotFoundError: there is no such file.
        DataError: it holds no codes of that size.
    """
    if not path.is_file():
        raise NotFoundError(f"There is no file {path}.")
    try:
        z = _read(path)
    except DataError:
        raise
    except DAMAGE as error:
        raise DataError(f"{path} cannot be read as codes: {' '.join(str(error).split())}.") from error
    if z.ndim != 2 or z.shape[1] != dim or not len(z):
        raise DataError(f"{path} holds codes of shape {z.shape}; this model's are (N, {dim}).")
    if not np.isfinite(z).all():
        raise DataError(f"{path} holds codes that are not finite.")
    return z


def _read(path: Path) -> np.ndarray[Any, Any]:
    ending = path.suffix.lower()
    if ending == ".npy":
        return np.array(np.load(path, mmap_mode="r", allow_pickle=False), np.float64)  # mapped: its size is true
    if ending == ".npz":
        arrays = read_npz(path)
        if "codes" not in arrays:
            raise ValueError(f"it has no array 'codes', but {', '.join(arrays)}")
        return np.asarray(arrays["codes"], np.float64)
    if ending not in (".csv", ".parquet"):
        raise ValueError("it should end in .npz, .npy, .csv or .parquet")
    try:
        import pandas
    except ImportError as error:
        raise MissingPackageError("Reading tables of codes needs pandas: pip install pandas.") from error
    frame = pandas.read_csv(path) if ending == ".csv" else pandas.read_parquet(path)
    found = sorted((int(m[1]), c) for c in frame.columns if (m := re.fullmatch(r"z(\d+)", str(c))))
    if not found:
        raise ValueError("it has no columns z0, z1, ...")
    return np.array(frame[[c for _, c in found]].to_numpy(np.float64))  # a copy of its own, which may be written to
