"""The data of a run or model folder: reading the same data again, and preprocessing new data in the same way."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from sandglass.data.companions import read_named
from sandglass.data.dataset import Dataset
from sandglass.data.load import load_data
from sandglass.data.opening import Opened, Reading, Splitting
from sandglass.data.reading import is_unnamed
from sandglass.data.sources.raw import UnknownClassError
from sandglass.data.transform import Transform
from sandglass.errors import CheckpointError, ConfigError, DataError, NotFoundError, SandglassError
from sandglass.runs.load import config_of
from sandglass.runs.run import Run
from sandglass.runs.specification import from_plain

_SPLITTING = tuple(field.name for field in fields(Splitting))
_FITTED = ("size", "fit", "channels", "value_range", "types")  # what a transform fixes
_NAMING = ("labels", "labels_from_names")
_WHOLE = Splitting(validation=0.0, test=0.0)


def run_data(run: Run, place: Any = None, **changes: Any) -> Dataset:
    """The data that a run was trained on: what it still has in memory, else read again with the run's options.

    Args:
        run: the run.
        place: where the data is now, if it moved: a path, or the data as a Python object.
        changes: options of :func:`load_data` in place of the run's; companions (``given``) are added to the run's.

    Raises:
        NotFoundError: it is not where it was.
        DataError: it was passed as a Python object; pass it again.
        ConfigError: its options are invalid.
    """
    if place is None and run.data is not None:
        known: Dataset = run.data
        return known
    source = run.config["data"].get("source") or {}
    if place is None and not source:
        raise DataError(f"The data of {run.path} was passed as a Python object; pass it again as data=...")
    options = _options(run, changes, place)
    try:
        return _load(run, source["source"] if place is None else place, options)
    except (KeyError, TypeError, AttributeError) as error:
        raise _invalid(run, error) from error
    except NotFoundError as error:
        if place is not None:
            raise
        raise NotFoundError(
            f"The data of {run.path} cannot be read where it was: {str(error).split(' Known datasets')[0]} "
            "If it moved, name its new place: --data PLACE (in Python, data=PLACE)."
        ) from error


def _load(run: Run, place: Any, options: dict[str, Any]) -> Dataset:
    """The data with the run's classes, which count as classes whatever they are; if it has others now, with its own."""
    known = run.config.get("classes")
    if not known:
        return load_data(place, **options)
    try:
        data = load_data(place, **{"classes": known, **options})
    except UnknownClassError as unknown:
        try:
            return load_data(place, **{**options, "classes": None})
        except DataError:  # by themselves, its labels are no classes
            raise unknown from None
    if data.source is None or "classes" in options:
        return data
    return replace(data, source={k: v for k, v in data.source.items() if k != "classes"})


def _options(run: Run, changes: Mapping[str, Any], place: Any) -> dict[str, Any]:
    """The options of :func:`load_data` that a run was trained with, and changes to them; None is no change.

    What names the run's labels is left out for a place that has no such names.
    """
    source = run.config["data"].get("source") or {}
    options = {k: v for k, v in source.items() if k != "source"} if source else reading_of(run)
    if is_unnamed(place):
        options = {k: v for k, v in options.items() if k not in _NAMING or not isinstance(v, str)}
    new = {k: v for k, v in changes.items() if v is not None}
    if new.get("given"):
        given = (read_named("given", value) for value in (options.get("given"), new["given"]))
        new["given"] = {name: where for named in given for name, where in named.items()}
    return options | new


def _invalid(run: Run, error: Exception) -> ConfigError:
    return ConfigError(f"The data options in {run.path / 'config.yaml'} are invalid: {error}.")


@dataclass(frozen=True)
class Found:
    """The data that a command is to use.

    Args:
        data: the data.
        own: whether it is what the run was trained on, with the same splits.
        remark: if it is not, or has changed, how it differs, as a sentence.
    """

    data: Dataset
    own: bool
    remark: str = ""


def find_data(run: Run, data: Any = None, *, in_order: bool = False, **changes: Any) -> Found:
    """A run's own data, wherever it is now, or other data, preprocessed like it.

    A source is read with the run's transform and options. If its fingerprint is the run's, it is the run's data, with
    the same splits; else it is new data, all of it in one split unless it has splits of its own. It is read again for
    that only if the run has options that new data need not have, such as the labels.

    Args:
        run: the run.
        data: a :class:`~sandglass.data.dataset.Dataset`, or anything :func:`load_data` reads; by default the run's own.
        in_order: whether a source is taken like new data in any case, all of it and in its own order.
        changes: options of :func:`load_data` for it, such as ``labels``; None for the run's.

    Raises:
        NotFoundError, DataError, ConfigError: as :func:`load_data`.
    """
    if data is None or isinstance(data, Dataset):
        found = run_data(run) if data is None else data
        why = difference(found, run)
        changed = f"The data of {run.path} has changed since training: {why}."
        return Found(found, not why, changed if why and data is None else "")
    given = {k: v for k, v in changes.items() if v is not None}
    own = set(run.config["data"].get("source") or {}) - {"source", "name", "cache", *_FITTED, *_SPLITTING}
    shared = own <= {"transform", "classes", *given} - {"given"}
    opened: Opened | None = None
    try:
        opened, how = _opened(run, data, changes)
        found = opened.split(how)
        why = difference(found, run)
        if not why:
            found = opened.split(_WHOLE) if in_order else found
            return Found(replace(found, name=run.config["data"]["name"]), True)
    except SandglassError as error:
        if opened is None and shared:
            raise
        why = str(error).removesuffix(".")
    remark = f"{_named(data)} is not the data of {run.path}: {why}."
    new = opened.split(_WHOLE) if opened is not None and shared else new_data(reading_of(run), data, **changes)
    return Found(new, False, remark)


