"""From anything a person has to a :class:`~sandglass.data.dataset.Dataset`."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sandglass.core import Spec
from sandglass.data.dataset import Dataset, Split
from sandglass.data.fitting import Types, read_types
from sandglass.data.sources import folders, images, memory, saved, tables
from sandglass.data.sources.raw import Raw
from sandglass.data.splits import carve, duplicates
from sandglass.data.transform import FITS, ArrayTransform, ImageTransform, TableTransform, Transform
from sandglass.errors import ConfigError, DataError, NotFoundError
from sandglass.registry import entry, names
from sandglass.rng import permutation

TEST = 0.1
"""Share of the examples that is kept for testing where the source has no test split and nothing else is said."""


def load_data(
    source: Any,
    *,
    labels: Any = None,
    name: str | None = None,
    size: Any = None,
    fit: str | None = None,
    channels: int | None = None,
    validation: float = 0.1,
    test: float | None = None,
    seed: int = 0,
    limit: int | None = None,
    types: Mapping[str, str | Sequence[str]] | str | None = None,
    drop: Sequence[str] | str | None = None,
    groups: Any = None,
    transform: Transform | Mapping[str, Any] | None = None,
) -> Dataset:
    """Reads a source, fits the transform that suits it, and splits it.

    Args:
        source: a registered name (``"digits"``, ``"mnist"``); a folder of pictures, flat, with a folder a class, or
            with ``train``, ``validation`` and ``test`` at the top; a saved Hugging Face dataset; one picture; a
            ``.npy``, ``.npz``, ``.csv``, ``.tsv``, ``.parquet`` or ``.feather`` file; an array or tensor, ``(x, y)``,
            or ``{"train": (x, y), "test": ...}``; a pandas DataFrame; or a map-style ``torch.utils.data.Dataset``.
        labels: the name of a table's column (or of an array in an ``.npz``), an array ``(N,)``, or False to read none.
        name: for folders and titles; by default the source's own.
        size: of pictures, in pixels: ``64``, ``(H, W)`` or ``"HxW"``; needed where they differ.
        fit: how pictures come to that size: ``"crop"`` (default), ``"pad"`` or ``"stretch"``.
        channels: 1 (grey), 3 (RGB) or 4 (RGBA); by default 1 where every picture is grey, else 3.
        validation: share of the examples cut out for validation where the source has no such split; 0 for none.
        test: the same for testing; None stands for 0.1.
        seed: of the split, and of ``limit``.
        limit: keep this many examples to train on, chosen at random.
        types: what columns of a table are, where their cells would be taken for something else: COLUMN=KIND with commas
            between, of the kinds numeric, categorical, ordinal, boolean and date; COLUMN=S<M<L gives an order.
        drop: columns of a table to leave out, with commas between.
        groups: the name of a table's column, or an array ``(N,)``; examples that agree in it stay in one split.
        transform: one that a trained model holds, to read new data as that model does.

    Returns:
        The data. ``source`` in it holds what this function needs to make the same again, where a name or a path does.

    Raises:
        NotFoundError: no such file, folder or name.
        DataError: data that cannot be read, can be read in two ways, or does not fit ``transform``.
        ConfigError: an option that makes no sense.
        MissingPackageError: an optional package is needed.

    Example:
        >>> data = load_data(np.random.default_rng(0).integers(0, 256, (50, 28, 20), np.uint8))
        >>> data.spec.shape, {split: len(part) for split, part in data.splits.items()}
        ((1, 28, 20), {'train': 40, 'validation': 5, 'test': 5})
    """
    if isinstance(transform, Mapping):
        transform = Transform.from_dict(transform)
    frame = _parse_size(size)
    _check(fit, channels, validation, test, limit, seed)
    if transform is not None and (frame, fit, channels) != (None, None, None):
        raise ConfigError("size, fit and channels belong to the transform that is given; leave them out.")
    if transform is not None and types is not None:
        raise ConfigError("The transform that is given knows the types of its columns; leave types out.")
    options = {"size": frame, "fit": fit, "channels": channels, "transform": transform}
    title, where, raw = _read(source, labels, options)
    raw = tables.arrange(raw, drop, groups)
    raw = _bring(raw, frame, fit, channels, transform)
    raw = _split(raw, validation, TEST if test is None else test, seed)
    if limit is not None and limit < len(raw.parts["train"]):
        keep = permutation(len(raw.parts["train"]), seed, "limit")[:limit].sort().values
        raw = replace(raw, parts={**raw.parts, "train": raw.parts["train"].take(keep)})
        raw = raw.noted(f"{limit} of the training examples were kept")
    raw, fitted = _fit(raw, transform, read_types(types))
    spec = fitted.spec(len(raw.classes))
    levels = fitted.levels if isinstance(fitted, ImageTransform) else 256
    order = [s for s in ("train", "validation", "test") if s in raw.parts]
    splits = {s: Split(p.x, p.y, levels, p.names, p.mask) for s, p in raw.parts.items()}
    splits = {s: splits[s] for s in order}
    again: dict[str, Any] | None = None
    if where is not None and isinstance(labels, str | bool | None) and isinstance(groups, str | None):
        given = {
            "labels": labels, "name": name, "size": list(frame) if frame else None, "fit": fit, "channels": channels,
            "validation": validation, "test": test, "seed": seed, "limit": limit,
            "types": read_types(types) or None, "drop": list(drop) if isinstance(drop, list | tuple) else drop,
            "groups": groups,
            "transform": None if transform is None else transform.to_dict(),
        }  # fmt: skip
        usual = {"validation": 0.1, "seed": 0}
        again = {"source": where} | {k: v for k, v in given.items() if v != usual.get(k)}
    print_ = fingerprint(spec, splits, raw.classes)
    return Dataset(name or title, spec, fitted, splits, raw.classes, again, print_, raw.notes)


def fingerprint(spec: Spec, splits: Mapping[str, Split], classes: tuple[str, ...] = ()) -> str:
    """SHA-256 over the spec, the class names, and each split's name, types, shapes, examples, labels and mask.

    Example:
        >>> a = {"train": Split(torch.zeros(2, 1, 2, 2, dtype=torch.uint8))}
        >>> len(fingerprint(Spec((1, 2, 2), "unit"), a))
        64
    """
    digest = hashlib.sha256(json.dumps([spec.to_dict(), list(classes)], sort_keys=True).encode())
    for name in sorted(splits):
        split = splits[name]
        for part, tensor in (("x", split.x), ("y", split.y), ("mask", split.mask)):
            if tensor is not None:
                digest.update(f"|{name}.{part} {tensor.dtype} {tuple(tensor.shape)} {split.levels}|".encode())
                digest.update(tensor.contiguous().cpu().numpy().data.cast("B"))
    return digest.hexdigest()


def _read(source: Any, labels: Any, options: dict[str, Any]) -> tuple[str, str | None, Raw]:
    """A short name, where to find it again (or None), and what was read."""
    if isinstance(source, str) and source in names("dataset"):
        raw = entry("dataset", source).make().read()
        if labels is False:
            raw = replace(raw, parts={s: replace(p, y=None) for s, p in raw.parts.items()}, classes=())
        return source, source, raw
    if isinstance(source, str | os.PathLike):
        path = Path(source).expanduser()
        if not path.exists():
            known = ", ".join(names("dataset"))
            raise NotFoundError(f"There is no file, folder or dataset '{images.shown(path)}'. Known datasets: {known}.")
        path = path.resolve()
        return images.shown(path.stem if path.is_file() else path.name), str(path), _read_path(path, labels, options)
    if isinstance(source, Mapping) and not hasattr(source, "columns"):
        return "arrays", None, memory.read_pairs(_labelled(memory.name_splits(source), labels), **options)
    if isinstance(source, tuple) and len(source) == 2:
        return "arrays", None, memory.read_pairs(_labelled({"train": source}, labels), **options)
    if hasattr(source, "columns"):
        pairs = {"train": (tables.as_frame(source), None)}
        return "table", None, memory.read_pairs(_labelled(pairs, labels), **options)
    if isinstance(source, Tensor | np.ndarray) or (isinstance(source, list) and source and not _is_image(source[0])):
        return "arrays", None, memory.read_pairs(_labelled({"train": (source, None)}, labels), **options)
    if hasattr(source, "__getitem__") and hasattr(source, "__len__"):
        found, y = memory.read_dataset(source, labels=labels is not False)
        y = labels if _is_labels(labels) else y
        title = type(source).__name__.lower()
        if _is_image(found[0]):
            return title, None, folders.read_items({"train": folders.from_pillow(found, y)}, **_for_images(options))
        return title, None, memory.read_pairs({"train": (memory.stack(found), y)}, **options)
    raise DataError(f"A {type(source).__name__} cannot be read; give a name, a path, an array, a table or a dataset.")


def _read_path(path: Path, labels: Any, options: dict[str, Any]) -> Raw:
    if path.is_dir():
        if saved.is_saved(path):
            return saved.read_saved(path, labels, options)
        if isinstance(labels, str) or _is_labels(labels):
            raise ConfigError("A folder's labels are its class folders; leave labels out, or give False for none.")
        return folders.read_folder(path, labels=labels is not False, **_for_images(options))
    suffix = path.suffix.lower()
    if suffix in (".npy", ".npz"):
        pairs = memory.read_numpy(path, labels)
        return memory.read_pairs(_labelled(pairs, None if isinstance(labels, str) else labels), **options)
    if suffix in tables.ENDINGS and path.is_file():
        table, notes = tables.read_file(path)
        return memory.read_pairs(_labelled({"train": (table, None)}, labels), **options).noted(*notes)
    if images.is_picture(path) and path.is_file():
        item = folders.Item(path, images.shown(path.name))
        return folders.read_items({"train": [item]}, **_for_images(options))
    raise DataError(
        f"{images.shown(path.name)} is no source; give a folder of pictures, a picture, or a file that ends in .npy, "
        f".npz, {', '.join(tables.ENDINGS)}."
    )


def _labelled(pairs: memory.Pairs, labels: Any) -> memory.Pairs:
    """The splits with the labels that were asked for."""
    if labels is None:
        return pairs
    if labels is False:
        return {s: (x, None) for s, (x, _) in pairs.items()}
    if isinstance(labels, str):
        if not all(hasattr(x, "columns") for x, _ in pairs.values()):
            raise DataError(
                f"labels='{labels}' names a column, but the source is no table; give the labels as an array."
            )
        return {s: tables.take_labels(x, labels) for s, (x, _) in pairs.items()}
    if len(pairs) > 1:
        raise DataError("The source has several splits; give each its labels, {'train': (x, y), ...}.")
    return {"train": (pairs["train"][0], labels)}


def _bring(
    raw: Raw, size: tuple[int, int] | None, fit: str | None, channels: int | None, transform: Transform | None
) -> Raw:
    """A registered dataset's pictures, which come with a transform of their own, to what was asked for."""
    old = raw.transform
    if not isinstance(old, ImageTransform):
        return raw
    new = transform
    if new is None:
        size, channels = size or old.size, channels or old.channels
        if (size, channels) == (old.size, old.channels):
            return raw
        new = ImageTransform(size, channels, fit or old.fit)
    if new == old:
        return raw
    if not isinstance(new, ImageTransform):
        raise DataError(
            f"The model reads rows or arrays of shape {new.spec().shape}; got pictures of {old.spec().shape}."
        )
    parts = {}
    for split, part in raw.parts.items():
        pictures = torch.from_numpy(old.inverse(part.x))
        pictures = pictures[:, None] if old.channels == 1 else pictures.movedim(-1, 1)
        parts[split] = replace(part, x=new.apply(pictures))
    note = f"pictures were brought from {_shape(old)} to {_shape(new)} ({new.fit})"
    return replace(raw, parts=parts, transform=new).noted(note)


