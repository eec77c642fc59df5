"""Names to classes, and signatures to options."""

from __future__ import annotations

import difflib
import functools
import importlib
import importlib.util
import inspect
import pkgutil
import sys
import traceback
import typing
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Any, TypeVar

from docstring_parser import parse

from sandglass.errors import ConfigError, NotFoundError

T = TypeVar("T")

_ROOMS = {
    "model": "sandglass.models",
    "net": "sandglass.nets",
    "likelihood": "sandglass.distributions",
    "posterior": "sandglass.distributions",
    "prior": "sandglass.distributions",
    "sampler": "sandglass.samplers",
    "quantiser": "sandglass.quantisers",
    "schedule": "sandglass.schedules",
    "dataset": "sandglass.data.sets",
    "metric": "sandglass.metrics",
    "task": "sandglass.tasks",
    "section": "sandglass.reports.sections",
    "logger": "sandglass.engine.loggers",
    "features": "sandglass.metrics.features",
}


AUTO = "auto"
"""The choice that suits the data: of the registered ones with ``natural(spec)``, that of highest ``priority``."""


@dataclass(frozen=True)
class Kind:
    """Marks an option whose value is a registered object."""

    name: str


@dataclass(frozen=True)
class OptionsOf:
    """Marks ``**options`` that are the options of another class, so that shared options are written once."""

    make: type


NetOption = Annotated[Any, Kind("net")]
LikelihoodOption = Annotated[Any, Kind("likelihood")]
PosteriorOption = Annotated[Any, Kind("posterior")]
PriorOption = Annotated[Any, Kind("prior")]
SamplerOption = Annotated[Any, Kind("sampler")]
QuantiserOption = Annotated[Any, Kind("quantiser")]
ScheduleOption = Annotated[Any, Kind("schedule")]


@dataclass(frozen=True)
class Entry:
    """A registered name: its class or function, and the options that the name presets."""

    name: str
    kind: str
    make: Callable[..., Any]
    preset: Mapping[str, Any]

    @property
    def summary(self) -> str:
        """The first line of its docstring, with the preset options if there are any."""
        same = [e.name for e in _entries.values() if e.kind == self.kind and e.make is self.make and not e.preset]
        if not self.preset and same[0] != self.name:
            return f"Another name of `{same[0]}`"
        first = (inspect.getdoc(self.make) or "").split("\n", 1)[0].rstrip(".")
        own = ", ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in self.preset.items())
        return f"{first} ({own})" if own else first


@dataclass(frozen=True)
class Option:
    """One option of a registered object, as needed for a flag, a YAML key or a form field."""

    name: str
    type: Any
    default: Any
    help: str
    kind: str | None = None

    @property
    def required(self) -> bool:
        """Whether it has no default."""
        return self.default is inspect.Parameter.empty


_entries: dict[tuple[str, str], Entry] = {}
_renamed = {("model", "capacity-vae"): "disentangled-beta-vae"}  # names of 0.1, in configurations that still train
_discovered: set[str] = set()
_imported: list[str] = []
_failed: dict[str, list[str]] = {}  # by kind, why entry points of packages could not be loaded


def register(name: str, kind: str = "model", **preset: Any) -> Callable[[T], T]:
    """Registers the decorated class or function as ``name``; ``preset`` are options that the name sets.

    Raises:
        ConfigError: the name is taken. A file or notebook cell may be run again.
    """

    def decorate(make: T) -> T:
        if kind in _ROOMS and getattr(make, "__module__", "").split(".")[0] != "sandglass":
            _import_room(kind)  # so that a name of Sandglass is known to be taken
        existing = _entries.get((kind, name))
        if existing is not None and not _same(existing.make, make):
            raise ConfigError(f"Two {kind}s are registered as '{name}'; give yours another name.")
        _entries[kind, name] = Entry(name, kind, make, preset)  # type: ignore[arg-type]
        return make

    return decorate


def _same(one: Any, other: Any) -> bool:
    """Whether a class or function is another one of an earlier run of the same file or notebook."""

    def file(make: Any) -> Any:
        return getattr(sys.modules.get(getattr(make, "__module__", "")), "__file__", None)

    if getattr(one, "__qualname__", "") != getattr(other, "__qualname__", ""):
        return False
    modules = [getattr(make, "__module__", "") for make in (one, other)]
    return modules[0] == modules[1] or (file(one) is not None and file(one) == file(other))


@functools.cache
def _import_room(kind: str) -> None:
    """Imports every module of the kind's package."""
    package = importlib.import_module(_ROOMS[kind])
    for module in pkgutil.iter_modules(package.__path__):
        if not module.name.startswith("_"):
            importlib.import_module(f"{package.__name__}.{module.name}")


def discover(kind: str) -> None:
    """Imports every module of the kind's package, and the entry points of other packages, once."""
    if kind in _discovered:
        return
    _discovered.add(kind)
    try:
        _import_room(kind)
    except BaseException:
        _discovered.discard(kind)  # so that the next call fails as well
        raise
    _failed[kind] = []
    for point in entry_points(group=f"sandglass.{kind.removesuffix('s')}s"):
        try:
            point.load()
        except Exception as error:
            of = f" of the package {point.dist.name}" if point.dist is not None else ""
            _failed[kind].append(f"The {kind} '{point.name}'{of} could not be imported: {_reason(error)}.")
            warnings.warn(_failed[kind][-1], stacklevel=2)


