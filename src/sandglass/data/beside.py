"""Sets that stand beside the examples without being paired with them: another domain, pictures without labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sandglass.data.dataset import Split
from sandglass.data.matching import Home
from sandglass.data.preparing import Plan, as_splits, prepare
from sandglass.data.reading import is_folder, read
from sandglass.data.transform import Transform
from sandglass.errors import DataError, NotFoundError


@dataclass(frozen=True)
class Aside:
    """A set beside, read and split.

    Args:
        splits: its own.
        transform: what its examples went through.
        source: where it is, None where it was handed over in Python.
        notes: on what was done to it.
        bad: files that were left out, and why.
    """

    splits: Mapping[str, Split]
    transform: Transform
    source: Any
    notes: tuple[str, ...]
    bad: tuple[tuple[str, str], ...]


def read_beside(
    sets: Mapping[str, Any], plan: Plan, pictured: dict[str, Any], cache: bool | None, model: Transform | None
) -> dict[str, Aside]:
    """Sets beside, each with a transform and splits of its own.

    Args:
        sets: by name their sources, as :func:`sandglass.load_data` takes them, or the other domain of a folder.
        plan: what they are to become, which is what the examples do.
        pictured: what else is of files of pictures.
        cache: whether folders are kept decoded on disk.
        model: a trained model's transform, or None.

    Raises:
        DataError: a set that cannot be read, or that the model does not know.
        NotFoundError: no such file or folder.
    """
    found = {}
    for name, source in sets.items():
        if model is not None and name not in model.beside:
            if isinstance(source, Home):
                continue  # a folder of two domains, for a model that knows only one
            known = ", ".join(model.beside) or "none"
            raise DataError(f"The model knows no set '{name}' beside its data. It knows: {known}.")
        try:
            found[name] = _read(name, source, plan, pictured, cache, None if model is None else model.beside[name])
        except NotFoundError as error:
            raise NotFoundError(f"The set '{name}' beside: {error}") from error
        except DataError as error:
            raise DataError(f"The set '{name}' beside: {error}") from error
    return found


def _read(
    name: str, source: Any, plan: Plan, pictured: dict[str, Any], cache: bool | None, known: Transform | None
) -> Aside:
    size, fit, channels = (plan.size, plan.fit, plan.channels) if known is None else (None, None, None)
    options = {"size": size, "fit": fit, "channels": channels, "transform": known}
    if known is not None:
        pictured = pictured | {"value_range": None}
    if isinstance(source, Home):
        source, pictured = source.place, pictured | {"domain": source.domain}
    _, where, raw = read(source, False, options, pictured, cache if is_folder(source) else None)
    raw, transform = prepare(raw, plan, known, ("beside", name))
    return Aside(as_splits(raw, transform, {}), transform, where, raw.notes, raw.bad)