def _opened(run: Run, place: Any, changes: Mapping[str, Any]) -> tuple[Opened, Splitting]:
    """A source, read with a run's transform and options, and how the run's data was split.

    Raises:
        NotFoundError, DataError, ConfigError: as :func:`load_data`.
    """
    options = {k: v for k, v in _options(run, changes, place).items() if k not in (*_FITTED, "name")} | reading_of(run)
    how = {name: options.pop(name) for name in _SPLITTING if name in options}
    try:
        return Reading(**options).open(place), Splitting(**how)
    except (KeyError, TypeError, AttributeError) as error:
        raise _invalid(run, error) from error


def own_data(run: Run, place: Any = None) -> Dataset:
    """The data of a run, wherever it is now.

    Args:
        run: the run.
        place: where it is now; None for where it was; a :class:`~sandglass.data.dataset.Dataset` is returned unchanged.

    Raises:
        DataError: at ``place`` there is other data.
        NotFoundError: it is not where it was.
    """
    if isinstance(place, Dataset):
        return place
    data = run_data(run, place)
    if place is None:
        return data
    if why := difference(data, run):
        raise DataError(f"{_named(place)} is not the data of {run.path}: {why}.")
    return replace(data, name=run.config["data"]["name"])


def new_data(reading: Mapping[str, Any], source: Any, **changes: Any) -> Dataset:
    """New data, preprocessed and with classes numbered like a run's own, in one split unless it has several.

    Args:
        reading: see :func:`reading_of`.
        source: anything :func:`load_data` reads.
        changes: options of :func:`load_data` for it, such as ``labels``; None for the default.
    """
    given = {k: v for k, v in changes.items() if v is not None}
    return load_data(source, **{**reading, **given, "validation": 0.0, "test": 0.0})


def difference(data: Dataset, run: Run) -> str:
    """How data differs from what a run was trained on, as the end of a sentence; empty if it does not."""
    known = run.config["data"]
    if data.fingerprint == known["fingerprint"]:
        return ""
    counts, before = {s: len(part) for s, part in data.splits.items()}, dict(known["examples"])
    if sum(counts.values()) != sum(before.values()):
        total = sum(counts.values())
        return f"it has {total:,} example{'s' * (total != 1)}, the run had {sum(before.values()):,}"
    shape, wanted = data.spec.shape, from_plain(run.config["spec"]).shape
    if shape != wanted:
        return f"its examples are {'x'.join(map(str, shape))}, the run's {'x'.join(map(str, wanted))}"
    if list(data.classes) != list(run.config.get("classes") or ()):
        return f"its classes are {_listed(data.classes)}, the run's {_listed(run.config.get('classes') or ())}"
    if counts != before:
        return f"it is split into {_counted(counts)}, the run had {_counted(before)}"
    return "it has as many examples, but other values, labels or another order"


def transform_of(source: Run | str | Path) -> Transform:
    """The transform of a run or model folder; ``.given[name]`` is that of a companion.

    Raises:
        CheckpointError: the configuration is damaged.
    """
    config = config_of(source)
    path = source.path if isinstance(source, Run) else Path(source)
    try:
        transform, spec = Transform.from_dict(config["transform"]), from_plain(config["spec"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{path}: the configuration has no valid transform ({error}).") from error
    made = transform.spec()
    pairs = [("", made, spec)]
    for kind in ("given", "beside"):  # companions added in training, such as a corrupted copy, have no transform
        read = getattr(spec, kind)
        pairs += [(f" of '{n}'", one, read[n]) for n, one in getattr(made, kind).items() if n in read]
    for what, one, wanted in pairs:
        if one.shape != wanted.shape:
            raise CheckpointError(f"{path}: the transform{what} makes {one.shape}, the model reads {wanted.shape}.")
    return transform


def reading_of(source: Run | str | Path) -> dict[str, Any]:
    """The options of :func:`load_data` to read new data for a run or model folder: transform and classes.

    Derived companions are derived again; others must be given again as ``given``.
    """
    return {"transform": transform_of(source), "classes": config_of(source).get("classes") or None}


def as_dataset(data: Any, options: Mapping[str, Any] | None) -> Dataset:
    """Returns a dataset unchanged, and loads other sources with :func:`load_data`."""
    if isinstance(data, Dataset):
        return data
    if data is None:
        raise ConfigError("Say what to train on: a name from `sandglass datasets`, a folder, a file or an array.")
    return load_data(data, **(options or {}))


def _named(source: Any) -> str:
    return str(source) if isinstance(source, str | os.PathLike) else f"This {type(source).__name__}"


def _listed(names: Any) -> str:
    return ", ".join(map(str, [*names][:5])) + (", ..." if len(names) > 5 else "") or "none"


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{n:,} {split}" for split, n in counts.items())
