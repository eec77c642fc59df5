"""Companions of the examples: a picture of the same name, the other half of a file, a row, or a derived picture.

Companions are read separately and attached to the examples before splitting, so that pairs stay together.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from sandglass.data import derived, matching, reading
from sandglass.data.matching import Home, Wanted
from sandglass.data.sources import archives, images, layouts, saved
from sandglass.data.sources.framing import HALVES
from sandglass.data.sources.raw import Raw
from sandglass.data.transform import Transform
from sandglass.errors import ConfigError, DataError, NotFoundError, named_type
from sandglass.runs.storage import is_there, place_of

RESERVED = ("x", "labels", "damaged")
"""Names that companions cannot have: the example, its class, and the corrupted copy used in training."""

PAIRED = "source"
"""Name of the companion in a source that holds pairs."""


def read_named(option: str, value: Any) -> dict[str, Any]:
    """Parses sources by name, from a mapping or from strings such as ``"source=edges/,grey=grey"``.

    Args:
        option: name of the option, for messages.
        value: a mapping, a comma-separated string or a list of strings, each ``NAME=SOURCE``. A derivation without a
            name has its own as name.

    Raises:
        ConfigError: a string that cannot be parsed, or an invalid name.

    Example:
        >>> read_named("given", "source=edges/,grey,small=small=4")
        {'source': 'edges/', 'grey': 'grey', 'small': 'small=4'}
    """
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        words = value.split(",") if isinstance(value, str) else value
        if not isinstance(words, Iterable) or not all(isinstance(word, str) for word in words):
            raise ConfigError(f"{option} must be a mapping of names to sources, not {named_type(value)}.")
        pairs = [tuple(part.strip() for part in word.partition("=")) for word in words if word.strip()]
        value = {}
        for name, equals, where in pairs:
            where = where if equals else name if option == "given" and derived.is_derived(name) else ""
            if not where:
                raise ConfigError(f"{option} must be NAME=SOURCE, such as source=edges/, not '{name}{equals}'.")
            if name in value:
                raise ConfigError(f"{option} names '{name}' twice; name it once.")
            value[name] = where
    for name in value:
        if not str(name).isidentifier() or name in RESERVED:
            why = f"{', '.join(RESERVED)} are reserved" if name in RESERVED else "use letters, digits and _"
            raise ConfigError(f"{option} cannot have the name '{name}': {why}.")
    return {str(name): where for name, where in value.items()}


def home_of(source: Any, pairs: str | None) -> tuple[Home | None, Home | None]:
    """The location of a source's picture files and of the companions in the same source, each None if there are none.

    Args:
        source: as for :func:`sandglass.load_data`.
        pairs: as for :func:`sandglass.load_data`.

    Raises:
        ConfigError: an unknown value of ``pairs``, or a source without such pairs.
    """
    if pairs is not None and pairs not in (*HALVES, "names"):
        raise ConfigError(f"pairs must be one of {', '.join(HALVES)} or names, not {pairs!r}.")
    place = reading.pictures_at(source)
    if place is None or (place.is_dir() and saved.is_saved(place)):
        if pairs is not None:
            raise ConfigError("pairs needs picture files: give a folder or an archive, or leave pairs out.")
        return None, None
    if pairs in HALVES:
        return Home(place, half=pairs), Home(place, half=HALVES[pairs])
    try:
        two = not place.is_file() or archives.is_archive(place)
        two = two and bool(layouts.domains(Home(place).folder))
    except OSError:  # a folder without permission; reading it reports the error
        two = False
    if pairs == "names":
        if not two:
            raise ConfigError(
                f"pairs='names' is for a folder with trainA and trainB, which {images.shown(place)} is not; "
                f"pictures of equal names in another folder are given={{'{PAIRED}': FOLDER}} (--given {PAIRED}=FOLDER)."
            )
        return Home(place, domain="b"), Home(place, domain="a")
    return Home(place, domain="a" if two else ""), None


def attach(raw: Raw, wanted: Wanted) -> tuple[Raw, dict[str, Any] | None]:
    """Attaches companions to the examples of a source.

    Args:
        raw: the source.
        wanted: the companions to attach.

    Returns:
        The source, and the locations of the companions as plain values, None if some were passed as Python objects.

    Raises:
        ConfigError: an invalid option.
        DataError: companions that cannot be read, or do not match the examples.
        NotFoundError: no such file or folder.
    """
    given = dict(wanted.given)
    if wanted.known is not None:
        for name in given:
            if name not in wanted.known:
                known = ", ".join(wanted.known) or "none"
                raise DataError(f"The model has no companion '{name}'. It has: {known}.")
        given |= {n: f"{t.made}=" if "=" not in t.made else t.made
                  for n, t in wanted.known.items() if t.made and n not in given}  # fmt: skip
        given |= {n: cs for n, cs in matching.known_columns(raw, wanted.known).items() if n not in given}
    for name in wanted.absent:
        if name not in given:
            raise ConfigError(f"absent names '{name}', which is not a companion in given.")
    again: dict[str, Any] = {}
    whole = True
    for name, where in given.items():
        try:
            raw, place = _attach(raw, name, where, wanted)
        except NotFoundError as error:
            raise NotFoundError(f"The companion '{name}': {error}") from error
        except DataError as error:
            raise DataError(f"The companion '{name}': {error}{matching.for_one(error, 'given', name)}") from error
        again[name] = place
        whole = whole and place is not None
    return raw, {name: place for name, place in again.items() if place != ""} if whole else None


def _attach(raw: Raw, name: str, where: Any, wanted: Wanted) -> tuple[Raw, Any]:
    """Attaches one companion and returns its location; an empty string if the source implies it."""
    known = (wanted.known or {}).get(name)
    where, options = matching.with_options(where)
    columns = matching.columns(raw, where)
    files = wanted.home is not None and (isinstance(where, Home) or reading.pictures_at(where) is not None)
    if options and (columns or files or derived.is_derived(where)):
        kind = "is columns of the table" if columns else "is read as pictures or made from the examples"
        raise ConfigError(f"The companion '{name}' {kind}, so it has no {next(iter(options))} of its own.")
    if derived.is_derived(where) and not columns:
        return _derive(raw, name, where, known)
    own = known.alone() if known is not None else None
    gone = wanted.absent.get(name)
    if columns:
        return matching.from_columns(raw, name, columns, matching.flags(gone, raw)), columns
    path = isinstance(where, str | os.PathLike)
    if path and reading.is_path(where):
        place = place_of(where)
        if not place.exists():
            raise NotFoundError(f"there is no file or folder '{images.shown(place)}'.")
        where = place.resolve()
    if wanted.home is not None:
        other = where if isinstance(where, Home) else Home(where) if isinstance(where, Path) else None
        if other is None or reading.pictures_at(other.place) is None:
            raise DataError(
                "companions of picture files are pictures of the same names in another folder; "
                "give such a folder, or pass pictures and companions as arrays."
            )
        if gone is not None:
            raise ConfigError(
                f"absent['{name}'] is for arrays; companions of picture files are absent if their file is missing."
            )
        return matching.by_name(raw, name, wanted, other, own), "" if isinstance(where, Home) else str(where)
    again = str(where) if isinstance(where, Path) else where if path else None
    again = again if again is None or not options else {"source": again, **matching.plain(options)}
    return matching.by_position(raw, name, where, wanted, own, gone, options), again


def _derive(raw: Raw, name: str, where: str, known: Transform | None) -> tuple[Raw, str]:
    """Attaches a companion that is derived from the example."""
    if "=" not in where and is_there(where):
        raise DataError(
            f"'{where}' is ambiguous: a derivation, and a file or folder here; "
            f"write './{where}' for the file or folder, '{where}=' for the derivation."
        )
    derived.read(where)
    how = derived.spelt(where)
    if known is not None and known.made != how:
        own = f"derived by '{known.made}'" if known.made else "read from data"
        raise DataError(f"in training it was {own}; it cannot be derived by '{how}'.")
    return replace(raw, made={**raw.made, name: how}), how if "=" in how else f"{how}="
