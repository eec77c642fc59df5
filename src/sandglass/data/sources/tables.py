"""Tables: CSV, Parquet and Feather files, DataFrames, and the fitting of what standardises them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sandglass.data import cells, coding
from sandglass.data.fitting import FEW, PADDED, Types, fit_column, is_number
from sandglass.data.sources.images import shown
from sandglass.data.sources.raw import Part, Raw
from sandglass.data.transform import TableTransform
from sandglass.errors import ConfigError, DataError, MissingPackageError
from sandglass.registry import nearest

ENDINGS = (".csv", ".tsv", ".parquet", ".feather")

_LARGEST = 2**33  # cells
_TAIL = 1.5  # the skewness of a log-normal of standard deviation 0.44; a normal has 0, an exponential 2

_PADDED = re.compile(rb'(?:^|[,;\t"])\s*[+-]?0\d')  # a cell that begins as PADDED does


def read_file(path: Path) -> tuple[Any, tuple[str, ...]]:
    """A DataFrame from a ``.csv``, ``.tsv``, ``.parquet`` or ``.feather`` file, and notes on how it was read.

    Whole numbers of which one has a zero in front, as 007 has, are codes: they stay texts.
    Texts are UTF-8. The first line of a CSV file names the columns, unless there are numbers in it: where all of it is
    numbers, or any has a decimal point, the file has no header, and its columns are named c1, c2, ...

    Raises:
        DataError: no rows, or content that is not a table.
        MissingPackageError: pandas or pyarrow is not installed.
    """
    read = _read_csv if path.suffix.lower() in (".csv", ".tsv") else _read_arrow
    frame, notes = read(path)
    if not len(frame):
        raise DataError(f"{shown(path.name)} has no rows below its header; give at least one.")
    return frame, notes


def _read_csv(path: Path) -> tuple[Any, tuple[str, ...]]:
    name, pandas = shown(path.name), cells.pandas()
    options: dict[str, Any] = {"sep": "\t" if path.suffix.lower() == ".tsv" else ",", "encoding": "utf-8-sig"}
    notes: tuple[str, ...] = ()
    try:
        first = pandas.read_csv(path, header=None, nrows=1, dtype=str, keep_default_na=False, **options)
        if first.shape[1] == 1 and ";" in first.iloc[0, 0]:
            options["sep"], notes = ";", (f"{name} has semicolons between its cells",)
            first = pandas.read_csv(path, header=None, nrows=1, dtype=str, keep_default_na=False, **options)
        header = [str(v) for v in first.iloc[0]]
        filled = [v for v in header if v.strip() not in cells.MISSING]
        bare = any("." in v and is_number(v) for v in filled) or (bool(filled) and all(map(is_number, filled)))
        names = [f"c{i + 1}" for i in range(len(header))] if bare else header
        twice = next((n for n in names if n and names.count(n) > 1), None)
        if twice is not None:
            raise DataError(f"{name} has {names.count(twice)} columns named '{twice}'; give each its own name.")
        options |= {"header": None, "names": names} if bare else {}
        frame = pandas.read_csv(
            path, na_values=sorted(cells.MISSING), low_memory=False, dtype_backend="numpy_nullable", **options
        )
        codes = _codes(path, frame, options)
        frame = frame.assign(**codes) if codes else frame
    except DataError:
        raise
    except (ValueError, OSError) as error:
        raise DataError(f"{name} is not a table: {' '.join(str(error).split())}.") from error
    if not isinstance(frame.index, pandas.RangeIndex):
        raise DataError(f"{name} is not a table: it has lines with more cells than its first line names.")
    if bare:
        notes += (f"{name} has no header, its first line is numbers: the columns are named c1 to c{len(header)}",)
    return frame, notes


def _codes(path: Path, frame: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """Columns that were read as whole numbers and are codes, as texts: somewhere they have a zero in front, as 007."""
    whole = [name for name in frame.columns if frame[name].dtype.kind in "iu"]
    with path.open("rb") as file:
        padded = any(_PADDED.search(line) for line in file)  # most files have none, and this is soon seen
    if not whole or not padded:
        return {}
    texts = cells.pandas().read_csv(path, usecols=whole, dtype=str, na_values=sorted(cells.MISSING), **options)
    return {name: texts[name] for name in whole if texts[name].str.match(PADDED, na=False).any()}


def _read_arrow(path: Path) -> tuple[Any, tuple[str, ...]]:
    name = shown(path.name)
    try:
        import pyarrow
        from pyarrow import feather, parquet
    except ImportError as error:
        raise MissingPackageError(
            "Parquet and Feather files need pyarrow: `pip install sandglass-ml[tables]`."
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
        table.validate(full=True)  # offsets that lead outside would bring the process down
        frame = to_frame(table)
    except DataError:
        raise
    except (pyarrow.ArrowException, ValueError, OSError, TypeError, KeyError) as error:
        raise DataError(f"{name} is not a table: {' '.join(str(error).split())}.") from error
    return frame, ()


def as_frame(source: Any) -> Any:
    """A table that was handed over as a pandas DataFrame; those of Arrow and Polars are turned into one."""
    return source if hasattr(source, "iloc") or not hasattr(source, "to_pandas") else source.to_pandas()


def to_frame(table: Any, *, plain: bool = False) -> Any:
    """An Arrow table as a DataFrame, in whose columns whole numbers and booleans stay so beside gaps.

    Args:
        table: the table.
        plain: pass over what pandas may have noted in it, such as which columns are its index.
    """
    import pyarrow

    pandas = cells.pandas()
    kinds = {getattr(pyarrow, f"{u}int{n}")(): getattr(pandas, f"{u.upper()}Int{n}Dtype")()
             for u in ("", "u") for n in (8, 16, 32, 64)}  # fmt: skip
    kinds[pyarrow.bool_()] = pandas.BooleanDtype()
    return table.to_pandas(types_mapper=kinds.get, ignore_metadata=plain)


def take_labels(frame: Any, labels: str) -> tuple[Any, Any]:
    """The table without the column of labels, and that column as an array.

    Raises:
        DataError: no such column.
    """
    return _without(frame, labels, "labels"), cells.plain(frame[labels])


def arrange(raw: Raw, drop: Any, groups: Any) -> Raw:
    """The tables of a source without the columns to leave out, and with the numbers of their groups.

    Args:
        raw: the source.
        drop: names of columns, or a text of such with commas between.
        groups: the name of the column that says which rows belong together, or an array ``(N,)`` that does.

    Raises:
        DataError: no such column, or a missing value in that of the groups.
        ConfigError: a source that has no columns.
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
            raise DataError(f"the column of groups has no value in row {row}; fill it, or remove that row.")
        which = None if found is None else torch.tensor([number.setdefault(v, len(number)) for v in found.tolist()])
        parts[split] = replace(part, x=frames[split], groups=which)
    return replace(raw, parts=parts).noted(f"{len(number)} groups: each stays in one split", *_crossing(parts))


