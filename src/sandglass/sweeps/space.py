"""The search space of a sweep: options with lists or ranges of values, and their syntax.

``lr=1e-4..1e-2`` is a range, ``latent_dim=2,8,32`` a list. A range with positive ends whose ratio is at least 100 is
searched on a log scale; a prefix ``log:`` or ``linear:`` sets the scale. Integer options have integer values.
"""

from __future__ import annotations

import itertools
import math
import re
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sandglass import registry
from sandglass.data.load import load_data
from sandglass.engine.options import Training
from sandglass.errors import ConfigError
from sandglass.registry import Option
from sandglass.runs.plain import strict_json

_LOG_FROM = 100  # ratio of the ends of a range from which it is searched on a log scale
_MOST = 100  # largest number of values of an integer range in a grid
_FORBIDDEN = {
    "training.seed": "a better seed is only luck; train the best settings again with several seeds",
    "training.threads": "it changes only the time",
    "training.device": "it changes only the time",
    "training.sheets": "it changes nothing that is trained",
    "training.minutes": "runs are compared after the same epochs",
    "training.watch": "a sweep uses the validation split",
}


@dataclass(frozen=True)
class Dimension:
    """A varied option: a list of choices, or a range.

    Args:
        name: dotted name, such as ``training.lr``, ``model.latent_dim`` or ``model.net.width``.
        choices: the values of a list; empty for a range.
        low: lower end of a range.
        high: upper end of a range.
        log: whether the range is searched on a log scale.
        whole: whether values are integers.

    Raises:
        ConfigError: fewer than two distinct choices, or an invalid range.

    Example:
        >>> Dimension("model.latent_dim", low=1, high=3, whole=True).grid()
        [1, 2, 3]
    """

    name: str
    choices: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    whole: bool = False

    def __post_init__(self) -> None:
        if self.choices:
            texts = [strict_json(choice) for choice in self.choices]
            if len(texts) < 2 or len(set(texts)) < len(texts):
                raise ConfigError(
                    f"To vary {self.short}, give at least two different values; set a single one as an option."
                )
        elif not self.low < self.high:
            raise ConfigError(f"The range of {self.short} must be increasing, not {self.low:g}..{self.high:g}.")
        elif self.log and self.low <= 0:
            raise ConfigError(f"The range of {self.short} must start above 0 on a log scale, not at {self.low:g}.")

    @property
    def short(self) -> str:
        """The name without its section."""
        return self.name.split(".", 1)[1].removesuffix(".name")

    @property
    def scale(self) -> str:
        """``"list"``, ``"log"`` or ``"linear"``."""
        return "list" if self.choices else "log" if self.log else "linear"

    def end(self, value: Any) -> Literal["lower", "upper", ""]:
        """The end of the search space that a value is at: an outer value of three or more, or the outer 5% of a range.

        Example:
            >>> Dimension("training.lr", low=1e-4, high=1e-2, log=True).end(9e-3)
            'upper'
            >>> Dimension("model.beta", choices=(1, 2, 4)).end(1), Dimension("model.beta", choices=(1, 2, 4)).end(2)
            ('lower', '')
        """
        low, high, at = self.low, self.high, value
        if self.choices:
            if len(self.choices) < 3 or not all(type(c) in (int, float) for c in self.choices):
                return ""
            low, high = min(self.choices), max(self.choices)
        if self.log:
            low, high, at = math.log(low), math.log(high), math.log(value)
        near = 0.0 if self.choices else 0.05 * (high - low)
        return "lower" if at <= low + near else "upper" if at >= high - near else ""

    def suggest(self, trial: Any) -> Any:
        """Samples a value with an Optuna trial."""
        if self.choices:
            texts = [strict_json(choice) for choice in self.choices]
            return self.choices[texts.index(trial.suggest_categorical(self.name, texts))]
        if self.whole:
            return trial.suggest_int(self.name, int(self.low), int(self.high), log=self.log)
        return trial.suggest_float(self.name, self.low, self.high, log=self.log)

    def stored(self, value: Any) -> Any:
        """A value as stored by Optuna."""
        return strict_json(value) if self.choices else value

    @property
    def is_finite(self) -> bool:
        """Whether it has few values: a list, or a short range of whole numbers."""
        return bool(self.choices) or (self.whole and not self.log and self.high - self.low < _MOST)

    def grid(self) -> list[Any]:
        """All values.

        Raises:
            ConfigError: there are too many.
        """
        if self.choices:
            return list(self.choices)
        if self.is_finite:
            return list(range(int(self.low), int(self.high) + 1))
        raise ConfigError(f"A grid needs a list of values for {self.short}, as in {self.short}=1,2,4; not a range.")

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        if self.choices:
            return {"choices": list(self.choices)}
        return {"low": self.low, "high": self.high, "log": self.log, "whole": self.whole}

    @classmethod
    def of(cls, name: str, values: Mapping[str, Any]) -> Dimension:
        """The inverse of :meth:`to_dict`."""
        given: dict[str, Any] = {k: tuple(v) if k == "choices" else v for k, v in values.items()}
        return cls(name, **given)


