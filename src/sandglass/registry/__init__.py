"""Names to classes: the signature is the configuration.

A class registers itself under a name, with a preset if the name is a variant. Configuration files, flags and forms are
drawn from its signature by :func:`schema`; :func:`build` turns a name and plain options into an object and refuses what
the signature does not have. Nothing is ever imported because a file names it: a name is looked up here or refused.

Example:
    >>> from sandglass.core import Spec
    >>> model = build("beta-vae", Spec((1, 8, 8), "unit"), latent_dim=2)
    >>> model.config["options"]["beta"]
    4.0
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import pkgutil
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Annotated, Any, TypeVar

import torch
from docstring_parser import parse

from sandglass.core import CAPABILITIES, Conditional, Likelihood, Model, Net, Schedule, Spec
from sandglass.errors import CapabilityError, ConfigError, SandglassError
from sandglass.registry.limits import Counter, is_own

T = TypeVar("T")

_ROOMS = {
    "model": "sandglass.models",
    "net": "sandglass.nets",
    "likelihood": "sandglass.distributions",
    "prior": "sandglass.distributions",
    "schedule": "sandglass.schedules",
    "dataset": "sandglass.data.sets",
    "metric": "sandglass.metrics",
    "logger": "sandglass.engine.loggers",
    "features": "sandglass.metrics.features",
}


AUTO = "auto"
"""A choice that the data makes: the first registered thing whose ``natural(spec)`` holds."""


@dataclass(frozen=True)
class Kind:
    """Marks an option whose value is itself a registered thing."""

    name: str


NetOption = Annotated[Net | str | Mapping[str, Any], Kind("net")]
LikelihoodOption = Annotated[Likelihood | str | Mapping[str, Any], Kind("likelihood")]
PriorOption = Annotated[Conditional | str | Mapping[str, Any], Kind("prior")]
ScheduleOption = Annotated[Schedule | str | Mapping[str, Any], Kind("schedule")]


@dataclass(frozen=True)
class Entry:
    """A registered name: what it makes, and the options that the name alone sets."""

    name: str
    kind: str
    make: Callable[..., Any]
    preset: Mapping[str, Any]

    @property
    def summary(self) -> str:
        """The first line of its docstring, or what distinguishes a preset from its class."""
        same = [e.name for e in _entries.values() if e.kind == self.kind and e.make is self.make and not e.preset]
        if not self.preset and same[0] != self.name:
            return f"Another name of `{same[0]}`"
        first = (inspect.getdoc(self.make) or "").split("\n", 1)[0].rstrip(".")
        own = ", ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in self.preset.items())
        return f"{first} ({own})" if own else first


@dataclass(frozen=True)
class Option:
    """One option of a registered thing, as a flag, a YAML key or a form field would show it."""

    name: str
    type: Any
    default: Any
    help: str
    kind: str | None = None


_entries: dict[tuple[str, str], Entry] = {}
_discovered: set[str] = set()


def register(name: str, kind: str = "model", **preset: Any) -> Callable[[T], T]:
    """Registers the decorated class or function as ``name``; ``preset`` are the options that this name sets."""

    def decorate(make: T) -> T:
        existing = _entries.get((kind, name))
        if existing is not None and getattr(existing.make, "__qualname__", "") != getattr(make, "__qualname__", ""):
            raise ConfigError(f"Two {kind}s are registered as '{name}'.")
        _entries[kind, name] = Entry(name, kind, make, preset)  # type: ignore[arg-type]
        return make

    return decorate


def discover(kind: str) -> None:
    """Loads every file of the kind's room, and what other installed packages offer, once."""
    if kind in _discovered:
        return
    _discovered.add(kind)
    package = importlib.import_module(_ROOMS[kind])
    for module in pkgutil.iter_modules(package.__path__):
        if not module.name.startswith("_"):
            importlib.import_module(f"{package.__name__}.{module.name}")
    for point in entry_points(group=f"sandglass.{kind.removesuffix('s')}s"):
        point.load()


def kinds() -> list[str]:
    """What can be registered, in the order of the rooms."""
    return list(_ROOMS)