def _split(raw: Raw, validation: float, test: float, seed: int) -> Raw:
    """Carves what the source lacks out of its training examples."""
    train = raw.parts["train"]
    pictures = isinstance(train.x, Tensor) and train.x.dim() == 4
    groups = duplicates(*(p.x for p in raw.parts.values())) if pictures else None
    if groups is not None:
        raw = raw.noted(*_copies(dict(zip(raw.parts, groups, strict=True))))
    wanted = {"validation": validation, "test": test}
    fractions = {s: f for s, f in wanted.items() if f > 0 and s not in raw.parts}
    if not fractions:
        return raw
    own = groups[list(raw.parts).index("train")] if groups is not None else None
    own = train.groups if train.groups is not None else own
    index = carve(len(train), fractions, seed, train.y, own)
    carved = {s: train.take(i) for s, i in index.items() if len(i)}
    missing = [s for s in fractions if s not in carved]
    if missing:
        what = "examples" if train.groups is None else "groups"
        raw = raw.noted(f"too few {what} ({len(train)} examples) to cut out any for {' and '.join(missing)}")
    return replace(raw, parts={**raw.parts, **carved})


def _copies(groups: dict[str, Tensor]) -> list[str]:
    """Remarks on exact copies within the training pictures, and on test pictures that are among them."""
    notes = []
    train = groups["train"]
    extra = len(train) - len(set(train.tolist()))
    if extra:
        notes.append(f"{extra} of the training pictures are exact copies of others; copies stay in one split")
    for split, other in groups.items():
        if split != "train" and (shared := int(torch.isin(other, train).sum())):
            notes.append(f"{shared} of the {split} pictures are also among those of train, as the source has them")
    return notes


