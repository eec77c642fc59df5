"""Reads Hugging Face datasets saved to disk from their Arrow files; nothing in them is executed."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sandglass.data import cells
from sandglass.data.sources import contents, folders, memory, tables
from sandglass.data.sources.images import shown
from sandglass.data.sources.raw import SPLITS, Pairs, Raw, name_classes
from sandglass.errors import ConfigError, DataError, MissingPackageError

_LARGEST = 2**36  # bytes


def is_saved(folder: Path) -> bool:
    """Whether a folder is a saved dataset, or has one for each split."""
    return (folder / "dataset_dict.json").is_file() or all(
        (folder / name).is_file() for name in ("dataset_info.json", "state.json")
    )


def read_saved(
    folder: Path, labels: Any, options: dict[str, Any], pictured: dict[str, Any], image: str | None = None
) -> Raw:
    """Reads a dataset saved with ``save_to_disk``: its pictures, or its columns as a table.

    If it has pictures, the first column of pictures has the examples, and ``labels`` or the first ClassLabel column the
    labels; other columns are left out, with a note. Otherwise it is a table, and ``labels`` names a column.

    Args:
        folder: the folder.
        labels: the name of a column, None, or False for none.
        options: see :func:`sandglass.data.sources.memory.read_pairs`.
        pictured: further options of :func:`sandglass.data.sources.folders.read_items`.
        image: the name of the column of pictures; None for the first.

    Raises:
        ConfigError: labels that are not a name.
        DataError: damaged files, pictures that are not embedded, or unsupported columns.
        MissingPackageError: pyarrow or pandas is not installed.
    """
    if not isinstance(labels, str | bool | None):
        raise ConfigError("Name the column of labels of a saved dataset, or give False for none; not an array.")
    found = {split: _read_split(path) for split, path in _split_folders(folder).items()}
    features = found["train"][1]
    table = {split: part for split, (part, _) in found.items()}
    classes = {name: f["names"] for name, f in features.items() if _type(f) == "ClassLabel" and f.get("names")}
    pictures = [name for name, f in features.items() if _type(f) == "Image"]
    if isinstance(labels, str) and any(labels not in part.column_names for part in table.values()):
        raise DataError(f"{shown(folder.name)} has no column '{labels}' for labels. It has: {cells.listed(features)}.")
    if image is not None and image not in pictures:
        raise DataError(f"{shown(folder.name)} has no column '{image}' of pictures. It has: {cells.listed(pictures)}.")
    if pictures:
        column = image or pictures[0]
        chosen = labels if isinstance(labels, str) else None if labels is False else next(iter(classes), None)
        raw = _pictures(table, column, chosen, classes.get(chosen or "", ()), options | pictured)
        left = [n for n in features if n not in (column, chosen)]
        return raw.noted(f"other columns than pictures were left out: {cells.listed(left)}") if left else raw
    pairs: Pairs = {}
    for split, part in table.items():
        frame = _frame(part, folder)
        for name, texts in classes.items():
            frame[name] = [texts[int(v)] if v == v and v is not None and 0 <= v < len(texts) else None
                           for v in cells.plain(frame[name]).tolist()]  # fmt: skip
        pairs[split] = tables.take_labels(frame, labels) if isinstance(labels, str) else (frame, None)
    return memory.read_pairs(pairs, **options)


def _frame(table: Any, folder: Path) -> Any:
    try:
        return tables.to_frame(table, plain=True)
    except (ValueError, TypeError, KeyError) as error:  # such as strings that are not UTF-8
        raise DataError(f"{shown(folder.name)} is damaged: {' '.join(str(error).split())}.") from error


def _split_folders(folder: Path) -> dict[str, Path]:
    """The folder of each split; splits of other names are not read."""
    if not (folder / "dataset_dict.json").is_file():
        return {"train": folder}
    names = _json(folder / "dataset_dict.json").get("splits")
    if not isinstance(names, list):
        raise DataError(f"{shown(folder.name)}/dataset_dict.json is damaged: it lists no splits.")
    splits = {SPLITS[name]: folder / name for name in names if name in SPLITS}
    if "train" not in splits:
        raise DataError(
            f"{shown(folder.name)} has no split 'train', only {cells.listed(names)}; give one of its folders."
        )
    return splits


def _read_split(folder: Path) -> tuple[Any, Mapping[str, Any]]:
    """The Arrow table of one saved dataset, and its features by column."""
    try:
        import pyarrow
        from pyarrow import ipc
    except ImportError as error:
        raise MissingPackageError("Saved datasets need pyarrow: pip install 'sandglass-ml[tables]'.") from error
    name = shown(folder.name)
    files = _json(folder / "state.json").get("_data_files")
    features = _json(folder / "dataset_info.json").get("features") or {}
    listed = [str(f.get("filename")) for f in files if isinstance(f, dict)] if isinstance(files, list) else []
    if not listed or any(Path(f).name != f or f == ".." for f in listed):
        raise DataError(f"{name}/state.json is damaged: it does not list the files of its folder.")
    missing = [f for f in listed if not (folder / f).is_file()]
    if missing:
        raise DataError(f"{name} lacks the file {shown(missing[0])} that its state.json lists; save it again.")
    if sum((folder / f).stat().st_size for f in listed) > _LARGEST:
        raise DataError(f"{name} is over {_LARGEST / 2**30:.0f} GiB; save a part of it.")
    parts = []
    try:
        for file in listed:
            with pyarrow.memory_map(str(folder / file)) as source, ipc.open_stream(source) as stream:
                parts.append(stream.read_all())
        table = pyarrow.concat_tables(parts)
        table.validate(full=True)
    except (pyarrow.ArrowException, ValueError, OSError) as error:
        raise DataError(f"{name} cannot be read as a saved dataset: {' '.join(str(error).split())}.") from error
    if not table.num_rows:
        raise DataError(f"{name} has no rows; give at least one.")
    known = features if isinstance(features, dict) else {}
    return table, {c: known.get(c) or {} for c in table.column_names}


def _pictures(
    table: Mapping[str, Any], column: str, labels: str | None, classes: Sequence[str], options: dict[str, Any]
) -> Raw:
    """The pictures of each split, written to temporary files and read as from a folder."""
    with tempfile.TemporaryDirectory(prefix="sandglass-") as place:
        items = {}
        for split, part in table.items():
            y = part.column(labels).to_pylist() if labels else [None] * part.num_rows
            y = [None if classes and v == -1 else v for v in y]  # -1 means unlabelled
            values = (cell.as_py() for cell in part.column(column))
            title = f"{split} {{}}".format
            items[split] = contents.listed(values, y, split, Path(place), title, f" of '{column}'")
        raw = folders.read_items(items, **options)
    return name_classes(raw, classes)


def _type(feature: Any) -> str:
    return str(feature.get("_type", "")) if isinstance(feature, dict) else ""


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{shown(path.name)} cannot be read: {' '.join(str(error).split())}.") from error
    return found if isinstance(found, dict) else {}