def names(kind: str = "model") -> list[str]:
    """Every registered name of a kind, sorted."""
    discover(kind)
    return sorted(name for k, name in _entries if k == kind)


def entry(kind: str, name: str) -> Entry:
    """What stands behind a name.

    Raises:
        ConfigError: no such name; the message offers the nearest.
    """
    discover(kind)
    found = _entries.get((kind, name)) if isinstance(name, str) else None
    if found is None:
        raise ConfigError(f"There is no {kind} '{name}'.{nearest(name, names(kind))} Known: {', '.join(names(kind))}.")
    return found


def schema(kind: str, name: str) -> tuple[Option, ...]:
    """The options of a registered thing, from its signature, with the preset's values as defaults.

    Example:
        >>> [o.name for o in schema("likelihood", "gaussian")]
        ['scale', 'learn']
    """
    found = entry(kind, name)
    return signature(found.make, found.preset)


def signature(make: Callable[..., Any], preset: Mapping[str, Any] | None = None) -> tuple[Option, ...]:
    """The keyword options of a class or function: types and defaults from its signature, help from its docstring.

    Args:
        make: the class or function.
        preset: values that replace the signature's defaults.
    """
    hints = typing.get_type_hints(make.__init__ if inspect.isclass(make) else make, include_extras=True)
    helps = {p.arg_name: " ".join((p.description or "").split()) for p in parse(inspect.getdoc(make) or "").params}
    options = []
    for parameter in inspect.signature(make).parameters.values():
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
            continue
        name, hint = parameter.name, hints.get(parameter.name, Any)
        kind = next((mark.name for mark in getattr(hint, "__metadata__", ()) if isinstance(mark, Kind)), None)
        default = (preset or {}).get(name, parameter.default)
        options.append(Option(name, hint, default, helps.get(name, ""), kind))
    return tuple(options)


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
    """The options of a name with ``given`` laid over its defaults; the complete, plain configuration.

    Raises:
        ConfigError: an option that the signature does not have.
    """
    known = {option.name: option for option in schema(kind, name)}
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


def resolve(kind: str, choice: Any, *args: Any, spec: Spec | None = None) -> Any:
    """An object from a choice: a name, a mapping with a name and options, or an object already, which is returned.

    Args:
        kind: ``"net"``, ``"likelihood"``, ``"prior"``, ...
        choice: the choice.
        args: what the object is made from, such as the :class:`~sandglass.core.Spec`.
        spec: the data, which decides where the choice is ``"auto"``.

    Example:
        >>> resolve("net", {"name": "mlp", "widths": [32]}).widths
        (32,)
    """
    if not isinstance(choice, str | Mapping):
        return choice
    options = expand(kind, choice)
    if spec is not None:
        options = settle(kind, options, spec)
    name = options.pop("name")
    return _make(entry(kind, name), args, options)


def build(name: str, spec: Spec, /, **options: Any) -> Model:
    """A model of a registered name for data of this kind, weights at PyTorch's default initialisation.

    Args:
        name: see ``sandglass models``.
        spec: the data, from :func:`sandglass.load_data`.
        options: options of that model; a nested choice is a name, a mapping, or (for ``net``) an object of your own.

    Raises:
        ConfigError: an unknown name or option, a value that makes no sense, or more weights than there is memory for.

    Example:
        >>> build("vae", Spec((1, 28, 20), "unit"), latent_dim=8).sample(3).shape
        torch.Size([3, 1, 28, 20])
    """
    outline(name, spec, **options)
    return _build(name, spec, options)