def _fit(raw: Raw, transform: Transform | None, types: Types) -> tuple[Raw, Transform]:
    """Fits what depends on the training examples, and takes every split through it."""
    train = raw.parts["train"]
    table = hasattr(train.x, "columns") or (raw.transform is None and train.x.dim() == 2)
    if types and not hasattr(train.x, "columns"):
        raise ConfigError("types are of the columns of a table; this source has none.")
    if raw.transform is not None:
        return raw, raw.transform
    if transform is not None:
        fitted = transform
        if hasattr(train.x, "columns") and not isinstance(fitted, TableTransform):
            raise DataError("The model does not read tables; give pictures or arrays.")
    elif table:
        rows = {s: p.x if hasattr(p.x, "columns") else p.x.numpy() for s, p in raw.parts.items()}
        fitted = tables.fit_table(rows["train"], list(rows.values()), types)
    else:
        values = train.x.numpy()
        fitted = ArrayTransform(tuple(values.shape[1:]), float(values.mean()), float(values.std()) or 1.0)
    seen = {s: fitted.observe(p.x) for s, p in raw.parts.items()}
    if isinstance(fitted, TableTransform):
        masks = {s: mask for s, (_, mask) in seen.items()}
        raw = raw.noted(*tables.remarks(fitted, raw, masks, types, fresh=transform is None))
    parts = {s: replace(p, x=seen[s][0], mask=seen[s][1]) for s, p in raw.parts.items()}
    return replace(raw, parts=parts), fitted