def _crossing(parts: Mapping[str, Part]) -> list[str]:
    """Remarks on groups that a source itself has in several splits."""
    train, notes = parts["train"].groups, []
    for split, part in parts.items():
        if split != "train" and train is not None and part.groups is not None:
            shared = len(set(part.groups.tolist()) & set(train.tolist()))
            notes += [f"{shared} groups of {split} are also in train, as the source has them"] if shared else []
    return notes


def _without(frame: Any, name: str, option: str) -> Any:
    if name not in frame.columns:
        hint = nearest(name, [str(c) for c in frame.columns])
        raise DataError(f"The table has no column '{name}' for {option}.{hint} It has: {cells.listed(frame.columns)}.")
    return frame.drop(columns=[name])


def check_frame(frame: Any) -> Any:
    """The table with texts for headers.

    Raises:
        DataError: no row or column, or two of one name.
    """
    frame = frame.rename(columns=str)
    names = list(frame.columns)
    if not names or not len(frame):
        raise DataError(f"The table has {len(frame)} rows and {len(names)} columns; give at least one of each.")
    for name in names:
        if names.count(name) > 1:
            raise DataError(f"The table has {names.count(name)} columns named '{name}'; give each its own name.")
    return frame


def fit_table(train: Any, everything: list[Any], types: Types | None = None) -> TableTransform:
    """What standardises a table: mean and scale over the training rows, categories over all rows.

    A constant column gets scale 1. A table of zeros and ones alone is left as it is. Missing cells count in nothing.

    Args:
        train: the training rows, a DataFrame or an array ``(N, D)``.
        everything: the rows of every split.
        types: what columns were declared to be, see :func:`sandglass.data.fitting.read_types`.

    Raises:
        DataError: a column that cannot be encoded, or is not there.

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
        raise DataError("The table has no column left; drop fewer.")
    series = {n: [f[n] if framed else np.asarray(f)[:, i] for f in frames] for i, n in enumerate(names)}
    own = {n: train[n] if framed else np.asarray(train, np.float64)[:, i] for i, n in enumerate(names)}
    binary = not types and all(_binary(cells.plain(s)) for found in series.values() for s in found)
    columns = []
    for name in names:
        column = fit_column(name, series[name], own[name], types.get(name) if framed and not binary else "numeric")
        if not framed or binary:  # an array is numbers and no more
            column = {k: v for k, v in column.items() if k not in ("decimals", "unsigned")}
        columns.append(
            column | ({"mean": 0.0, "scale": 1.0} if binary else {}) | ({} if framed else {"dtype": "float64"})
        )
    return TableTransform(tuple(columns), framed, binary)


def remarks(
    transform: TableTransform, raw: Raw, masks: Mapping[str, Tensor | None], types: Types, *, fresh: bool
) -> list[str]:
    """What a reader should know of how a table was taken, a note each; of one that is not fresh, its gaps alone."""
    if not fresh or not transform.frame:
        return _gaps(transform, masks)
    notes: list[str] = []
    for kind, what in (("categorical", "one-hot"), ("ordinal", "ordinal"), ("date", "of dates"),
                       ("positive", "of positive numbers"), ("count", "of counts"),
                       ("sequence", "of sequences")):  # fmt: skip
        count = sum(c["kind"] == kind for c in transform.columns)
        notes += [f"{count} column{'s' if count > 1 else ''} {what}"] if count else []
    zoned = [c["name"] for c in transform.columns if c["dtype"] == "utc"]
    notes += [f"times were brought to UTC: {cells.listed(zoned)}"] if zoned else []
    longest = {c["name"]: c["shape"][0] for c in transform.columns if c["kind"] == "sequence"}
    notes += [f"'{n}' has sequences of at most {t} steps; shorter ones end in a gap" for n, t in longest.items()]
    return notes + _advice(transform, raw, types) + _gaps(transform, masks)


def _advice(transform: TableTransform, raw: Raw, types: Types) -> list[str]:
    """Columns of which nobody said anything and that might be meant otherwise, and how to say so."""
    notes = []
    for what, kind, then, meant in (
        ("taken for counts", "numeric", "would make plain numbers of one", lambda c, raw: c["kind"] == "count"),
        ("numeric, though of few whole numbers", "categorical", "would make categories of one, 'count' counts", _few),
        ("above 0, with a long tail", "positive", "would model the logarithm of one", _skewed),
    ):
        own = [c for c in transform.columns if c["name"] not in types and not transform.binary]
        found = [c["name"] for c in own if meant(c, raw)]
        if found:
            options = f"types={{'{found[0]}': '{kind}'}} (--types '{found[0]}={kind}')"
            notes.append(f"{what}: {cells.listed(found)}; {options} {then}")
    return notes


def _few(column: Mapping[str, Any], raw: Raw) -> bool:
    """Whether it is numeric and might be categories."""
    if column["kind"] != "numeric" or column["dtype"] != "int64":
        return False
    return len(np.unique(_numbers(column["name"], raw))) <= FEW


def _skewed(column: Mapping[str, Any], raw: Raw) -> bool:
    """Whether it is numeric, and its logarithm would be nearer to a normal."""
    if column["kind"] != "numeric":
        return False
    found = _numbers(column["name"], raw)
    if found.min() <= 0 or len(np.unique(found)) <= FEW:
        return False
    return _skewness(found) > _TAIL > abs(_skewness(np.log(found)))


def _skewness(values: np.ndarray[Any, Any]) -> float:
    return float((((values - values.mean()) / values.std()) ** 3).mean())


def _numbers(name: str, raw: Raw) -> np.ndarray[Any, Any]:
    """What is observed of a column of numbers in any split."""
    found = np.concatenate([cells.numbers(name, cells.plain(part.x[name])) for part in raw.parts.values()])
    return found[~np.isnan(found)]


def _gaps(transform: TableTransform, masks: Mapping[str, Tensor | None]) -> list[str]:
    """How many cells of each column are missing, over all splits."""
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
        "they enter as 0, and losses and measures count observed cells alone"
    ]


def _binary(values: np.ndarray[Any, Any]) -> bool:
    """Whether the cells that are observed are zeros and ones, or booleans."""
    seen = values[cells.observed(values)]
    if seen.dtype.kind == "O":
        return len(seen) > 0 and all(isinstance(v, bool | np.bool_) for v in seen)
    return seen.dtype.kind in "biuf" and bool(np.isin(seen, (0, 1)).all())
