"""The configuration of a run, merged from a preset, a recipe, a file and flags; later layers override earlier ones.

A configuration has the sections of a run's ``config.yaml``: ``model`` (``name``, ``options``), ``data`` (``source`` and
the options of ``load_data``) and ``training``. Other sections of a ``config.yaml`` are ignored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from sandglass import registry
from sandglass.data.load import load_data
from sandglass.engine.options import STAGE_OPTIONS, Training
from sandglass.errors import ConfigError
from sandglass.registry import AUTO, Option
from sandglass.runs.needed import check_needed

Config = dict[str, Any]
"""``{"model": {"name", "options"}, "data": {...}, "training": {...}}``, complete or partial."""

SECTIONS = ("model", "data", "training")
_PASSED_OVER = ("imports", "format", "recipe", "spec", "transform", "classes", "environment", "summary", "show", "plan")
_ABOUT_DATA = ("fingerprint", "examples", "notes")
DEFAULT_MODEL = "vae"


def training_options() -> tuple[Option, ...]:
    """The training options."""
    return registry.signature(Training)


def data_options() -> tuple[Option, ...]:
    """The options of ``load_data`` that a configuration file can have."""
    names = str | Sequence[str] | None
    types = {"labels": bool | str | None, "size": int | str | Sequence[int] | None, "drop": names, "groups": str | None}
    types["types"] = str | Mapping[str, str | Sequence[str]] | None
    options = (o for o in registry.signature(load_data) if o.name not in ("transform", "classes", "absent"))
    return tuple(Option(o.name, types.get(o.name, o.type), o.default, o.help) for o in options)


def normal(values: Mapping[str, Any], where: str) -> Config:
    """The contents of a configuration file, normalised to the three sections.

    Args:
        values: a run's ``config.yaml``, a recipe, or the output of ``--print_config``.
        where: its name in messages.

    Raises:
        ConfigError: unknown key.
    """
    _refuse(values, (*SECTIONS, *_PASSED_OVER), where)
    config: Config = {}
    model = values.get("model")
    if model is not None:
        model = {"name": model} if isinstance(model, str) else _mapping(model, f"{where}: model")
        _refuse(model, ("name", "options"), f"{where}: model")
        model = {} if model.get("name") == registry.AUTO else model
        config["model"] = {"name": model.get("name"), "options": dict(_mapping(model.get("options") or {}, "options"))}
        if isinstance(config["model"]["name"], str):
            check_needed({**config, "imports": values.get("imports")}, config["model"]["options"], where)
        for option, value in config["model"]["options"].items():
            if isinstance(value, Mapping) and "custom" in value:
                own = f"{option} ({value['custom']})"
                raise ConfigError(f"{where} has a custom {own}, which can only be passed in Python.")
    if values.get("data") is not None:
        config["data"] = _normal_data(values["data"], where)
    if values.get("training") is not None:
        config["training"] = dict(_mapping(values["training"], f"{where}: training"))
        _refuse(config["training"], [o.name for o in training_options()], f"{where}: training")
        for name, own in _mapping(config["training"].get("stage") or {}, f"{where}: training: stage").items():
            _refuse(_mapping(own, f"{where}: stage {name}"), STAGE_OPTIONS, f"{where}: stage {name}")
    return config


def _normal_data(given: Any, where: str) -> dict[str, Any]:
    data: dict[str, Any] = {"source": given} if isinstance(given, str) else dict(_mapping(given, f"{where}: data"))
    source = data.get("source")
    if isinstance(source, Mapping) and "name" not in source:  # of a run's config.yaml
        data = {**source}
    elif any(key in data for key in _ABOUT_DATA):
        data = {}  # a run whose data was passed in Python
    data = {k: v for k, v in data.items() if k not in _ABOUT_DATA}
    _refuse(data, ["source", "transform", "classes", *(o.name for o in data_options())], f"{where}: data")
    return data


def over(below: Config, above: Config) -> Config:
    """Merges two layers; ``above`` overrides ``below``.

    If ``above`` has another model, only those options of ``below`` are kept that differ from their defaults and that
    the new model has. If it has another net, likelihood or prior, or is another preset of the same model with one, the
    options of the previous one are dropped.
    """
    given = lengths(above.get("training", {}))
    below = _without(below, ("epochs", "max_steps") if "minutes" in given else ("minutes",) if given else ())
    config = {key: {**below.get(key, {}), **above.get(key, {})} for key in ("data", "training")}
    stages = [layer.get("training", {}).get("stage") or {} for layer in (below, above)]
    if any(stages):
        names = dict.fromkeys(name for layer in stages for name in layer)
        config["training"]["stage"] = {n: {**stages[0].get(n, {}), **stages[1].get(n, {})} for n in names}
    lower, upper = below.get("model", {}), above.get("model", {})
    either = upper.get("name") or lower.get("name"), lower.get("name")
    name, old = (n and registry.present("model", n) for n in either)
    options = dict(lower.get("options", {}))
    if old:
        options = dict(registry.moved("model", old, options))
    if old and name != old:
        defaults = registry.merged("model", old, {})
        own = {o.name for o in registry.schema("model", name)}
        complete = registry.merged("model", old, options)
        gone = _presets(old, name, complete)
        options = {k: v for k, v in options.items() if k in own - gone and complete[k] != defaults[k]}
    for key, value in upper.get("options", {}).items():
        options[key] = _over_choice(options[key], value) if key in options else value
    return config | {"model": {"name": name, "options": options}}


def _presets(old: str, new: str, complete: Mapping[str, Any]) -> set[str]:
    """Nested choices that two presets of one model make differently, where the old one is as it was preset."""
    if registry.entry("model", old).make is not registry.entry("model", new).make:
        return set()
    before, after = (registry.merged("model", name, {}) for name in (old, new))
    kinds = [o.name for o in registry.schema("model", old) if o.kind and isinstance(before[o.name], Mapping)]
    names = {k: [_name(values[k]) for values in (complete, before, after)] for k in kinds}
    return {k for k, (now, one, other) in names.items() if now == one != other}


def _name(choice: Any) -> Any:
    return choice.get("name") if isinstance(choice, Mapping) else choice


def lengths(training: Mapping[str, Any]) -> set[str]:
    """Which options of a layer say how long to train.

    Example:
        >>> sorted(lengths({"minutes": 5, "epochs": None, "stage": {"prior": {"epochs": 3}}}))
        ['epochs', 'minutes']
    """
    layers = [training, *(training.get("stage") or {}).values()]
    return {name for layer in layers for name in ("epochs", "max_steps", "minutes") if layer.get(name) is not None}


def _without(layer: Config, names: Sequence[str]) -> Config:
    """A layer without these options of the training and of its stages."""
    if not names or "training" not in layer:
        return layer
    training = {k: v for k, v in layer["training"].items() if k not in names}
    if training.get("stage"):
        stage = {name: {k: v for k, v in own.items() if k not in names} for name, own in training["stage"].items()}
        training["stage"] = {name: own for name, own in stage.items() if own}
    return {**layer, "training": training}


def _over_choice(below: Any, above: Any) -> Any:
    if not isinstance(above, Mapping):
        return above
    lower = {"name": below} if isinstance(below, str) else dict(below) if isinstance(below, Mapping) else {}
    if above.get("name", lower.get("name")) != lower.get("name"):
        return dict(above)
    return {**lower, **above}


def complete(config: Config) -> Config:
    """The configuration with all options and defaults, validated.

    Raises:
        ConfigError: a name or option is unknown, or a value is invalid.
    """
    name = config.get("model", {}).get("name") or DEFAULT_MODEL
    given = config.get("model", {}).get("options", {})
    kinds = {o.name: o for o in registry.schema("model", name) if o.kind}
    # A nested option without a name applies to the current choice.
    filled = {k: _named(kinds[k], v) if k in kinds else v for k, v in given.items()}
    defaults = {o.name: o.default for o in data_options()}
    training = Training.of(config.get("training", {}))
    return {
        "model": {"name": name, "options": registry.merged("model", name, filled)},
        "data": {"source": config.get("data", {}).get("source")} | defaults | config.get("data", {}),
        "training": training.to_dict(),
    }


def _named(option: Option, value: Any) -> Any:
    if isinstance(value, Mapping) and "name" not in value:
        default = option.default if isinstance(option.default, Mapping) else {"name": option.default}
        return {**default, **value}
    return value


def given_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Model options for ``build``, with a bare ``auto`` to be resolved by the data."""
    return {k: v["name"] if isinstance(v, Mapping) and v == {"name": AUTO} else v for k, v in options.items()}


def as_yaml(config: Config) -> str:
    """The configuration as a file that ``--config`` accepts."""
    return yaml.safe_dump(_plain(config), sort_keys=False, allow_unicode=True)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, list | tuple) else value


def _mapping(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where} must be a mapping of options, not {value!r}.")
    return value


def _refuse(values: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    for key in values:
        if key not in known:
            hint = registry.nearest(str(key), list(known))
            raise ConfigError(f"{where} has an unknown key '{key}'.{hint}")
