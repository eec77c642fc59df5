"""Reads tables from CSV, Parquet and Feather files and DataFrames, and fits their transforms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sandglass.data import cells, coding
from sandglass.data.dtypes import remembered
from sandglass.data.fitting import FEW, Types, fit_column
from sandglass.data.sources.csv_files import MADE, read_csv
from sandglass.data.sources.images import shown
from sandglass.data.sources.raw import Part, Raw
from sandglass.data.transform import TableTransform
from sandglass.errors import ConfigError, DataError, MissingPackageError, named_type
from sandglass.registry import nearest
from sandglass.runs import frames

ENDINGS = (".csv", ".tsv", ".parquet", ".feather")

_LARGEST = 2**33  # cells
_TAIL = 1.5  # skewness of a log-normal with standard deviation 0.44; a normal distribution has 0, an exponential one 2


def read_file(path: Path) -> tuple[Any, tuple[str, ...]]:
    """Reads a ``.csv``, ``.tsv``, ``.parquet`` or ``.feather`` file as a DataFrame, with notes on how it was read.

    A CSV file is UTF-8. A column of whole numbers in which one has a leading zero, such as 007, is read as strings. The
    first line is the header, unless all its cells are numbers or one has a decimal point: then the file has no header,
    and its columns are named c1, c2, ...

    Raises:
        DataError: it has no rows, or is not a table.
        MissingPackageError: pandas or pyarrow is not installed.
    """
    read = read_csv if path.suffix.lower() in (".csv", ".tsv") else _read_arrow
    frame, notes = read(path)
    if not len(frame):
        raise DataError(f"{shown(path.name)} has no rows below its header; give at least one.")
    return frame, notes


def _read_arrow(path: Path) -> tuple[Any, tuple[str, ...]]:
    name = shown(path.name)
    try:
        import pyarrow
        from pyarrow import feather, parquet
    except ImportError as error:
        raise MissingPackageError(
            "Parquet and Feather files need pyarrow: pip install 'sandglass-ml[tables]'."
        ) from error
    try:
        if path.suffix.lower() == ".parquet":
            with parquet.ParquetFile(path) as file:
                size = file.metadata.num_rows * file.metadata.num_columns
                if size > _LARGEST:
                    raise DataError(f"{name} unpacks to {size:.2g} cells; split it into smaller files.")
                table = file.read()
        else:
            table = feather.read_table(path, memory_map=False)
        table.validate(full=True)  # invalid offsets would crash the process
        frame = to_frame(table)
    except DataError:
        raise
    except (pyarrow.ArrowException, ValueError, OSError, TypeError, KeyError) as error:
        raise DataError(f"{name} is not a table: {' '.join(str(error).split())}.") from error
    return frame, ()


def as_frame(source: Any) -> Any:
    """A table as a pandas DataFrame; Arrow and Polars tables are converted.

    Raises:
        DataError: it has columns and is no table.
    """
    frame = source if hasattr(source, "iloc") or not hasattr(source, "to_pandas") else source.to_pandas()
    if not hasattr(frame, "iloc"):
        raise DataError(f"The source is {named_type(source)}, not a table; give its DataFrame.")
    return frame


def check_header(frame: Any) -> None:
    """Refuses a table whose columns have names of several parts.

    Raises:
        DataError: it has several header rows.
    """
    if getattr(frame.columns, "nlevels", 1) > 1:
        raise DataError(
            f"The table has {frame.columns.nlevels} header rows; give each column one name: "
            "table.columns = ['_'.join(map(str, c)) for c in table.columns]."
        )


def to_frame(table: Any, *, plain: bool = False) -> Any:
    """An Arrow table as a DataFrame with nullable integers and booleans.

    Args:
        table: the table.
        plain: whether to ignore pandas metadata, such as index columns.
    """
    import pyarrow

    pandas = frames.pandas()
    kinds = {getattr(pyarrow, f"{u}int{n}")(): getattr(pandas, f"{u.upper()}Int{n}Dtype")()
             for u in ("", "u") for n in (8, 16, 32, 64)}  # fmt: skip
    kinds[pyarrow.bool_()] = pandas.BooleanDtype()
    frame = table.to_pandas(types_mapper=kinds.get, ignore_metadata=plain)
    frame.attrs[MADE] = [str(kind) for kind in kinds.values()]
    return frame


def take_labels(frame: Any, labels: str) -> tuple[Any, Any]:
    """The table without the label column, and that column as an array.

    Raises:
        DataError: no such column.
    """
    check_header(frame)
    return _without(frame, labels, "labels"), cells.plain(frame[labels])


def arrange(raw: Raw, drop: Any, groups: Any) -> Raw:
    """Drops columns from the tables of a source, and assigns groups.

    Args:
        raw: the source.
        drop: names of columns to drop, a list or a comma-separated string.
        groups: the name of the group column, or an array ``(N,)`` of groups.

    Raises:
        DataError: no such column, or a missing value among the groups.
        ConfigError: the source has no columns.
    """
    names = [n.strip() for n in drop.split(",") if n.strip()] if isinstance(drop, str) else [str(n) for n in drop or ()]
    if not names and groups is None:
        return raw
    frames = {split: part.x for split, part in raw.parts.items()}
    tables = all(hasattr(x, "columns") for x in frames.values())
    if not tables and (names or isinstance(groups, str)):
        raise ConfigError("drop and groups name columns of a table; this source has none.")
    for name in names:
        frames = {split: _without(x, name, "drop") for split, x in frames.items()}
    if groups is None:
        return replace(raw, parts={s: replace(p, x=frames[s]) for s, p in raw.parts.items()})
    if isinstance(groups, str):
        keys = {s: cells.plain(x[groups]) if groups in x.columns else None for s, x in frames.items()}
        frames = {s: _without(x, groups, "groups") for s, x in frames.items()}
    else:
        given = cells.plain(groups)
        if len(given) != len(raw.parts["train"]):
            raise ConfigError(f"groups has {len(given)} values for {len(raw.parts['train'])} examples.")
        keys = {"train": given}
    number: dict[Any, int] = {}
    parts = {}
    for split, part in raw.parts.items():
        found = keys.get(split)
        if found is not None and not cells.observed(found).all():
            row = int(np.argmin(cells.observed(found)))
            raise DataError(f"groups has a missing value in row {row}; fill it, or remove that row.")
        which = None if found is None else torch.tensor([number.setdefault(v, len(number)) for v in found.tolist()])
        parts[split] = replace(part, x=frames[split], groups=which)
    return replace(raw, parts=parts).noted(f"{len(number)} groups: each stays in one split", *_crossing(parts))


def _crossing(parts: Mapping[str, Part]) -> list[str]:
    """Notes on groups that are in several splits of the source."""
    train, notes = parts["train"].groups, []
    for split, part in parts.items():
        if split != "train" and train is not None and part.groups is not None:
            shared = len(set(part.groups.tolist()) & set(train.tolist()))
            notes += [f"{shared} groups of {split} are also in train, as in the source"] if shared else []
    return notes


def _without(frame: Any, name: str, option: str) -> Any:
    if name not in frame.columns:
        hint = nearest(name, [str(c) for c in frame.columns])
        raise DataError(f"The table has no column '{name}' for {option}.{hint} It has: {cells.listed(frame.columns)}.")
    return frame.drop(columns=[name])


def check_frame(frame: Any) -> Any:
    """The table with strings as column names.

    Raises:
        DataError: it has no rows or columns, or duplicate column names.
    """
    check_header(frame)
    frame = frame.rename(columns=str)
    names = list(frame.columns)
    if not names or not len(frame):
        raise DataError(f"The table has {len(frame)} rows and {len(names)} columns; give at least one of each.")
    for name in names:
        if names.count(name) > 1:
            raise DataError(f"The table has {names.count(name)} columns named '{name}'; give each its own name.")
    return frame


def has_row_labels(frame: Any) -> bool:
    """Whether the rows of a table have labels, not only numbers from 0.

    Example:
        >>> has_row_labels(frames.pandas().DataFrame({"a": [1, 2]}, index=["x", "y"]))
        True
    """
    return not frame.index.equals(frames.pandas().RangeIndex(len(frame)))


def fit_table(train: Any, everything: list[Any], types: Types | None = None) -> TableTransform:
    """Fits the transform of a table: mean and scale on the training set, categories on all splits.

    A constant column gets scale 1. A table of only zeros and ones is not standardised. Missing cells are ignored.

    Args:
        train: the training set, a DataFrame or an array ``(N, D)``.
        everything: the rows of all splits.
        types: declared kinds of columns, see :func:`sandglass.data.fitting.read_types`.

    Raises:
        DataError: a column that cannot be encoded, or does not exist.

    Example:
        >>> t = fit_table(np.array([[1.0, 5.0], [3.0, 5.0]]), [])
        >>> [(c["mean"], c["scale"]) for c in t.columns]
        [(2.0, 1.0), (5.0, 1.0)]
    """
    types = types or {}
    frames = everything or [train]
    framed = hasattr(train, "columns")
    names = list(train.columns) if framed else [f"x{i}" for i in range(np.shape(train)[1])]
    for name in types:
        if name not in names:
            raise DataError(f"The table has no column '{name}' for types.{nearest(name, names)}")
    if not names:
        raise DataError("The table has no columns left; drop fewer.")
    series = {n: [f[n] if framed else np.asarray(f)[:, i] for f in frames] for i, n in enumerate(names)}
    own = {n: train[n] if framed else np.asarray(train, np.float64)[:, i] for i, n in enumerate(names)}
    binary = not types and all(_binary(cells.plain(s)) for found in series.values() for s in found)
    columns = []
    for name in names:
        column = fit_column(name, series[name], own[name], types.get(name) if framed and not binary else "numeric")
        made = train.attrs.get(MADE, ()) if framed else ()
        if framed and str(dtype := getattr(series[name][0], "dtype", "")) not in made:
            column = remembered(column, dtype)
        if not framed or binary:  # arrays are decoded to plain floats
            column = {k: v for k, v in column.items() if k not in ("decimals", "unsigned")}
        columns.append(
            column | ({"mean": 0.0, "scale": 1.0} if binary else {}) | ({} if framed else {"dtype": "float64"})
        )
    return TableTransform(tuple(columns), framed, binary)


def remarks(
    transform: TableTransform, raw: Raw, masks: Mapping[str, Tensor | None], types: Types, *, fresh: bool
) -> list[str]:
    """Notes on how a table was read; with a model's transform (not ``fresh``) only on missing values."""
    if not fresh or not transform.frame:
        return _gaps(transform, masks)
    notes: list[str] = []
    for kind, what in (("categorical", "one-hot"), ("ordinal", "ordinal"), ("date", "of dates"),
                       ("positive", "of positive numbers"), ("count", "of counts"),
                       ("sequence", "of sequences")):  # fmt: skip
        count = sum(c["kind"] == kind for c in transform.columns)
        notes += [f"{count} column{'s' if count > 1 else ''} {what}"] if count else []
    zoned = [c["name"] for c in transform.columns if c["dtype"] == "utc" and "pandas" not in c]
    notes += [f"times were converted to UTC: {cells.listed(zoned)}"] if zoned else []
    longest = {c["name"]: c["shape"][0] for c in transform.columns if c["kind"] == "sequence"}
    notes += [f"'{n}' has sequences of at most {t} steps; shorter ones are padded" for n, t in longest.items()]
    return notes + _advice(transform, raw, types) + _gaps(transform, masks)


