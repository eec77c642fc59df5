"""From anything a person has to a :class:`~sandglass.data.dataset.Dataset`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from sandglass.data.dataset import Dataset, Split
from sandglass.data.fingerprint import fingerprint
from sandglass.data.fitting import Types, read_types
from sandglass.data.reading import read
from sandglass.data.rows import Rows
from sandglass.data.sources import images, tables
from sandglass.data.sources.raw import Raw, as_known
from sandglass.data.splits import carve, duplicates
from sandglass.data.transform import FITS, ArrayTransform, ImageTransform, TableTransform, Transform
from sandglass.errors import ConfigError, DataError
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
    value_range: Sequence[float] | None = None,
    on_bad: Literal["skip", "stop"] = "skip",
    validation: float = 0.1,
    test: float | None = None,
    seed: int = 0,
    limit: int | None = None,
    cache: bool | None = None,
    types: Mapping[str, str | Sequence[str]] | str | None = None,
    drop: Sequence[str] | str | None = None,
    groups: Any = None,
    transform: Transform | Mapping[str, Any] | None = None,
    classes: Sequence[str] | None = None,
) -> Dataset:
    """Reads a source, fits the transform that suits it, and splits it.

    Args:
        source: a registered name (``"digits"``), alone or with its options (``{"name": "shapes", "side": 64}``); a
            folder of pictures, flat, with a folder a class, or with ``train``, ``validation`` and ``test`` at the top;
            a zip or tar file of one; a saved Hugging Face dataset; one picture; a ``.npy``, ``.npz``, ``.csv``,
            ``.tsv``, ``.parquet`` or ``.feather`` file; an array or tensor, ``(x, y)``, or
            ``{"train": (x, y), "test": ...}``; a pandas DataFrame; or a map-style ``torch.utils.data.Dataset``.
        labels: the name of a table's column (or of an array in an ``.npz``), an array ``(N,)``, or False to read none.
        name: for folders and titles; by default the source's own.
        size: of pictures, in pixels: ``64``, ``(H, W)`` or ``"HxW"``; needed where they differ.
        fit: how pictures come to that size: ``"crop"`` (default), ``"pad"`` or ``"stretch"``.
        channels: 1 (grey), 3 (RGB) or 4 (RGBA); by default 1 where every picture is grey, else 3.
        value_range: values that become black and white in grey pictures of floats or of more than 8 bits, such as
            ``(0, 4095)``; by default 0 and the largest that the file's depth allows for, and none for floats.
        on_bad: what to do with pictures that cannot be read: ``"skip"`` leaves them out and names them, ``"stop"``
            refuses the source.
        validation: share of the examples cut out for validation where the source has no such split; 0 for none.
        test: the same for testing; None stands for 0.1.
        seed: of the split, and of ``limit``.
        limit: keep this many examples to train on, chosen at random.
        cache: of a folder or archive of pictures, whether to keep them decoded on disk and read batches from there, so
            that they need not fit into memory; by default where they take more than 64 MiB.
        types: what columns of a table are, where their cells would be taken for something else: COLUMN=KIND with commas
            between, of the kinds numeric, positive, count, categorical, ordinal, boolean and date; COLUMN=S<M<L is an
            order.
        drop: columns of a table to leave out, with commas between.
        groups: the name of a table's column, or an array ``(N,)``; examples that agree in it stay in one split.
        transform: one that a trained model holds, to read new data as that model does.
        classes: the trained model's, so that labels get its numbers.

    Returns:
        The data. ``source`` in it holds what this function needs to make the same again, where a name or a path does.

    Raises:
        NotFoundError: no such file, folder or name.
        DataError: data that cannot be read, can be read in two ways, or does not fit ``transform`` or ``classes``.
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
    span = images.check_range(value_range)
    _check(fit, channels, on_bad, validation, test, limit, seed)
    if transform is not None and (frame, fit, channels, span) != (None, None, None, None):
        raise ConfigError("size, fit, channels and value_range belong to the transform that is given; leave them out.")
    if transform is not None and types is not None:
        raise ConfigError("The transform that is given knows the types of its columns; leave types out.")
    options = {"size": frame, "fit": fit, "channels": channels, "transform": transform}
    title, where, raw = read(source, labels, options, {"value_range": span, "on_bad": on_bad}, cache)
    raw = tables.arrange(as_known(raw, classes or ()), drop, groups)
    raw = _bring(raw, frame, fit, channels, transform)
    raw = _split(raw, validation, TEST if test is None else test, seed)
    if limit is not None and limit < len(raw.parts["train"]):
        keep = permutation(len(raw.parts["train"]), seed, "limit")[:limit].sort().values
        raw = replace(raw, parts={**raw.parts, "train": raw.parts["train"].take(keep)})
        raw = raw.noted(f"{limit} of the training examples were kept")
    raw, fitted = _fit(raw, transform, read_types(types))
    if span is not None and getattr(fitted, "value_range", None) is None:
        raise ConfigError("value_range is for files of pictures; bring an array into [0, 1] yourself.")
    spec = fitted.spec(len(raw.classes))
    levels = fitted.levels if isinstance(fitted, ImageTransform) else 256
    order = [s for s in ("train", "validation", "test") if s in raw.parts]
    splits = {
        s: Split(p.x, p.y, levels=levels, names=p.names, factors=p.factors, mask=p.mask)
        for s, p in ((s, raw.parts[s]) for s in order)
    }
    again: dict[str, Any] | None = None
    if where is not None and isinstance(labels, str | bool | None) and isinstance(groups, str | None):
        given = {
            "labels": labels, "name": name, "size": list(frame) if frame else None, "fit": fit, "channels": channels,
            "value_range": list(span) if span else None, "on_bad": on_bad,
            "validation": validation, "test": test, "seed": seed, "limit": limit, "cache": cache,
            "types": read_types(types) or None, "drop": list(drop) if isinstance(drop, list | tuple) else drop,
            "groups": groups,
            "transform": None if transform is None else transform.to_dict(),
            "classes": list(classes) if classes else None,
        }  # fmt: skip
        usual = {"validation": 0.1, "seed": 0, "on_bad": "skip"}
        again = {"source": where} | {k: v for k, v in given.items() if v != usual.get(k)}
    return Dataset(
        name or title,
        spec,
        fitted,
        splits,
        classes=raw.classes,
        source=again,
        fingerprint=fingerprint(spec, splits, raw.classes),
        notes=raw.notes,
        factors=raw.factors,
        bad=raw.bad,
        mixture=raw.mixture,
    )


