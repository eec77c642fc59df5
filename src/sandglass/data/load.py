"""From anything a person has to a :class:`~sandglass.data.dataset.Dataset`."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sandglass.core import Spec
from sandglass.data.dataset import Dataset, Split
from sandglass.data.rows import Rows, common_store
from sandglass.data.sources import folders, images, memory, tables
from sandglass.data.sources.raw import Part, Raw
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
    cache: bool | None = None,
    transform: Transform | Mapping[str, Any] | None = None,
) -> Dataset:
    """Reads a source, fits the transform that suits it, and splits it.

    Args:
        source: a registered name (``"digits"``, ``"mnist"``); a folder of pictures, flat, with a folder a class, or
            with ``train``, ``validation`` and ``test`` at the top; one picture; a ``.npy``, ``.npz``, ``.csv`` or
            ``.tsv`` file; an array or tensor, ``(x, y)``, or ``{"train": (x, y), "test": ...}``; a pandas DataFrame;
            or a map-style ``torch.utils.data.Dataset``.
        labels: the name of a table's column (or of an array in an ``.npz``), an array ``(N,)``, or False to read none.
        name: for folders and titles; by default the source's own.
        size: of pictures, in pixels: ``64``, ``(H, W)`` or ``"HxW"``; needed where they differ.
        fit: how pictures come to that size: ``"crop"`` (default), ``"pad"`` or ``"stretch"``.
        channels: 1 (grey), 3 (RGB) or 4 (RGBA); by default 1 where every picture is grey, else 3.
        validation: share of the examples cut out for validation where the source has no such split; 0 for none.
        test: the same for testing; None stands for 0.1.
        seed: of the split, and of ``limit``.
        limit: keep this many examples to train on, chosen at random.
        cache: of a folder, whether to keep its decoded pictures on disk and read batches from there, so that they need
            not fit into memory; by default where they take more than 64 MiB.
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
    if cache and not (isinstance(source, str | os.PathLike) and Path(source).expanduser().is_dir()):
        raise ConfigError("cache keeps the decoded pictures of a folder; leave it out for other sources.")
    if transform is not None and (frame, fit, channels) != (None, None, None):
        raise ConfigError("size, fit and channels belong to the transform that is given; leave them out.")
    options = {"size": frame, "fit": fit, "channels": channels, "transform": transform}
    title, where, raw = _read(source, labels, options, cache)
    raw = _bring(raw, frame, fit, channels, transform)
    raw = _split(raw, validation, TEST if test is None else test, seed)
    if limit is not None and limit < len(raw.parts["train"]):
        keep = permutation(len(raw.parts["train"]), seed, "limit")[:limit].sort().values
        raw = replace(raw, parts={**raw.parts, "train": raw.parts["train"].take(keep)})
        raw = raw.noted(f"{limit} of the training examples were kept")
    raw, fitted = _fit(raw, transform)
    spec = fitted.spec(len(raw.classes))
    levels = fitted.levels if isinstance(fitted, ImageTransform) else 256
    order = [s for s in ("train", "validation", "test") if s in raw.parts]
    splits = {s: Split(p.x, p.y, levels, p.names) for s, p in raw.parts.items()}
    splits = {s: splits[s] for s in order}
    again: dict[str, Any] | None = None
    if where is not None and (labels is None or isinstance(labels, str | bool)):
        given = {
            "labels": labels, "name": name, "size": list(frame) if frame else None, "fit": fit, "channels": channels,
            "validation": validation, "test": test, "seed": seed, "limit": limit,
            "cache": cache, "transform": None if transform is None else transform.to_dict(),
        }  # fmt: skip
        usual = {"validation": 0.1, "seed": 0}
        again = {"source": where} | {k: v for k, v in given.items() if v != usual.get(k)}
    print_ = fingerprint(spec, splits, raw.classes)
    return Dataset(name or title, spec, fitted, splits, raw.classes, again, print_, raw.notes)


def fingerprint(spec: Spec, splits: Mapping[str, Split], classes: tuple[str, ...] = ()) -> str:
    """SHA-256 over the spec, the class names, and each split's name, types, shapes, examples and labels.

    Example:
        >>> a = {"train": Split(torch.zeros(2, 1, 2, 2, dtype=torch.uint8))}
        >>> len(fingerprint(Spec((1, 2, 2), "unit"), a))
        64
    """
    store = common_store([split.x for split in splits.values()])
    if store is None:
        return _digest(spec, splits, classes, _content)
    # Over many gigabytes this takes minutes: it is remembered by which rows of the file stand where.
    key = _digest(spec, splits, classes, lambda x: _content(x.index if isinstance(x, Rows) else x))
    return store.remember(key, lambda: _digest(spec, splits, classes, _content))