def _advice(transform: TableTransform, raw: Raw, types: Types) -> list[str]:
    """Notes on undeclared columns whose kind may have been inferred wrongly, with the option to change it."""
    notes = []
    for what, kind, then, meant in (
        ("read as counts", "numeric", "would make one numeric", lambda c, raw: c["kind"] == "count"),
        ("numeric, but with few distinct integers", "categorical", "would make one categorical, 'count' counts", _few),
        ("above 0, with a long tail", "positive", "would model the logarithm of one", _skewed),
    ):
        own = [c for c in transform.columns if c["name"] not in types and not transform.binary]
        found = [c["name"] for c in own if meant(c, raw)]
        if found:
            options = f"types={{'{found[0]}': '{kind}'}} (--types '{found[0]}={kind}')"
            notes.append(f"{what}: {cells.listed(found)}; {options} {then}")
    return notes


def _few(column: Mapping[str, Any], raw: Raw) -> bool:
    """Whether a column is numeric and might be categorical."""
    if column["kind"] != "numeric" or column["dtype"] != "int64":
        return False
    return len(np.unique(_numbers(column["name"], raw))) <= FEW


def _skewed(column: Mapping[str, Any], raw: Raw) -> bool:
    """Whether a column is numeric, and its logarithm is closer to a normal distribution."""
    if column["kind"] != "numeric":
        return False
    found = _numbers(column["name"], raw)
    if found.min() <= 0 or len(np.unique(found)) <= FEW:
        return False
    return _skewness(found) > _TAIL > abs(_skewness(np.log(found)))


