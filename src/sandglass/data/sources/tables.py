"""Tables: a CSV file or a DataFrame with a header, and the fitting of what standardises them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from sandglass.data.sources.images import shown
from sandglass.data.transform import TableTransform, pandas
from sandglass.errors import DataError

_MANY = 1000


def read_csv(path: Path) -> Any:
    """A DataFrame from a ``.csv`` or ``.tsv`` file, UTF-8, whose first line names the columns.

    Raises:
        DataError: no header, no rows, or lines that are not a table.
        MissingPackageError: pandas is not installed.
    """
    name = shown(path.name)
    try:
        frame = pandas().read_csv(path, sep="\t" if path.suffix.lower() == ".tsv" else ",", encoding="utf-8-sig")
    except (ValueError, OSError) as error:
        raise DataError(f"{name} is not a table: {' '.join(str(error).split())}.") from error
    if len(frame.columns) and all(_is_number(c) for c in frame.columns):
        raise DataError(f"{name} has no header: its first line is numbers; put the columns' names into a first line.")
    if not len(frame):
        raise DataError(f"{name} has no rows below its header; give at least one.")
    return frame


def take_labels(frame: Any, labels: str) -> tuple[Any, Any]:
    """The table without the column of labels, and that column as an array.

    Raises:
        DataError: no such column.
    """
    if labels not in frame.columns:
        known = ", ".join(f"'{c}'" for c in list(frame.columns)[:20])
        raise DataError(f"The table has no column '{labels}' for labels. It has: {known}.")
    return frame.drop(columns=[labels]), frame[labels].to_numpy()


def check_frame(frame: Any) -> Any:
    """The table with texts for headers, refused where a value is missing.

    Raises:
        DataError: no column, two of one name, a missing or infinite value, dates.
    """
    frame = frame.rename(columns=str)
    names = list(frame.columns)
    if not names or not len(frame):
        raise DataError(f"The table has {len(frame)} rows and {len(names)} columns; give at least one of each.")
    for name in names:
        if names.count(name) > 1:
            raise DataError(f"The table has {names.count(name)} columns named '{name}'; give each its own name.")
        column = frame[name]
        if column.dtype.kind in "mMc":
            raise DataError(f"column '{name}' holds {column.dtype} values; turn it into numbers or leave it out.")
        bad = column.isna().to_numpy()
        if column.dtype.kind == "f":
            bad = bad | np.isinf(column.to_numpy(np.float64, na_value=np.nan))
        if bad.any():
            rows = int(bad.sum())
            raise DataError(
                f"column '{name}' has {rows} missing or infinite value{'s' if rows > 1 else ''}, "
                f"the first in row {int(bad.argmax())}; fill or remove {'them' if rows > 1 else 'it'}."
            )
    return frame


def fit_table(train: Any, everything: list[Any]) -> TableTransform:
    """What standardises a table: mean and scale over the training rows, categories over all rows.

    A constant column gets scale 1. A table of zeros and ones alone is left as it is.

    Args:
        train: the training rows, a DataFrame or an array ``(N, D)``.
        everything: the rows of every split.

    Raises:
        DataError: a column of texts with too many different ones to be a category.

    Example:
        >>> t = fit_table(np.array([[1.0, 5.0], [3.0, 5.0]]), [])
        >>> [(c["mean"], c["scale"]) for c in t.columns]
        [(2.0, 1.0), (5.0, 1.0)]
    """
    if not hasattr(train, "columns"):
        rows = np.asarray(train, dtype=np.float64)
        binary = all(_binary(np.asarray(x)) for x in [rows, *everything])
        columns = [_numeric(f"x{i}", rows[:, i], "float64", binary) for i in range(rows.shape[1])]
        return TableTransform(tuple(columns), False, binary)
    frames = everything or [train]
    binary = all(c.dtype.kind in "biuf" and _binary(c.to_numpy()) for f in frames for _, c in f.items())
    columns = []
    for name in train.columns:
        kind, dtype = train[name].dtype.kind, _dtype(train[name])
        if binary or kind in "iuf":
            columns.append(_numeric(name, train[name].to_numpy().astype(np.float64), dtype, binary))
        else:
            columns.append(_categorical(name, [f[name] for f in frames], dtype))
    return TableTransform(tuple(columns), True, binary)


def _numeric(name: str, values: np.ndarray[Any, Any], dtype: str, binary: bool) -> dict[str, Any]:
    mean, scale = float(values.mean()), float(values.std())
    # Rounding leaves a constant column with a spread of its own size times machine epsilon.
    scale = scale if scale > 1e-12 * max(1.0, abs(mean)) else 1.0
    if binary:
        mean, scale = 0.0, 1.0
    return {"name": name, "kind": "numeric", "mean": mean, "scale": scale, "dtype": dtype}


def _categorical(name: str, series: list[Any], dtype: str) -> dict[str, Any]:
    values = {v for s in series for v in s.tolist()}
    rows = sum(map(len, series))
    if len(values) > _MANY or (len(values) > 50 and len(values) > rows / 2):
        raise DataError(
            f"column '{name}' has {len(values)} different texts in {rows} rows, too many for a category; leave it out."
        )
    ordered = sorted(values) if dtype in ("int64", "float64") else sorted(map(str, values))
    return {"name": name, "kind": "categorical", "categories": [str(v) for v in ordered], "dtype": dtype}


def _dtype(column: Any) -> str:
    """What the inverse restores; other widths of number become the widest."""
    found = column.dtype
    if found.name == "category":
        found = found.categories.dtype
    return {"b": "bool", "i": "int64", "u": "int64", "f": "float64"}.get(found.kind, "str")


def _binary(values: np.ndarray[Any, Any]) -> bool:
    """Whether an array holds zeros and ones alone, and both of them."""
    if values.dtype == np.bool_:
        return True
    return bool(np.isin(values, (0, 1)).all())


def _is_number(text: Any) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
