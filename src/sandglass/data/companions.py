"""What comes with each example: another picture of the same name, a half of the same file, a row, or what is derived.

Companions are read apart and laid beside the examples before these are split, so that pairs stay together.
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
from sandglass.errors import ConfigError, DataError, NotFoundError

RESERVED = ("x", "labels", "damaged")
"""Names that no companion may have: the example, its class, and the copy that training damages."""

PAIRED = "source"
"""What the companion is called that a source brings by its layout."""


def read_named(option: str, value: Any) -> dict[str, Any]:
    """Sources by name, from a mapping or from texts such as ``"source=edges/,grey=grey"``.

    Args:
        option: what messages call it.
        value: a mapping; a text with commas between, or several, each ``NAME=SOURCE``. A derivation alone is its name.

    Raises:
        ConfigError: a text that cannot be read so, or a name that cannot be.

    Example:
        >>> read_named("given", "source=edges/,grey,small=small=4")
        {'source': 'edges/', 'grey': 'grey', 'small': 'small=4'}
    """
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        words = value.split(",") if isinstance(value, str) else value
        if not isinstance(words, Iterable) or not all(isinstance(word, str) for word in words):
            raise ConfigError(f"{option} must be a mapping of names to sources, not a {type(value).__name__}.")
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
            why = f"{', '.join(RESERVED)} stand for something else" if name in RESERVED else "use letters, digits and _"
            raise ConfigError(f"{option} cannot have the name '{name}': {why}.")
    return {str(name): where for name, where in value.items()}


def home_of(source: Any, pairs: str | None) -> tuple[Home | None, Home | None]:
    """Where the examples of a source come from if that is pictures in files, and the companions that it brings itself.

    Args:
        source: what :func:`sandglass.load_data` takes.
        pairs: how it holds pairs; see there.

    Raises:
        ConfigError: no such way, or a source that does not hold pairs so.
    """
    if pairs is not None and pairs not in (*HALVES, "names"):
        raise ConfigError(f"pairs must be one of {', '.join(HALVES)} and names, not {pairs!r}.")
    place = reading.pictures_at(source)
    if place is None or (place.is_dir() and saved.is_saved(place)):
        if pairs is not None:
            raise ConfigError("pairs are of pictures in files: give a folder or an archive, or leave pairs out.")
        return None, None
    if pairs in HALVES:
        return Home(place, half=pairs), Home(place, half=HALVES[pairs])
    try:
        two = not place.is_file() or archives.is_archive(place)
        two = two and bool(layouts.domains(Home(place).folder))
    except OSError:  # of a folder that may not be entered: whoever reads it says so
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
    """A source with companions laid beside its examples.

    Args:
        raw: what was read.
        wanted: what is to come with it.

    Returns:
        The source, and in plain values where the companions come from, None where some were handed over in Python.

    Raises:
        ConfigError: an option that makes no sense.
        DataError: companions that cannot be read, or are not of these examples.
        NotFoundError: no such file or folder.
    """
    given = dict(wanted.given)
    if wanted.known is not None:
        for name in given:
            if name not in wanted.known:
                known = ", ".join(wanted.known) or "none"
                raise DataError(f"The model knows no companion '{name}' of its examples. It knows: {known}.")
        given |= {n: f"{t.made}=" if "=" not in t.made else t.made
                  for n, t in wanted.known.items() if t.made and n not in given}  # fmt: skip
        given |= {n: cs for n, cs in matching.known_columns(raw, wanted.known).items() if n not in given}
    for name in wanted.absent:
        if name not in given:
            raise ConfigError(f"absent speaks of '{name}', which is not among the companions that are given.")
    again: dict[str, Any] = {}
    whole = True
    for name, where in given.items():
        try:
            raw, place = _attach(raw, name, where, wanted)
        except NotFoundError as error:
            raise NotFoundError(f"The companion '{name}': {error}") from error
        except DataError as error:
            raise DataError(f"The companion '{name}': {error}") from error
        again[name] = place
        whole = whole and place is not None
    return raw, {name: place for name, place in again.items() if place != ""} if whole else None


def _attach(raw: Raw, name: str, where: Any, wanted: Wanted) -> tuple[Raw, Any]:
    """One companion; an empty text stands for a place that the source itself implies."""
    known = (wanted.known or {}).get(name)
    columns = matching.columns(raw, where)
    if derived.is_derived(where) and not columns:
        return _derive(raw, name, where, known)
    own = known.alone() if known is not None else None
    gone = wanted.absent.get(name)
    if columns:
        return matching.from_columns(raw, name, columns, matching.flags(gone, raw)), columns
    path = isinstance(where, str | os.PathLike)
    if path and reading.is_path(where):
        place = Path(where).expanduser()
        if not place.exists():
            raise NotFoundError(f"there is no file or folder '{images.shown(place)}'.")
        where = place.resolve()
    if wanted.home is not None:
        other = where if isinstance(where, Home) else Home(where) if isinstance(where, Path) else None
        if other is None or reading.pictures_at(other.place) is None:
            raise DataError(
                "of pictures in files, companions are pictures of equal names in another folder; "
                "give such a folder, or all of it as arrays."
            )
        if gone is not None:
            raise ConfigError(
                f"absent['{name}'] is for arrays; of pictures in files those are absent that are missing."
            )
        return matching.by_name(raw, name, wanted, other, own), "" if isinstance(where, Home) else str(where)
    again = str(where) if isinstance(where, Path) else where if path else None
    return matching.by_position(raw, name, where, wanted, own, gone), again


def _derive(raw: Raw, name: str, where: str, known: Transform | None) -> tuple[Raw, str]:
    """A companion that is made of the example."""
    if "=" not in where and Path(where).exists():
        raise DataError(
            f"'{where}' can be what is derived from a picture, and a file or folder here; "
            f"write './{where}' for this one, '{where}=' for the derivation."
        )
    derived.read(where)
    how = derived.spelt(where)
    if known is not None and known.made != how:
        own = f"has it by '{known.made}', not by" if known.made else "was given it, so that it cannot be made by"
        raise DataError(f"the model {own} '{how}'.")
    return replace(raw, made={**raw.made, name: how}), how if "=" in how else f"{how}="
