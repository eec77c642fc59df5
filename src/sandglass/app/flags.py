"""The flags of ``train``, generated from the signatures of the model, of ``load_data`` and of the training options.

Values are parsed by jsonargparse according to the type in the signature. No flag or file can cause an import.
"""

from __future__ import annotations

import inspect
import json
import re
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from jsonargparse import ArgumentError, ArgumentParser, Namespace

from sandglass import registry
from sandglass.app.configure import DEFAULT_MODEL, Config, data_options, training_options
from sandglass.app.words import OWN, SWITCHES, Words
from sandglass.engine.options import STAGE_OPTIONS
from sandglass.errors import ConfigError
from sandglass.registry import AUTO, Option
from sandglass.runs.storage import is_there


class Flags:
    """The typed flags of one model and its nested choices.

    Args:
        model: name of the model.
        chosen: names of nested choices, such as ``{"net": "mlp"}``; others have the default of the signature.
    """

    def __init__(self, model: str, chosen: Mapping[str, str]) -> None:
        self.parser = ArgumentParser(prog="sandglass train", exit_on_error=False, allow_abbrev=False, add_help=False)
        self.options: dict[str, Option] = {}
        self.forms: dict[str, str] = {}
        self.shown: dict[str, list[tuple[str, Option]]] = {"data": [], "training": [], "model": []}
        self.model = model
        staging = {name: choice for name, choice in chosen.items() if name == "sampler"}
        self.stages = {stage.name: stage for stage in registry.declared(model, **staging).stages()}
        by_name = {option.name: option for option in training_options()}
        for option in by_name.values():
            if option.name != "stage":
                self.add("training", option)
        for stage in self.trained:
            for name in STAGE_OPTIONS:
                self.add_of_stage(stage, by_name[name])
        for option in data_options():
            self.add("data", option)
        for option in registry.schema("model", model):
            if option.kind is None:
                self.add("model", option)
                continue
            name = chosen.get(option.name) or _name_of(option.default)
            self.add_choice(option, name)

    def add(self, section: str, option: Option) -> None:
        """Adds an option under its dotted name and, if still unused, without its section."""
        key = f"{section}.{option.name}"
        self.options[key] = option
        self.forms[f"--{key}"] = key
        if "." not in option.name or section == "model":
            self.forms.setdefault(f"--{option.name}", key)
            self.forms.setdefault(f"--{option.name.replace('_', '-')}", key)
        self.shown[section].append((key, option))
        self.parser.add_argument(f"--{key}", type=option.type, default=None)

    @property
    def trained(self) -> list[str]:
        """The stages that are trained, which can have separate options."""
        return [name for name, stage in self.stages.items() if stage.phases]

    def add_of_stage(self, stage: str, option: Option) -> None:
        """Adds a training option of one stage: ``--stage.NAME.OPTION``."""
        key = f"training.stage.{stage}.{option.name}"
        self.options[key] = option
        for name in dict.fromkeys((option.name, option.name.replace("_", "-"))):
            self.forms[f"--stage.{stage}.{name}"] = self.forms[f"--training.stage.{stage}.{name}"] = key
        self.parser.add_argument(f"--{key}", type=option.type, default=None)

    def add_choice(self, option: Option, name: str) -> None:
        """Adds a nested choice and the options of the chosen name, or of all names with ``auto``."""
        assert option.kind is not None
        known = registry.names(option.kind)
        if name != AUTO:
            registry.entry(option.kind, name)  # raises for an unknown name, and suggests the nearest one
        about = f"{option.help} One of: {', '.join([*known, AUTO] if option.default == AUTO else known)}."
        self.add("model", Option(f"{option.name}.name", str, name, about))
        for form in forms(option.name):
            self.forms[form] = f"model.{option.name}.name"
        sources = [n for n in known if not registry.entry(option.kind, n).preset] if name == AUTO else [name]
        found: dict[str, tuple[Option, list[str]]] = {}
        for source in sources:
            for nested in registry.schema(option.kind, source):
                found.setdefault(nested.name, (nested, []))[1].append(source)
        for nested, having in found.values():
            help_ = f"({', '.join(having)}) {nested.help}" if name == AUTO else nested.help
            self.add("model", Option(f"{option.name}.{nested.name}", nested.type, nested.default, help_))

    def key(self, form: str) -> str:
        """The dotted key of an option.

        Raises:
            ConfigError: unknown option; the message suggests the nearest one.
        """
        if form in self.forms:
            return self.forms[form]
        if form.startswith("--stage."):
            raise ConfigError(self.no_stage_option(form))
        moved = registry.moved_options("model", self.model) if self.model else {}
        option = form.removeprefix("--").removeprefix("model.").replace("-", "_")
        if option in moved:
            raise ConfigError(f"There is no option {form} any more: it is --{moved[option][0]}.{option}.")
        dashed = [f for f in self.forms if "." in f or "_" not in f or f.replace("_", "-") not in self.forms]
        known = [*dashed, *OWN, *SWITCHES]
        hint = registry.nearest(form, known)
        raise ConfigError(f"There is no option {form}.{hint} `sandglass train --help` lists all options.")

    def no_stage_option(self, form: str) -> str:
        """The error message for an invalid option of a stage."""
        name, _, option = form.removeprefix("--stage.").partition(".")
        if name not in self.stages:
            hint = registry.nearest(name, list(self.stages))
            return f"The model '{self.model}' has no stage '{name}'.{hint} Its stages: {', '.join(self.stages)}."
        if name not in self.trained:
            return f"The stage '{name}' of '{self.model}' is fitted in closed form; it has no training options."
        hint = registry.nearest(option.replace("-", "_"), list(STAGE_OPTIONS))
        return f"A stage has no option '{option}'.{hint} It has: {', '.join(STAGE_OPTIONS)}."

    def read(self, settings: Sequence[tuple[str, str]]) -> Config:
        """The settings as a configuration layer.

        Raises:
            ConfigError: an unknown option, or a value of the wrong type.
        """
        words = []
        for form, value in settings:
            key = self.key(form)
            words.append(f"--{key}={_listed(value) if _is_list(self.options[key].type) else value}")
        try:
            found = self.parser.parse_args(words, defaults=False)
        except ArgumentError as error:
            raise ConfigError(self.explain(str(error), {self.key(f): f for f, _ in settings})) from error
        return _layer(found)

    def check(self, config: Config, where: str) -> None:
        """Checks the types of a layer from a file.

        Raises:
            ConfigError: a value of the wrong type.
        """
        model = config.get("model", {})
        options = {k: {"name": v} if isinstance(v, str) and f"model.{k}.name" in self.options else v
                   for k, v in model.get("options", {}).items()}  # fmt: skip
        data = {k: v for k, v in config.get("data", {}).items() if k not in ("source", "transform", "classes")}
        sections = {"model": options, "data": data, "training": config.get("training", {})}
        flat = {f"{s}.{k}": v for s, values in sections.items() for k, v in _flatten(values).items()}
        # Unknown keys are reported by name later.
        known = {k: v for k, v in flat.items() if k in self.options and v is not None}
        try:
            self.parser.parse_object(_nest(known), defaults=False)
        except ArgumentError as error:
            raise ConfigError(self.explain(str(error), {k: f"{where}: {k}" for k in known})) from error

    def explain(self, message: str, called: Mapping[str, str]) -> str:
        """A one-line message from a jsonargparse error."""
        match = re.search(r'key "([\w.]+)"', message)
        if match is None or match[1] not in self.options:
            return " ".join(message.split())
        value = re.findall(r"(?:Got value|Given value): (.*)", message)
        wanted = type_name(self.options[match[1]].type).removesuffix(" or null")  # null is given by omitting the option
        return f"{called.get(match[1], match[1])} must be {wanted}, not {value[-1] if value else 'that'}."