def product(space: Sequence[Dimension]) -> Iterator[dict[str, Any]]:
    """Every combination of the values of a grid, by name.

    Example:
        >>> [tuple(v.values()) for v in product([Dimension("a.x", (1, 2)), Dimension("a.y", ("u", "v"))])]
        [(1, 'u'), (1, 'v'), (2, 'u'), (2, 'v')]
    """
    for values in itertools.product(*(dimension.grid() for dimension in space)):
        yield {d.name: value for d, value in zip(space, values, strict=True)}


def written(option: Option, name: str, text: str, read: Callable[[str], Any]) -> Dimension:
    """Parses a dimension from a string.

    Args:
        option: the option, whose type determines whether values are integers.
        name: its dotted name.
        text: ``a,b,c``, ``a..b``, ``log:a..b`` or ``linear:a..b``; values that are lists are in brackets.
        read: parses a single value.

    Raises:
        ConfigError: it is neither a list nor a range.

    Example:
        >>> lr = Option("lr", float | None, None, "")
        >>> written(lr, "training.lr", "1e-4..1e-2", float).log
        True
        >>> written(lr, "training.lr", "0.1,0.2", float).choices
        (0.1, 0.2)
    """
    match = re.fullmatch(r"(?:(log|linear):)?\s*([^\s,:]+?)\s*\.\.\s*([^\s,:]+)", text)
    if match is None:
        if re.match(r"(log|linear):", text) or ".." in text:
            raise ConfigError(f"To vary {name.split('.', 1)[1]}, write a list a,b,c or a range a..b, not {text}.")
        return Dimension(name, tuple(read(part) for part in _parts(text)))
    return ranged(option, name, read(match[2]), read(match[3]), match[1])


def ranged(option: Option, name: str, low: Any, high: Any, scale: str | None = None) -> Dimension:
    """A dimension from the ends of a range.

    Raises:
        ConfigError: the ends are not numbers.
    """
    numbers = [isinstance(v, int | float) and not isinstance(v, bool) for v in (low, high)]
    if not all(numbers):
        raise ConfigError(
            f"A range of {name.split('.', 1)[1]} needs two numbers, not {low} and {high}; or write a list."
        )
    whole = _whole(option.type) and all(float(v).is_integer() for v in (low, high))
    if _whole(option.type) and not whole:
        raise ConfigError(f"{name.split('.', 1)[1]} is a whole number; the ends of {low}..{high} are not.")
    log = scale == "log" or (scale is None and low > 0 and high / low >= _LOG_FROM)
    kind = int if whole else float
    return Dimension(name, low=kind(low), high=kind(high), log=log, whole=whole)


def space_of(model: str, vary: Mapping[str, Any]) -> tuple[Dimension, ...]:
    """The dimensions of a sweep from Python values.

    Args:
        model: name of the model.
        vary: for each option a list of values, a ``(low, high)`` pair of numbers, or a string as on the command line.

    Raises:
        ConfigError: an unknown option, one that cannot be varied, or invalid values.

    Example:
        >>> [d.name for d in space_of("vae", {"lr": (1e-4, 1e-2), "latent_dim": [2, 8], "net": "mlp,conv"})]
        ['training.lr', 'model.latent_dim', 'model.net.name']
    """
    made = []
    for key, values in vary.items():
        name, option = place(model, key)
        if isinstance(values, str):
            made.append(written(option, name, values, _literal))
        elif isinstance(values, tuple) and len(values) == 2:
            made.append(ranged(option, name, *values))
        elif isinstance(values, Sequence):
            made.append(Dimension(name, tuple(values)))
        else:
            raise ConfigError(f"Vary {key} by a list of values or a (low, high) pair, not {values!r}.")
    return checked(made)