def _parse_size(size: Any) -> tuple[int, int] | None:
    """``64``, ``"64"``, ``"48x64"`` or ``(48, 64)`` as height and width."""
    if size is None:
        return None
    values = size.lower().split("x") if isinstance(size, str) else [size] if np.ndim(size) == 0 else list(size)
    try:
        numbers = [int(v) for v in values]
        if any(float(v) != n for v, n in zip(values, numbers, strict=True)):
            raise ValueError
    except (TypeError, ValueError):
        numbers = []
    if len(numbers) not in (1, 2) or min(numbers) < 1:
        raise ConfigError(f"size must be pixels, such as 64, '48x64' or (48, 64) for height and width, not {size!r}.")
    return numbers[0], numbers[-1]


def _check(fit: Any, channels: Any, validation: Any, test: Any, limit: Any, seed: Any) -> None:
    if fit is not None and fit not in FITS:
        raise ConfigError(f"fit must be one of {', '.join(FITS)}, not {fit!r}.")
    if channels is not None and channels not in (1, 3, 4):
        raise ConfigError(f"channels must be 1, 3 or 4, not {channels!r}.")
    for what, share in (("validation", validation), ("test", 0.0 if test is None else test)):
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share < 1:
            raise ConfigError(f"{what} must be a share of the examples from 0 to below 1, not {share!r}.")
    if validation + (TEST if test is None else test) >= 1:
        raise ConfigError(f"validation {validation} and test {test} leave nothing to train on; make them smaller.")
    if limit is not None and (not isinstance(limit, int) or limit < 1):
        raise ConfigError(f"limit must be a whole number of at least 1, not {limit!r}.")
    if not isinstance(seed, int) or not math.isfinite(seed):
        raise ConfigError(f"seed must be a whole number, not {seed!r}.")


def _for_images(options: dict[str, Any]) -> dict[str, Any]:
    transform = options["transform"]
    if transform is not None and not isinstance(transform, ImageTransform):
        raise DataError(f"The model reads rows or arrays of shape {transform.spec().shape}; got pictures.")
    return options


def _shape(transform: ImageTransform) -> str:
    return "x".join(map(str, transform.spec().shape))


def _is_labels(labels: Any) -> bool:
    return labels is not None and not isinstance(labels, bool)


def _is_image(x: Any) -> bool:
    return hasattr(x, "convert") and hasattr(x, "getexif")