def outline(name: str, spec: Spec, /, **options: Any) -> Model | None:
    """The same model without memory: its tensors have names, types and shapes, on the device ``meta``.

    Args:
        name: see :func:`build`.
        spec: the data.
        options: of that model.

    Returns:
        The model; None where it cannot be laid out so, as with parts of a person's own.

    Raises:
        ConfigError: an unknown name or option, or more weights than there is memory for.

    Example:
        >>> outline("vae", Spec((1, 28, 28), "unit"), latent_dim=2).device
        device(type='meta')
        >>> outline("vae", Spec((1, 28, 28), "unit"), net={"name": "mlp", "widths": [10**6, 10**6]})
        Traceback (most recent call last):
        sandglass.errors.ConfigError: The model 'vae' with these options needs ... GiB for its weights; ...
    """
    if any(is_own(value) for value in options.values()):
        return None
    counter = Counter(f"The model '{name}' with these options")
    try:
        # A constructor that draws on the CPU in spite of the device must not move the person's generator.
        with torch.random.fork_rng(devices=[]), counter, torch.device("meta"):
            return _build(name, spec, options)
    except ConfigError:
        raise
    except Exception:  # what a constructor computes with, a tensor without values may refuse; then build() will tell
        return None


def _build(name: str, spec: Spec, options: Mapping[str, Any]) -> Model:
    values = merged("model", name, options)
    for option in schema("model", name):
        if option.kind and isinstance(values[option.name], Mapping):
            values[option.name] = settle(option.kind, values[option.name], spec)
    model: Model = _make(entry("model", name), (spec,), values)
    model.config = {"name": name, "options": {k: _plain(v) for k, v in values.items()}}
    return model


def settle(kind: str, choice: Mapping[str, Any], spec: Spec) -> dict[str, Any]:
    """The choice with ``"auto"`` replaced by what is natural for the data.

    Example:
        >>> settle("net", {"name": "auto"}, Spec((1, 28, 28), "unit"))["name"]
        'conv'
    """
    if choice["name"] != AUTO:
        return dict(choice)
    rest = {k: v for k, v in choice.items() if k != "name"}
    discover(kind)
    for found in [e for e in _entries.values() if e.kind == kind]:  # as registered: a class before its other names
        natural = getattr(found.make, "natural", None)  # a prior or a schedule has none
        if natural is not None and not found.preset and natural(spec):
            return {"name": found.name, **merged(kind, found.name, rest)}
    raise ConfigError(f"No {kind} is natural for data of shape {spec.shape}; name one of: {', '.join(names(kind))}.")


def require(model: Model, capability: str) -> None:
    """Refuses a model that does not declare a capability, naming those that do.

    Raises:
        CapabilityError: it does not.
    """
    if capability in model.provides:
        return
    able = [n for n in names("model") if capability in entry("model", n).make.provides]  # type: ignore[attr-defined]
    raise CapabilityError(
        f"The model '{model.config['name']}' cannot '{capability}'. Models that can: {', '.join(able) or 'none'}."
    )


def require_masks(model: Model) -> None:
    """Refuses a model whose losses do not leave out missing values, naming those whose do.

    Raises:
        CapabilityError: it does not.
    """
    if model.masks:
        return
    able_ones = [n for n in names("model") if entry("model", n).make.masks]  # type: ignore[attr-defined]
    raise CapabilityError(
        f"The model '{model.config['name']}' cannot learn from data with missing values; fill them in first, or choose "
        f"one of: {', '.join(able_ones) or 'none'}."
    )


def able(name: str) -> tuple[str, ...]:
    """The capabilities that a model name declares."""
    provides = entry("model", name).make.provides  # type: ignore[attr-defined]
    return tuple(c for c in CAPABILITIES if c in provides)


def _make(found: Entry, args: tuple[Any, ...], options: Mapping[str, Any]) -> Any:
    try:
        return found.make(*args, **options)
    except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError, RuntimeError) as error:
        if isinstance(error, SandglassError) or "memory" in str(error):
            raise
        raise ConfigError(f"The {found.kind} '{found.name}' could not be built: {error}") from error


def _plain(value: Any) -> Any:
    """What a configuration file holds for a value; an object of a person's own is named, not stored."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return {"custom": type(value).__qualname__}


def nearest(word: str, known: list[str]) -> str:
    """`` Did you mean '...'?`` for a misspelt word, or nothing."""
    close = difflib.get_close_matches(str(word), known, n=1)
    return f" Did you mean '{close[0]}'?" if close else ""
