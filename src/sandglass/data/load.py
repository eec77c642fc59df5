"""Loads any supported source as a :class:`~sandglass.data.dataset.Dataset`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from sandglass.data.beside import read_beside
from sandglass.data.companions import PAIRED, attach, home_of, read_named
from sandglass.data.dataset import Dataset
from sandglass.data.fingerprint import fingerprint
from sandglass.data.fitting import read_types
from sandglass.data.matching import Home, Wanted
from sandglass.data.preparing import Plan, as_splits, prepare_all
from sandglass.data.reading import read
from sandglass.data.sources import axes, images, tables
from sandglass.data.sources.raw import as_known
from sandglass.data.splits import Fold
from sandglass.data.transform import FITS, TableTransform, Transform
from sandglass.errors import ConfigError, DataError

TEST = 0.1
"""Default fraction of the examples held out for testing if the source has no test split."""


def load_data(
    source: Any,
    *,
    labels: Any = None,
    labels_from_names: str | None = None,
    image: str | None = None,
    name: str | None = None,
    size: Any = None,
    fit: str | None = None,
    channels: int | None = None,
    channels_at: Literal["first", "last"] | None = None,
    value_range: Sequence[float] | None = None,
    on_bad: Literal["skip", "stop"] = "skip",
    validation: float = 0.1,
    test: float | None = None,
    fold: str | None = None,
    seed: int = 0,
    limit: int | None = None,
    cache: bool | None = None,
    types: Mapping[str, str | Sequence[str]] | str | None = None,
    drop: Sequence[str] | str | None = None,
    groups: Any = None,
    given: Mapping[str, Any] | Sequence[str] | str | None = None,
    absent: Mapping[str, Any] | None = None,
    beside: Mapping[str, Any] | Sequence[str] | str | None = None,
    pairs: Literal["left", "right", "top", "bottom", "names"] | None = None,
    transform: Transform | Mapping[str, Any] | None = None,
    classes: Sequence[str] | None = None,
) -> Dataset:
    """Reads a source, splits it and fits its transform.

    Args:
        source: a registered name (``"digits"``), alone or with its options (``{"name": "shapes", "side": 64}``); a
            folder of pictures, flat, with class folders, or with ``train``, ``validation`` and ``test`` folders; a zip
            or tar file of one; a saved Hugging Face dataset; one picture; a ``.npy``, ``.npz``, ``.csv``, ``.tsv``,
            ``.parquet`` or ``.feather`` file; an array or tensor, ``(x, y)``, or ``{"train": (x, y), "test": ...}``; a
            pandas DataFrame; or a dataset, with ``__len__`` and ``__getitem__``, or a list, of arrays, pictures,
            ``(x, y)`` or mappings. ``((x, y), (x2, y2))`` is training and test set, as Keras returns them.
        labels: the name of a table's column, of a key of a dataset's items, or of an array in an ``.npz``; for a folder
            of pictures, ``FILE`` or ``FILE:COLUMN``, a table of file names and classes, such as ``metadata.csv:label``;
            an array ``(N,)``; or False to read none.
        labels_from_names: for a folder of pictures, the pattern of file names with their class, such as
            ``{label}_*.jpg``; ``*`` and ``?`` stand for any characters.
        image: the key of the pictures or arrays in a dataset's items, or the column of pictures in a saved dataset.
        name: name for folders and titles; by default that of the source.
        size: size of pictures in pixels: ``64``, ``(H, W)`` or ``"HxW"``; required if they differ in size.
        fit: how pictures are resized: ``"crop"`` (default), ``"pad"`` or ``"stretch"``.
        channels: 1 (grey), 3 (RGB) or 4 (RGBA); by default 1 if every picture is grey, else 3. For arrays any number;
            it also decides which axis has them, if the shape has two readings.
        channels_at: whether the channels of an array of four dimensions come first, ``(N, C, H, W)``, or last, ``(N, H,
            W, C)``; by default decided by its shape.
        value_range: values mapped to black and white in arrays of pictures, and in grey pictures of floats or of more
            than 8 bits, such as ``(0, 4095)``; by default 0 and the largest value of the type or of the file's bit
            depth; required for pictures of floats.
        on_bad: what to do with pictures that cannot be read: ``"skip"`` leaves them out and lists them, ``"stop"``
            raises an error.
        validation: fraction of the examples held out for validation if the source has no such split; 0 for none.
        test: fraction held out for testing, likewise; None for the default of 0.1.
        fold: for cross-validation, the part held out for validation: ``"2/5"`` is the second of the five parts of
            the examples that are not held out for testing; none for no fold.
        seed: seed of the random split and of ``limit``.
        limit: number of training examples to keep, chosen at random.
        cache: whether to cache the decoded pictures of a folder or archive on disk and read batches from there, so
            that they need not fit into memory; by default if they take more than 64 MiB.
        types: kinds of table columns, if not to be inferred from their cells: comma-separated COLUMN=KIND, with the
            kinds numeric, positive, count, categorical, ordinal, boolean and date; COLUMN=S<M<L gives an order.
        drop: columns of a table to leave out, comma-separated.
        groups: the name of a table's column, or an array ``(N,)``; examples with equal values stay in one split.
        given: companions of each example, comma-separated NAME=SOURCE or a mapping: a folder of pictures of the same
            names (source=edges/); an array or table with a row for each example; a table's column, or several joined
            by + (tag=age+town); or a derivation from the picture (grey=grey, edges=edges=0.2, small=small=4).
        absent: for companions that are arrays or columns, booleans ``(N,)`` by name, True where an example has none.
        beside: additional sets that are not paired with the examples, comma-separated NAME=SOURCE or a mapping; sources
            as above, read without labels.
        pairs: how a folder holds pairs. "left", "right", "top" or "bottom": each file has two pictures side by side, of
            which this one is the example and the other its companion "source". "names": in a folder with trainA and
            trainB, B's pictures are the examples and A's of the same names their companions "source".
        transform: the transform of a trained model, to preprocess new data in the same way.
        classes: the class names of a trained model, to encode labels in the same way.

    Returns:
        The dataset. Its ``source`` holds the arguments to read the same data again if the source is a name or path.

    Raises:
        NotFoundError: no such file, folder or name.
        DataError: data that cannot be read, is ambiguous, or does not fit ``transform`` or ``classes``.
        ConfigError: an invalid option.
        MissingPackageError: an optional package is needed.

    Example:
        >>> data = load_data(np.random.default_rng(0).integers(0, 256, (50, 28, 20), np.uint8))
        >>> data.spec.shape, {split: len(part) for split, part in data.splits.items()}
        ((1, 28, 20), {'train': 40, 'validation': 5, 'test': 5})
    """
    if isinstance(transform, Mapping):
        transform = Transform.from_dict(transform)
    if isinstance(source, str) and not source.strip():  # an empty path would be the current folder
        raise DataError("The data has an empty name; give a name from `sandglass datasets`, a folder or a file.")
    frame, fold = _parse_size(size), None if fold == "none" else fold
    span = images.check_range(value_range)
    _check(fit, channels, on_bad, validation, test, limit, seed)
    axes.check_axis(channels_at)
    if transform is not None and (frame, fit, channels, span) != (None, None, None, None):
        raise ConfigError("size, fit, channels and value_range belong to the transform that is given; leave them out.")
    if fold and validation != 0.1:
        raise ConfigError("fold decides which examples are held out for validation; leave validation out.")
    if transform is not None and types is not None:
        raise ConfigError("The transform that is given fixes the types of its columns; leave types out.")
    plan = Plan(
        frame,
        fit,
        channels,
        validation,
        TEST if test is None else test,
        seed,
        limit,
        read_types(types),
        Fold.read(fold) if fold else None,
    )
    pictured = {"value_range": span, "on_bad": on_bad}
    home, own = home_of(source, pairs)
    sets = read_named("beside", beside)
    if home is not None and home.domain and pairs is None:
        sets = {"b": replace(home, domain="b")} | sets
    layout = {k: v for k, v in (("half", home.half), ("domain", home.domain)) if v} if home is not None else {}
    options = {"size": frame, "fit": fit, "channels": channels, "transform": _for_reading(transform)}
    named = {"labels_from_names": labels_from_names, "image": image}
    arrays = {"value_range": span, "channels_at": channels_at}
    title, where, raw = read(source, labels, options, pictured | layout, cache, arrays, **named)
    wanted = Wanted(
        _named(given, own, pairs, transform),
        read_named("absent", absent),
        home,
        {"size": frame, "fit": fit} | pictured,
        cache,
        None if transform is None else transform.given,
    )
    raw, others = attach(as_known(raw, classes or ()), wanted)
    raw = tables.arrange(raw, drop, groups)
    raw, fitted, companions = prepare_all(raw, plan, transform)
    if span is not None and getattr(fitted, "value_range", None) is None:
        raise ConfigError("value_range is for pictures in files and arrays; rows, tables and known datasets have none.")
    form = raw.forms.get("")
    if channels_at is not None and (form is None or len(form.layout) != 4):
        raise ConfigError("channels_at is for arrays of four dimensions; leave it out.")
    besides = read_beside(sets, plan, pictured, cache, transform)
    splits = {
        s: replace(p, beside={n: b.splits[s] for n, b in besides.items() if s in b.splits})
        for s, p in as_splits(raw, fitted, companions).items()
    }
    whole = replace(fitted, given=companions, beside={n: b.transform for n, b in besides.items()})
    spec = whole.spec(len(raw.classes))
    again = None
    python = others is None or bool(absent) or any(b.source is None for b in besides.values())
    if where is not None and not python and isinstance(labels, str | bool | None) and isinstance(groups, str | None):
        said = {
            "labels": raw.labels or labels, **named, "name": name, "size": list(frame) if frame else None, "fit": fit,
            "channels": channels, "channels_at": channels_at, "value_range": list(span) if span else None,
            "on_bad": on_bad, "validation": validation, "test": test, "fold": fold, "seed": seed, "limit": limit,
            "cache": cache,
            "types": plan.types or None, "drop": list(drop) if isinstance(drop, list | tuple) else drop,
            "groups": groups, "given": others or None, "pairs": pairs,
            "beside": {n: b.source for n, b in besides.items() if not isinstance(sets[n], Home)} or None,
            "transform": None if transform is None else transform.to_dict(),
            "classes": list(classes) if classes else None,
        }  # fmt: skip
        usual = {"validation": 0.1, "seed": 0, "on_bad": "skip"}
        again = {"source": where} | {k: v for k, v in said.items() if v != usual.get(k)}
    notes = [f"unpaired set '{n}': {note}" for n, b in besides.items() for note in b.notes]
    return Dataset(
        name or title,
        spec,
        whole if transform is None else transform,
        splits,
        classes=raw.classes,
        source=again,
        fingerprint=fingerprint(spec, splits, raw.classes),
        notes=(*raw.notes, *notes, *_left_out(transform, companions, besides)),
        factors=raw.factors,
        bad=(*raw.bad, *((f"{n}: {file}", why) for n, b in besides.items() for file, why in b.bad)),
        mixture=raw.mixture,
    )


def _named(given: Any, own: Home | None, pairs: str | None, model: Transform | None) -> dict[str, Any]:
    """The sources of companions by name, including that in the source itself."""
    named = read_named("given", given)
    if own is None:
        return named
    if PAIRED in named:
        raise ConfigError(f"pairs='{pairs}' already gives the companion '{PAIRED}'; use other names for others.")
    known = model is None or PAIRED in model.given  # else the model was trained on one picture of each pair
    return ({PAIRED: own} if known else {}) | named


def _left_out(model: Transform | None, given: Mapping[str, Any], beside: Mapping[str, Any]) -> list[str]:
    """Remarks on companions and unpaired sets that a trained model was trained with and this data lacks."""
    if model is None:
        return []
    notes = [
        f"the model was trained with a companion '{n}', which was not given" for n in model.given if n not in given
    ]
    return notes + [
        f"the model was trained with an unpaired set '{n}', which was not given"
        for n in model.beside
        if n not in beside
    ]


def _for_reading(transform: Transform | None) -> Transform | None:
    """The transform passed to a reader; only that of a table keeps its companions, which are columns of the table."""
    return transform if transform is None or isinstance(transform, TableTransform) else transform.alone()


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
    if channels is not None and (isinstance(channels, bool) or not isinstance(channels, int) or channels < 1):
        raise ConfigError(f"channels must be a whole number of at least 1, such as 3, not {channels!r}.")
    if on_bad not in ("skip", "stop"):
        raise ConfigError(f"on_bad must be skip or stop, not {on_bad!r}.")
    for what, share in (("validation", validation), ("test", 0.0 if test is None else test)):
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share < 1:
            raise ConfigError(f"{what} must be a fraction of the examples from 0 to below 1, not {share!r}.")
    if validation + (TEST if test is None else test) >= 1:
        raise ConfigError(f"validation {validation} and test {test} leave nothing to train on; make them smaller.")
    if limit is not None and (not isinstance(limit, int) or limit < 1):
        raise ConfigError(f"limit must be a whole number of at least 1, not {limit!r}.")
    if not isinstance(seed, int) or not math.isfinite(seed):
        raise ConfigError(f"seed must be a whole number, not {seed!r}.")