def _bring(
    raw: Raw, size: tuple[int, int] | None, fit: str | None, channels: int | None, transform: Transform | None
) -> Raw:
    """A registered dataset's examples, which come with a transform of their own, to what was asked for."""
    old = raw.transform
    if old is None:
        return raw
    if not isinstance(old, ImageTransform):
        if (size, fit, channels) != (None, None, None):
            raise ConfigError("size, fit and channels are for pictures, and this dataset has none; leave them out.")
        if transform is None or transform == old:
            return raw
        parts = {s: replace(p, x=transform.apply(old.inverse(p.x))) for s, p in raw.parts.items()}
        return replace(raw, parts=parts, transform=transform, mixture=None)  # its centres stand elsewhere now
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
    own = train.groups if train.groups is not None else own
    index = carve(len(train), fractions, seed, train.y, own)
    carved = {s: train.take(i) for s, i in index.items() if len(i)}
    missing = [s for s in fractions if s not in carved]
    if missing:
        what = "examples" if train.groups is None else "groups"
        raw = raw.noted(
            f"too few {what} ({len(train)} example{'s' * (len(train) != 1)}) to cut out any for {' and '.join(missing)}"
        )
    return replace(raw, parts={**raw.parts, **carved})


def _copies(groups: dict[str, Tensor]) -> list[str]:
    """Remarks on exact copies within the training pictures, and on test pictures that are among them."""
    notes = []
    train = groups["train"]
    extra = len(train) - len(set(train.tolist()))
    if extra:
        which = "is an exact copy of another" if extra == 1 else "are exact copies of others"
        notes.append(f"{extra} of the training pictures {which}; copies stay in one split")
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


def _check(fit: Any, channels: Any, on_bad: Any, validation: Any, test: Any, limit: Any, seed: Any) -> None:
    if fit is not None and fit not in FITS:
        raise ConfigError(f"fit must be one of {', '.join(FITS)}, not {fit!r}.")
    if channels is not None and channels not in (1, 3, 4):
        raise ConfigError(f"channels must be 1, 3 or 4, not {channels!r}.")
    if on_bad not in ("skip", "stop"):
        raise ConfigError(f"on_bad must be skip or stop, not {on_bad!r}.")
    for what, share in (("validation", validation), ("test", 0.0 if test is None else test)):
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share < 1:
            raise ConfigError(f"{what} must be a share of the examples from 0 to below 1, not {share!r}.")
    if validation + (TEST if test is None else test) >= 1:
        raise ConfigError(f"validation {validation} and test {test} leave nothing to train on; make them smaller.")
    if limit is not None and (not isinstance(limit, int) or limit < 1):
        raise ConfigError(f"limit must be a whole number of at least 1, not {limit!r}.")
    if not isinstance(seed, int) or not math.isfinite(seed):
        raise ConfigError(f"seed must be a whole number, not {seed!r}.")


def _shape(transform: ImageTransform) -> str:
    return "x".join(map(str, transform.spec().shape))