def typed(option: Option, form: str, text: str) -> Any:
    """Parses an option value by the type in its signature; returns the text itself if the type allows strings.

    Raises:
        ConfigError: the value has the wrong type.

    Example:
        >>> typed(Option("k", int | None, None, ""), "--k", "50")
        50
    """
    hint = option.type
    if hint is str or str in typing.get_args(hint):
        return text
    parser = ArgumentParser(exit_on_error=False, add_help=False)
    parser.add_argument("--value", type=hint)
    try:
        return parser.parse_args([f"--value={_listed(text) if _is_list(hint) else text}"], defaults=False)["value"]
    except ArgumentError as error:
        raise ConfigError(f"{form} must be {type_name(hint).removesuffix(' or null')}, not {text}.") from error


def is_switch(hint: Any) -> bool:
    """Whether an option is a bool or an optional bool."""
    return hint is bool or set(typing.get_args(hint)) == {bool, type(None)}


def forms(choice: str) -> tuple[str, ...]:
    """The flags that set the name of a nested choice.

    Example:
        >>> forms("beta_schedule")
        ('--beta_schedule', '--beta-schedule', '--model.beta_schedule')
    """
    return tuple(dict.fromkeys((f"--{choice}", f"--{choice.replace('_', '-')}", f"--model.{choice}")))