def checked(space: Sequence[Dimension]) -> tuple[Dimension, ...]:
    """Checks the dimensions of a sweep and returns them.

    Raises:
        ConfigError: no option, a duplicate option, or one that cannot be varied.
    """
    if not space:
        raise ConfigError("Give options to vary, such as --vary lr=1e-4..1e-2 or --vary latent_dim=2,8,32.")
    for k, dimension in enumerate(space):
        if dimension.name in [d.name for d in space[:k]]:
            raise ConfigError(f"{dimension.short} is varied twice; give all its values at once.")
        if dimension.name in _FORBIDDEN:
            raise ConfigError(f"A sweep cannot vary {dimension.short}: {_FORBIDDEN[dimension.name]}.")
        if dimension.name.startswith("data."):
            raise ConfigError(
                f"A sweep cannot vary {dimension.short}: runs on other data are evaluated on other examples, and "
                "their figures cannot be compared."
            )
    return tuple(space)


def place(model: str, key: str) -> tuple[str, Option]:
    """Resolves the name of an option, which may lack its section, to its dotted name and the option.

    Raises:
        ConfigError: there is no such option.
    """
    sections: dict[str, dict[str, Option]] = {
        "training": {o.name: o for o in registry.signature(Training)},
        "data": {o.name: o for o in registry.signature(load_data)},
        "model": {},
    }
    for option in registry.schema("model", model):
        if option.kind is None:
            sections["model"][option.name] = option
            continue
        sections["model"][f"{option.name}.name"] = Option(f"{option.name}.name", str, option.default, option.help)
        for name in registry.names(option.kind):
            for nested in registry.schema(option.kind, name):
                sections["model"].setdefault(f"{option.name}.{nested.name}", nested)
    for section, options in sections.items():
        for known in (key, f"{key}.name"):
            for full in (known, known.removeprefix(f"{section}.")):
                if full in options and key.split(".")[0] not in set(sections) - {section}:
                    return f"{section}.{full}", options[full]
    every = [name for options in sections.values() for name in options]
    raise ConfigError(f"There is no option '{key}' to vary.{registry.nearest(key, every)}")


def laid(config: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration with sections ``model`` (``name``, ``options``) and ``training``, updated with varied options.

    Example:
        >>> laid({"model": {"name": "vae", "options": {"beta": 1.0}}, "training": {}}, {"model.beta": 2.0})["model"]
        {'name': 'vae', 'options': {'beta': 2.0}}
    """
    options, training = dict(config["model"]["options"]), dict(config["training"])
    for name, value in sorted(values.items(), key=lambda item: not item[0].endswith(".name")):
        section, *path = name.split(".")
        if section == "training":
            training[path[0]] = value
        elif len(path) == 1:
            options[path[0]] = value
        else:
            standing = options.get(path[0])
            inner = {"name": standing} if isinstance(standing, str) else dict(standing or {})
            if path[1] == "name":  # the options of another choice do not apply
                options[path[0]] = inner if inner.get("name") == value else {"name": value}
            else:
                options[path[0]] = {**inner, path[1]: value}
    return {"model": {"name": config["model"]["name"], "options": options}, "training": training}


def _parts(text: str) -> list[str]:
    """Splits a list at commas outside brackets."""
    return [part.strip() for part in re.split(r",(?![^\[]*\])", text) if part.strip()]


def _literal(text: str) -> Any:
    """Parses a number, true, false, null, a list of these in brackets, or a string."""
    if text.startswith("[") and text.endswith("]"):
        return [_literal(part) for part in _parts(text[1:-1])]
    if text.lower() in ("true", "false", "null", "none"):
        return {"true": True, "false": False}.get(text.lower())
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _whole(hint: Any) -> bool:
    """Whether an option is an integer."""
    return int in (typing.get_args(hint) or (hint,)) and float not in (typing.get_args(hint) or (hint,))
