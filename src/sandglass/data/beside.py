"""Unpaired sets that accompany the training set: another domain, or pictures without labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sandglass.data.dataset import Split
from sandglass.data.matching import Home, for_one, plain, read_other, with_options
from sandglass.data.preparing import Plan, as_splits, prepare
from sandglass.data.reading import is_folder
from sandglass.data.transform import Transform
from sandglass.errors import DataError, NotFoundError


@dataclass(frozen=True)
class Aside:
    """An unpaired set, read and split.

    Args:
        splits: its splits.
        transform: the transform applied to its examples.
        source: its path or name, None if it was passed as a Python object.
        notes: remarks on how it was read.
        bad: files that were left out, each with the reason.
    """

    splits: Mapping[str, Split]
    transform: Transform
    source: Any
    notes: tuple[str, ...]
    bad: tuple[tuple[str, str], ...]


def read_beside(
    sets: Mapping[str, Any], plan: Plan, pictured: dict[str, Any], cache: bool | None, model: Transform | None
) -> dict[str, Aside]:
    """Reads unpaired sets, each with its own transform and splits.

    Args:
        sets: sources by name, as for :func:`sandglass.load_data`, or the other domain of a folder.
        plan: options of preprocessing and splitting, the same as for the training set.
        pictured: further options for picture files.
        cache: whether to cache the decoded pictures of folders on disk.
        model: a trained model's transform, or None.

    Raises:
        DataError: a set that cannot be read, or that the model was not trained with.
        NotFoundError: no such file or folder.
    """
    found = {}
    for name, source in sets.items():
        if model is not None and name not in model.beside:
            if isinstance(source, Home):
                continue  # a folder of two domains, for a model trained on one
            known = ", ".join(model.beside) or "none"
            raise DataError(f"The model has no unpaired set '{name}'. It has: {known}.")
        try:
            found[name] = _read(name, source, plan, pictured, cache, None if model is None else model.beside[name])
        except NotFoundError as error:
            raise NotFoundError(f"The unpaired set '{name}': {error}") from error
        except DataError as error:
            raise DataError(f"The unpaired set '{name}': {error}{for_one(error, 'beside', name)}") from error
    return found


def _read(
    name: str, source: Any, plan: Plan, pictured: dict[str, Any], cache: bool | None, known: Transform | None
) -> Aside:
    size, fit, channels = (plan.size, plan.fit, plan.channels) if known is None else (None, None, None)
    options = {"size": size, "fit": fit, "channels": channels, "transform": known}
    source, own = with_options(source)
    if isinstance(source, Home):
        source, pictured = source.place, pictured | {"domain": source.domain}
    where, raw = read_other(source, options, pictured, own, cache if is_folder(source) else None)
    where = where if where is None or not own else {"source": where, **plain(own)}
    raw, transform = prepare(raw, plan, known, ("beside", name))
    return Aside(as_splits(raw, transform, {}), transform, where, raw.notes, raw.bad)
