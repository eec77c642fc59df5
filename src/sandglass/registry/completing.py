"""Choices and options completed by their defaults, also those that are given in the form of an earlier version."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from sandglass.errors import ConfigError
from sandglass.registry.names import AUTO, entry, names, nearest, schema


def expand(kind: str, choice: str | Mapping[str, Any]) -> dict[str, Any]:
    """A choice such as ``"mlp"`` or ``{"name": "mlp", "widths": [64]}`` with every option written out.

    Raises:
        ConfigError: an unknown name or option.
    """
    given = {"name": choice} if isinstance(choice, str) else dict(choice)
    if "name" not in given:
        raise ConfigError(f"A {kind} needs a 'name', one of: {', '.join(names(kind))}.")
    name = given.pop("name")
    if name == AUTO:
        return {"name": AUTO, **given}
    return {"name": name, **merged(kind, name, given)}


def merged(kind: str, name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The complete options of a name: ``given``, else the defaults.

    Raises:
        ConfigError: an unknown option.
    """
    known = {option.name: option for option in schema(kind, name)}
    given = moved(kind, name, given)
    for key in given:
        if key not in known:
            hint = nearest(key, list(known))
            raise ConfigError(f"The {kind} '{name}' has no option '{key}'.{hint} It has: {', '.join(known) or 'none'}.")
    values = {}
    for option in known.values():
        value = given.get(option.name, option.default)
        if value is inspect.Parameter.empty:
            raise ConfigError(f"The {kind} '{name}' needs the option '{option.name}'.")
        if option.kind is not None and isinstance(value, str | Mapping):
            value = expand(option.kind, value)
        values[option.name] = value
    return values


def moved_options(kind: str, name: str) -> dict[str, tuple[str, Any]]:
    """Options that have become those of a nested choice: its name, and their earlier default.

    Example:
        >>> moved_options("model", "vq-vae")["decay"]
        ('quantiser', 0.95)
    """
    known = {option.name for option in schema(kind, name)}
    found = getattr(entry(kind, name).make, "moved_options", {})
    return {key: where for key, where in found.items() if key not in known}


def moved(kind: str, name: str, given: Mapping[str, Any]) -> Mapping[str, Any]:
    """``given`` with its options that have become those of a nested choice put into it.

    Raises:
        ConfigError: an option is given both ways with different values, or beside an object that has its options
            already, or to a choice without a name.
    """
    there = {key: where for key, where in moved_options(kind, name).items() if key in given}
    if not there:
        return given
    known = {option.name: option for option in schema(kind, name)}
    rest = {key: value for key, value in given.items() if key not in there}
    for key, (choice, usual) in there.items():
        chosen, value = rest.get(choice, known[choice].default), _plainly(given[key])
        if not isinstance(chosen, str | Mapping):
            if value != _plainly(usual):
                raise ConfigError(f"The {choice} is an object, which has a {key} of its own: leave out {key}.")
            continue
        nested = {"name": chosen} if isinstance(chosen, str) else dict(chosen)
        of = known[choice].kind or ""
        if "name" not in nested:
            expand(of, nested)  # which says that it needs one
        if key in nested and _plainly(nested[key]) != value:
            own = _plainly(nested[key])
            raise ConfigError(
                f"The option {choice}.{key} is {own} and {key} is {value}: leave out {key}, its old name."
            )
        if key in {option.name for option in schema(of, nested["name"])} or value != _plainly(usual):
            nested.setdefault(key, given[key])
        rest[choice] = nested
    return rest


def _plainly(value: Any) -> Any:
    """A list for a tuple, which configurations do not have."""
    return list(value) if isinstance(value, tuple) else value