def import_file(path: str | Path) -> None:
    """Runs a Python file of one's own, which registers models, nets or metrics, as a module of its name.

    Only a person's own word may lead here, such as ``--import`` on the command line, never a configuration.

    Raises:
        NotFoundError: there is no such file.
        ConfigError: it is no Python file, has the name of another module, or fails; the message says in which line.
    """
    file = Path(path)
    if not file.is_file():
        raise NotFoundError(f"There is no file {file} to import.")
    name = file.stem
    if file.suffix != ".py" or not name.isidentifier():
        raise ConfigError(f"{file} cannot be imported: it must be a .py file whose name is a Python identifier.")
    known = getattr(sys.modules.get(name), "__file__", None)
    if known is not None and Path(known).resolve() == file.resolve():
        return
    if name in sys.modules or (importlib.util.find_spec(name) is not None and not _beside(name, file)):
        raise ConfigError(f"{file} cannot be imported: there is another module named {name}; rename the file.")
    spec = importlib.util.spec_from_file_location(name, file.resolve())
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    sys.path.insert(0, str(file.resolve().parent))  # it may import files next to it
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        sys.modules.pop(name, None)  # so that the next call fails as well
        if not isinstance(error, Exception | SystemExit):
            raise
        lines = [
            frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file.resolve())
        ]
        line = getattr(error, "lineno", None) if isinstance(error, SyntaxError) else lines[-1] if lines else None
        raise ConfigError(f"{file} cannot be imported{f', line {line}' if line else ''}: {_reason(error)}.") from error
    else:
        _imported.append(str(file.resolve()))
    finally:
        sys.path.remove(str(file.resolve().parent))


def imported_files() -> list[str]:
    """The files that were imported by :func:`import_file`, for other processes."""
    return list(_imported)


def _beside(name: str, file: Path) -> bool:
    """Whether the module that would be found by this name is this very file."""
    found = importlib.util.find_spec(name)
    return found is not None and found.origin is not None and Path(found.origin).resolve() == file.resolve()


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}".rstrip(".: ")


def origin(kind: str, name: str) -> str:
    """Where a name is registered: the file or package of someone else; empty for one of Sandglass.

    Example:
        >>> origin("model", "vae")
        ''
    """
    found = _entries.get((kind, name))
    module = sys.modules.get(getattr(found.make, "__module__", "")) if found is not None else None
    if module is None or module.__name__.split(".")[0] == "sandglass":
        return ""
    file, top = getattr(module, "__file__", None), module.__name__.split(".")[0]
    return Path(file).name if file and module.__name__ == top and Path(file).stem != "__init__" else top


def kinds() -> list[str]:
    """The kinds of objects that can be registered."""
    return list(_ROOMS)


def names(kind: str = "model") -> list[str]:
    """Every registered name of a kind, sorted."""
    discover(kind)
    return sorted(name for k, name in _entries if k == kind)


def entries(kind: str) -> list[Entry]:
    """All entries of a kind, in the order of registration."""
    discover(kind)
    return [found for found in _entries.values() if found.kind == kind]


def present(kind: str, name: str) -> str:
    """The name of today of what had another in an earlier version; any other name as it is.

    Example:
        >>> present("model", "capacity-vae"), present("model", "vae")
        ('disentangled-beta-vae', 'vae')
    """
    known = not isinstance(name, str) or (kind, name) in _entries  # a file may have anything as a name
    return name if known else _renamed.get((kind, name), name)


def entry(kind: str, name: str) -> Entry:
    """The entry of a name, or of the name that it had in an earlier version.

    Raises:
        ConfigError: an unknown name; the message suggests the nearest.
    """
    discover(kind)
    found = _entries.get((kind, present(kind, name))) if isinstance(name, str) else None
    if found is None:
        broken = next((f" {why}" for why in _failed.get(kind, ()) if f" '{name}'" in why), "")
        hint = broken or nearest(name, names(kind))
        raise ConfigError(f"There is no {kind} '{name}'.{hint} Known: {', '.join(names(kind))}.")
    return found


def schema(kind: str, name: str) -> tuple[Option, ...]:
    """The options of a registered name, from its signature, with preset values as defaults.

    Example:
        >>> [o.name for o in schema("likelihood", "gaussian")]
        ['scale', 'learn', 'bounded']
    """
    found = entry(kind, name)
    return signature(found.make, found.preset)


def signature(make: Callable[..., Any], preset: Mapping[str, Any] | None = None) -> tuple[Option, ...]:
    """The keyword options of a class or function: types and defaults from its signature, help from its docstring.

    Args:
        make: the class or function.
        preset: values that replace defaults of the signature.
    """
    hints = typing.get_type_hints(make.__init__ if inspect.isclass(make) else make, include_extras=True)
    helps = {p.arg_name: " ".join((p.description or "").split()) for p in parse(inspect.getdoc(make) or "").params}
    options: list[Option] = []
    for parameter in inspect.signature(make).parameters.values():
        name, hint = parameter.name, hints.get(parameter.name, Any)
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            shared = next(
                (mark.make for mark in getattr(hint, "__metadata__", ()) if isinstance(mark, OptionsOf)), None
            )
            own = {option.name for option in options}  # a default of its own replaces the shared one
            options += [option for option in signature(shared, preset) if option.name not in own] if shared else []
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
            continue
        kind = next((mark.name for mark in getattr(hint, "__metadata__", ()) if isinstance(mark, Kind)), None)
        default = (preset or {}).get(name, parameter.default)
        options.append(Option(name, hint, default, helps.get(name, ""), kind))
    return tuple(options)


def nearest(word: str, known: list[str]) -> str:
    """`` Did you mean '...'?`` for a misspelt word, or nothing."""
    close = difflib.get_close_matches(str(word), known, n=1)
    return f" Did you mean '{close[0]}'?" if close else ""
