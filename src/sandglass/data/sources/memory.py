"""Sources handed over in Python, or read whole: arrays, tables and map-style datasets."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sandglass.data.sources import arrays, tables
from sandglass.data.sources.images import shown
from sandglass.data.sources.raw import Part, Raw, number_classes
from sandglass.data.transform import ArrayTransform, ImageTransform, TableTransform, Transform
from sandglass.errors import DataError

Pairs = dict[str, tuple[Any, Any]]
"""For each split its examples and labels (or None)."""

_SPLITS = {"train": "train", "val": "validation", "valid": "validation", "validation": "validation", "test": "test"}
_X, _Y = ("x", "images", "data"), ("y", "labels", "targets")
_LARGEST = 2**36
_HARMLESS, _RATIO = 2**27, 200  # bytes that do no harm, and how much smaller than its arrays a larger file may be


def read_pairs(
    pairs: Pairs,
    *,
    size: tuple[int, int] | None = None,
    fit: str | None = None,
    channels: int | None = None,
    transform: Transform | None = None,
) -> Raw:
    """Splits of arrays, tensors or DataFrames, all of one kind.

    Args:
        pairs: the splits.
        size: height and width of pictures; also unfolds rows ``(N, C * H * W)``.
        fit: how pictures are brought to ``size``.
        channels: 1, 3 or 4.
        transform: one that is fitted already.

    Raises:
        DataError: arrays that cannot be understood, or do not fit ``transform``.
    """
    for split, (x, y) in pairs.items():
        if y is not None and len(y) != len(x):
            raise DataError(f"'{split}' has {len(x)} examples and {len(y)} labels; give one label an example.")
    pairs = {s: pair for s, pair in pairs.items() if s == "train" or len(pair[0])}
    labels, classes = number_classes({split: y for split, (_, y) in pairs.items()})
    first = pairs["train"][0]
    if hasattr(first, "columns"):
        frames = {s: tables.check_frame(x) for s, (x, _) in pairs.items()}
        notes = _beside(frames["train"], transform)
        return Raw({s: Part(f, labels[s]) for s, f in frames.items()}, None, classes, notes)
    if size is None and isinstance(transform, ImageTransform):
        unfold: tuple[int, int] | None = transform.size
        depth = transform.channels
    else:
        unfold, depth = size, channels or 1
    joined = _join({s: _unfold(x, unfold, depth) for s, (x, _) in pairs.items()})
    lengths = [len(x) for x, _ in pairs.values()]
    if transform is None:
        x, transform, notes = _understand(joined, size, fit, channels)
    else:
        x, notes = _obey(joined, transform), ()
    parts = {s: Part(part, labels[s]) for s, part in zip(pairs, torch.split(x, lengths), strict=True)}
    return Raw(parts, transform if isinstance(transform, ImageTransform) else None, classes, notes)


def read_dataset(dataset: Any, *, labels: bool) -> tuple[list[Any], Any]:
    """Examples and labels of a map-style ``torch.utils.data.Dataset``.

    Raises:
        DataError: items that are neither an example nor an example and its label.
    """
    if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
        raise DataError("The dataset cannot be indexed; give a map-style one, with __len__ and __getitem__.")
    items = [dataset[i] for i in range(len(dataset))]
    if not items:
        raise DataError("The dataset has no examples; give one that has.")
    if not isinstance(items[0], tuple | list):
        return items, None
    if len(items[0]) < 2:
        return [item[0] for item in items], None
    y = [item[1].item() if isinstance(item[1], Tensor) and item[1].numel() == 1 else item[1] for item in items]
    return [item[0] for item in items], y if labels else None


def stack(found: list[Any]) -> Any:
    """Examples of one shape as one array or tensor.

    Raises:
        DataError: several shapes.
    """
    tensors = isinstance(found[0], Tensor)
    shapes = sorted({tuple(np.shape(x)) for x in found})
    if len(shapes) > 1:
        raise DataError(f"The examples have {len(shapes)} shapes, such as {shapes[0]} and {shapes[1]}; give them one.")
    x = torch.stack(found) if tensors else torch.from_numpy(np.stack([arrays.plain(x) for x in found]))
    if x.ndim == 3:
        return x[:, None]  # items of two axes are grey pictures, however many there are
    return x if tensors else x.numpy()


def read_numpy(path: Path, labels: Any) -> Pairs:
    """Splits from a ``.npy`` or ``.npz`` file.

    In an archive ``x`` (or ``images``, ``data``, or the first array) are the examples and ``y`` (``labels``,
    ``targets``) their classes; ``x_train``, ``y_test``, ``val_images`` and the like name splits.

    Raises:
        DataError: not such a file, one that needs pickle, or one larger than memory can be.
    """
    name = shown(path.name)
    try:
        if path.suffix.lower() == ".npy":
            return {"train": (np.load(path, mmap_mode="r", allow_pickle=False), None)}
        _check_npz(path)
        with np.load(path, allow_pickle=False) as archive:
            found = {key: archive[key] for key in archive.files}
    except DataError:
        raise
    except (ValueError, OSError, EOFError, MemoryError, zipfile.BadZipFile, KeyError) as error:
        raise DataError(f"{name} cannot be read as NumPy data: {' '.join(str(error).split())}.") from error
    if not found:
        raise DataError(f"{name} holds no array; save the examples as 'x'.")
    pairs = _named(found)
    if isinstance(labels, str) and labels in found:
        pairs = {"train": (pairs["train"][0], found[labels])}
    return pairs


def _check_npz(path: Path) -> None:
    """Judges an archive of arrays by what it declares, before one of them is made.

    Raises:
        DataError: more than memory can hold, so much more than the file has that it must be a trap, or an array larger
            than what is there of it.
    """
    name, packed = shown(path.name), path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        size = sum(entry.file_size for entry in archive.infolist())
        if size > _LARGEST:
            raise DataError(f"{name} unpacks to {size / 2**30:.0f} GiB; split it into smaller files.")
        if size > max(_HARMLESS, _RATIO * packed):
            raise DataError(
                f"{name} has {packed / 2**20:.1f} MiB and would unpack to {size / 2**20:,.0f} MiB, as only traps do; "
                "if you trust it, save its arrays as .npy files."
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
    """Sorts the arrays of an archive into splits by their names."""
    roles: dict[tuple[str, str], Any] = {}
    for key, value in found.items():
        words = set(key.lower().split("_"))
        split = next((_SPLITS[w] for w in words if w in _SPLITS), "train")
        role = "x" if words & set(_X) else "y" if words & set(_Y) else ""
        if role:
            roles.setdefault((split, role), value)
    if ("train", "x") not in roles:
        roles["train", "x"] = next(v for v in found.values() if v is not roles.get(("train", "y")))
    splits = [s for s in ("train", "validation", "test") if (s, "x") in roles]
    return {s: (roles[s, "x"], roles.get((s, "y"))) for s in splits}


def name_splits(source: Mapping[str, Any]) -> Pairs:
    """Splits from a mapping: ``{"train": (x, y), "test": x}``.

    Raises:
        DataError: no ``"train"``, or a name that is no split.
    """
    pairs: Pairs = {}
    for key, value in source.items():
        if str(key) not in _SPLITS:
            raise DataError(f"'{key}' is no split; name them train, validation and test.")
        pairs[_SPLITS[str(key)]] = value if isinstance(value, tuple) and len(value) == 2 else (value, None)
    if "train" not in pairs:
        raise DataError(f"The splits {', '.join(pairs) or '(none)'} lack 'train'; name one so.")
    return pairs


def _unfold(x: Any, size: tuple[int, int] | None, channels: int) -> Any:
    """Rows ``(N, C * H * W)`` to pictures, where a size was asked for."""
    if size is None or np.ndim(x) != 2:
        return x
    shape = (len(x), channels, *size)
    if np.shape(x)[1] != np.prod(shape[1:]):
        raise DataError(
            f"Rows of {np.shape(x)[1]} numbers are no pictures of {channels}x{size[0]}x{size[1]}; check size."
        )
    return torch.from_numpy(np.array(arrays.plain(x), order="C").reshape(shape))


def _join(xs: dict[str, Any]) -> Any:
    """All splits as one, so that they are understood in one way."""
    first = next(iter(xs.values()))
    if len(xs) == 1:
        return first
    plain = {s: arrays.plain(x, f"'{s}'") for s, x in xs.items()}
    looks = {s: (x.dtype.kind, x.shape[1:]) for s, x in plain.items()}
    for split, look in looks.items():
        if look != looks["train"]:
            raise DataError(
                f"'{split}' has {plain[split].dtype} examples of shape {look[1]}, 'train' "
                f"{plain['train'].dtype} of {looks['train'][1]}; give all splits one type and shape."
            )
    joined = np.concatenate(list(plain.values()))
    return torch.from_numpy(joined) if isinstance(first, Tensor) else joined


def _understand(
    x: Any, size: tuple[int, int] | None, fit: str | None, channels: int | None
) -> tuple[Tensor, Transform | None, tuple[str, ...]]:
    """Examples as they are kept, their transform if it needs no fitting, and notes."""
    reading = arrays.read_array(x)
    found, notes = reading.x, reading.notes
    if reading.nature == "real" or found.ndim == 2:
        return found, None, notes
    natural = (int(found.shape[1]), tuple(int(n) for n in found.shape[2:]))
    binary = reading.nature == "binary"
    same = natural == (channels or natural[0], size or natural[1])
    transform = ImageTransform(
        size or natural[1],  # type: ignore[arg-type]
        channels or natural[0],
        fit or "crop",
        2 if binary else 256,
        continuous=reading.nature == "unit" and same,
    )
    if same:
        return found, transform, notes
    if reading.nature == "unit":
        notes = (*notes, "values in [0, 1] were rounded to 256 levels")
    notes = (*notes, f"{len(found)} pictures: brought from {natural[0]}x{natural[1][0]}x{natural[1][1]} "
             f"to {transform.channels}x{transform.size[0]}x{transform.size[1]} ({transform.fit})")  # fmt: skip
    return transform.apply(found.bool() if binary else found), transform, notes


def _obey(x: Any, transform: Transform) -> Tensor:
    """New data as a fitted transform wants it; tables and real arrays go through it later, with their own checks."""
    if isinstance(transform, TableTransform):
        if np.ndim(x) != 2:
            raise DataError(f"The model reads rows of {len(transform.columns)} columns; got an array {np.shape(x)}.")
        return torch.from_numpy(np.array(arrays.plain(x), np.float64, order="C"))
    array = arrays.plain(x)
    if array.ndim < 3:
        raise DataError(f"The model reads pictures or arrays of three axes; got an array {array.shape}.")
    if isinstance(transform, ArrayTransform):
        array = arrays.channels_first(array, tensor=isinstance(x, Tensor), real=True)
        return torch.from_numpy(np.array(array, np.float64, order="C"))
    reading = arrays.read_array(x)
    if reading.nature == "real":
        raise DataError(
            f"The model reads pictures of bytes or in [0, 1]; got values from {array.min():.4g} to {array.max():.4g}."
        )
    whole = reading.nature == "binary" and (array.dtype.kind in "bf" or getattr(transform, "levels", 256) == 2)
    return transform.apply(reading.x.bool() if whole else reading.x)


def _beside(frame: Any, transform: Transform | None) -> tuple[str, ...]:
    """What a trained model leaves out of a table."""
    if transform is None:
        return ()
    if not isinstance(transform, TableTransform):
        raise DataError(
            f"The model reads pictures or arrays; got a table with the columns {', '.join(frame.columns[:8])}."
        )
    known = {c["name"] for c in transform.columns}
    extra = [c for c in frame.columns if c not in known]
    return (f"columns that the model does not know were left out: {', '.join(extra)}",) if extra else ()