def _skewness(values: np.ndarray[Any, Any]) -> float:
    return float((((values - values.mean()) / values.std()) ** 3).mean())


def _numbers(name: str, raw: Raw) -> np.ndarray[Any, Any]:
    """The observed values of a numeric column over all splits."""
    found = np.concatenate([cells.numbers(name, cells.plain(part.x[name])) for part in raw.parts.values()])
    return found[~np.isnan(found)]


def _gaps(transform: TableTransform, masks: Mapping[str, Tensor | None]) -> list[str]:
    """A note on the number of missing cells by column, over all splits."""
    rows = sum(len(m) for m in masks.values() if m is not None)
    if not rows:
        return []
    gaps = torch.stack([(~m).sum(0) for m in masks.values() if m is not None]).sum(0)
    starts = np.cumsum([0, *(coding.width(c) for c in transform.columns)])[:-1]
    counts = {c["name"]: int(gaps[i]) for c, i in zip(transform.columns, starts, strict=True) if int(gaps[i])}
    worst = sorted(counts, key=lambda n: -counts[n])
    some = ", ".join(f"'{n}' {counts[n]:,}" for n in worst[:8]) + (", ..." if len(worst) > 8 else "")
    return [
        f"{sum(counts.values()):,} cells of {len(counts)} column{'s' if len(counts) > 1 else ''} are missing ({some}): "
        "they are set to 0, and losses and metrics use only observed cells"
    ]


def _binary(values: np.ndarray[Any, Any]) -> bool:
    """Whether the observed cells are all 0 or 1, or booleans."""
    seen = values[cells.observed(values)]
    if seen.dtype.kind == "O":
        return len(seen) > 0 and all(isinstance(v, bool | np.bool_) for v in seen)
    return seen.dtype.kind in "biuf" and bool(np.isin(seen, (0, 1)).all())