def _digest(
    spec: Spec,
    splits: Mapping[str, Split],
    classes: tuple[str, ...],
    content: Callable[[Tensor | Rows], Iterable[memoryview]],
) -> str:
    digest = hashlib.sha256(json.dumps([spec.to_dict(), list(classes)], sort_keys=True).encode())
    for name in sorted(splits):
        split = splits[name]
        for part, x in (("x", split.x), ("y", split.y)):
            if x is not None:
                digest.update(f"|{name}.{part} {x.dtype} {tuple(x.shape)} {split.levels}|".encode())
                for block in content(x):
                    digest.update(block)
    return digest.hexdigest()


def _content(x: Tensor | Rows) -> Iterator[memoryview]:
    """The bytes of all examples, in order."""
    for block in x.blocks() if isinstance(x, Rows) else [x]:
        yield block.contiguous().cpu().numpy().data.cast("B")


def _read(source: Any, labels: Any, options: dict[str, Any], cache: bool | None) -> tuple[str, str | None, Raw]:
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
        title = images.shown(path.stem if path.is_file() else path.name)
        return title, str(path), _read_path(path, labels, options, cache)
    if isinstance(source, Mapping) and not hasattr(source, "columns"):
        return "arrays", None, memory.read_pairs(_labelled(memory.name_splits(source), labels), **options)
    if isinstance(source, tuple) and len(source) == 2:
        return "arrays", None, memory.read_pairs(_labelled({"train": source}, labels), **options)
    if hasattr(source, "columns"):
        return "table", None, memory.read_pairs(_labelled({"train": (source, None)}, labels), **options)
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


def _read_path(path: Path, labels: Any, options: dict[str, Any], cache: bool | None) -> Raw:
    if path.is_dir():
        if isinstance(labels, str) or _is_labels(labels):
            raise ConfigError("A folder's labels are its class folders; leave labels out, or give False for none.")
        return folders.read_folder(path, labels=labels is not False, cache=cache, **_for_images(options))
    suffix = path.suffix.lower()
    if suffix in (".npy", ".npz"):
        pairs = memory.read_numpy(path, labels)
        return memory.read_pairs(_labelled(pairs, None if isinstance(labels, str) else labels), **options)
    if suffix in (".csv", ".tsv"):
        return memory.read_pairs(_labelled({"train": (tables.read_csv(path), None)}, labels), **options)
    if images.is_picture(path) and path.is_file():
        item = folders.Item(path, images.shown(path.name))
        return folders.read_items({"train": [item]}, **_for_images(options))
    raise DataError(
        f"{images.shown(path.name)} is no source; give a folder of pictures, a picture, .npy, .npz, .csv or .tsv file."
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
    pictures = isinstance(train.x, Tensor | Rows) and train.x.dim() == 4
    groups = duplicates(*(p.x for p in raw.parts.values())) if pictures else None
    if groups is not None:
        raw = raw.noted(*_copies(dict(zip(raw.parts, groups, strict=True))))
    wanted = {"validation": validation, "test": test}
    fractions = {s: f for s, f in wanted.items() if f > 0 and s not in raw.parts}
    if not fractions:
        return raw
    own = groups[list(raw.parts).index("train")] if groups is not None else None
    index = carve(len(train), fractions, seed, train.y, own)
    carved = {s: train.take(i) for s, i in index.items() if len(i)}
    missing = [s for s in fractions if s not in carved]
    if missing:
        raw = raw.noted(f"too few examples ({len(train)}) to cut out any for {' and '.join(missing)}")
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


def _fit(raw: Raw, transform: Transform | None) -> tuple[Raw, Transform]:
    """Fits what depends on the training examples, and takes every split through it."""
    if raw.transform is not None:
        return raw, raw.transform
    train = raw.parts["train"]
    if transform is not None:
        fitted = transform
        if hasattr(train.x, "columns") and not isinstance(fitted, TableTransform):
            raise DataError("The model does not read tables; give pictures or arrays.")
    elif hasattr(train.x, "columns"):
        fitted = tables.fit_table(train.x, [p.x for p in raw.parts.values()])
        spread = sum(c["kind"] == "categorical" for c in fitted.columns)
        if spread:
            raw = raw.noted(f"{spread} column{'s' if spread > 1 else ''} one-hot")
    elif train.x.dim() == 2:
        fitted = tables.fit_table(train.x.numpy(), [p.x.numpy() for p in raw.parts.values()])
    else:
        values = train.x.numpy()
        fitted = ArrayTransform(tuple(values.shape[1:]), float(values.mean()), float(values.std()) or 1.0)
    parts = {s: Part(fitted.apply(p.x), p.y, p.names) for s, p in raw.parts.items()}
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