def type_name(hint: Any) -> str:
    """A readable name of a type.

    Example:
        >>> type_name(float | None), type_name(typing.Literal["a", "b"]), type_name(Sequence[int])
        ('a number or null', 'a or b', 'whole numbers separated by commas')
    """
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return type_name(arguments[0])
    if origin in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(type_name(a) for a in arguments))
    if origin is typing.Literal:
        *others, last = map(str, arguments)
        return f"{', '.join(others)} or {last}" if others else last
    if _is_list(hint):
        return {int: "whole numbers", float: "numbers"}.get(arguments[0], "names") + " separated by commas"
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "a string", type(None): "null"}
    return names.get(hint, "a value")


def _is_list(hint: Any) -> bool:
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_is_list(a) for a in typing.get_args(hint)) and str not in typing.get_args(hint)
    return inspect.isclass(origin) and issubclass(origin, Sequence)


def _listed(value: str) -> str:
    """``512,256`` as a JSON list."""
    if value.startswith("[") or value in ("null", "None"):
        return value
    parts = [p.strip() for p in value.split(",") if p.strip()]
    return json.dumps([int(p) if re.fullmatch(r"-?\d+", p) else p for p in parts])


def _layer(found: Namespace) -> Config:
    values = {k: v for k, v in found.as_dict().items() if v}
    layer: Config = {key: values[key] for key in ("data", "training") if key in values}
    return layer | ({"model": {"options": values["model"]}} if "model" in values else {})


def _flatten(values: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= {f"{key}.{k}": v for k, v in _flatten(value).items()}
        else:
            flat[key] = list(value) if isinstance(value, tuple) else value
    return flat


def _nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for key, value in flat.items():
        *path, last = key.split(".")
        place = nested
        for part in path:
            place = place.setdefault(part, {})
        place[last] = value
    return nested


def _name_of(choice: Any) -> str:
    return str(choice["name"]) if isinstance(choice, Mapping) else str(choice)


def chosen_names(model: str, layers: Sequence[Config], settings: Sequence[tuple[str, str]]) -> dict[str, str]:
    """The names of nested choices; later layers override earlier ones, and flags override all."""
    found: dict[str, str] = {}
    kinds = [o.name for o in registry.schema("model", model) if o.kind]
    for layer in layers:
        options = layer.get("model", {}).get("options", {})
        named = [k for k in kinds if isinstance(options.get(k), str) or "name" in (options.get(k) or {})]
        found |= {k: _name_of(options[k]) for k in named}
    for form, value in settings:
        for kind in kinds:
            if form in (*forms(kind), *(f"{form}.name" for form in forms(kind))):
                found[kind] = value
    return found


def named(words: Words, layers: Sequence[Config]) -> bool:
    """Whether the command line, the recipe or the configuration file names a model."""
    return bool(words.model or any(layer.get("model", {}).get("name") for layer in layers))


def model_name(words: Words, layers: Sequence[Config]) -> str:
    """The model's name; later layers override earlier ones, and the command line overrides all.

    Raises:
        ConfigError: unknown model; the message has a hint if the name is a data set or a path.
    """
    named = [layer["model"]["name"] for layer in layers if layer.get("model", {}).get("name")]
    name = words.model or (named[-1] if named else DEFAULT_MODEL)
    known = registry.present("model", name) in registry.names("model")
    if not known and (name in registry.names("dataset") or is_there(name)):
        raise ConfigError(f"'{name}' is not a model. To train on it: sandglass train --data {name}")
    registry.entry("model", name)
    return name
