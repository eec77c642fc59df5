"""The complete configuration of a run, out of layers: a name's preset, a recipe, a file, and flags; the last one wins.

A configuration has the sections of a run's ``config.yaml``: ``model`` (``name``, ``options``), ``data`` (``source`` and
the options of ``load_data``) and ``training``. What else a run writes there is passed over when it is read again.
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

Config = dict[str, Any]
"""``{"model": {"name", "options"}, "data": {...}, "training": {...}}``, complete or in part."""

SECTIONS = ("model", "data", "training")
_PASSED_OVER = ("format", "recipe", "spec", "transform", "classes", "environment", "summary", "show")
_ABOUT_DATA = ("fingerprint", "examples", "notes")
DEFAULT_MODEL = "vae"


def training_options() -> tuple[Option, ...]:
    """How to train."""
    return registry.signature(Training)


def data_options() -> tuple[Option, ...]:
    """How to read data, as far as a file can say it."""
    names = str | Sequence[str] | None
    types = {"labels": bool | str | None, "size": int | str | Sequence[int] | None, "drop": names, "groups": str | None}
    types["types"] = str | Mapping[str, str | Sequence[str]] | None
    options = (o for o in registry.signature(load_data) if o.name not in ("transform", "classes", "absent"))
    return tuple(Option(o.name, types.get(o.name, o.type), o.default, o.help) for o in options)


def normal(values: Mapping[str, Any], where: str) -> Config:
    """A configuration file's contents as the three sections.

    Args:
        values: what the file holds: a run's ``config.yaml``, a recipe, or what ``--print_config`` prints.
        where: what messages call it.

    Raises:
        ConfigError: a key that no configuration has.
    """
    _refuse(values, (*SECTIONS, *_PASSED_OVER), where)
    config: Config = {}
    model = values.get("model")
    if model is not None:
        model = {"name": model} if isinstance(model, str) else _mapping(model, f"{where}: model")
        _refuse(model, ("name", "options"), f"{where}: model")
        config["model"] = {"name": model.get("name"), "options": dict(_mapping(model.get("options") or {}, "options"))}
        for option, value in config["model"]["options"].items():
            if isinstance(value, Mapping) and "custom" in value:
                own = f"{option} of your own ({value['custom']})"
                raise ConfigError(f"{where} has a {own}, which only Python can pass on.")
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
    if isinstance(source, Mapping) and "name" not in source:  # as a run has it: with its options, beside what was found
        data = {**source}
    elif any(key in data for key in _ABOUT_DATA):
        data = {}  # a run whose data was handed over in Python
    data = {k: v for k, v in data.items() if k not in _ABOUT_DATA}
    _refuse(data, ["source", "transform", "classes", *(o.name for o in data_options())], f"{where}: data")
    return data


def over(below: Config, above: Config) -> Config:
    """One layer laid over another.

    A layer that names another model keeps of the one below what was set there and what it knows itself. A layer that
    names another net, likelihood or prior drops the options of the one below.
    """
    config = {key: {**below.get(key, {}), **above.get(key, {})} for key in ("data", "training")}
    stages = [layer.get("training", {}).get("stage") or {} for layer in (below, above)]
    if any(stages):
        names = dict.fromkeys(name for layer in stages for name in layer)
        config["training"]["stage"] = {n: {**stages[0].get(n, {}), **stages[1].get(n, {})} for n in names}
    lower, upper = below.get("model", {}), above.get("model", {})
    name = upper.get("name") or lower.get("name")
    options = dict(lower.get("options", {}))
    if lower.get("name") and name != lower["name"]:
        usual = registry.merged("model", lower["name"], {})
        own = {o.name for o in registry.schema("model", name)}
        complete = registry.merged("model", lower["name"], options)
        options = {k: v for k, v in options.items() if k in own and complete[k] != usual[k]}
    for key, value in upper.get("options", {}).items():
        options[key] = _over_choice(options[key], value) if key in options else value
    return config | {"model": {"name": name, "options": options}}


def _over_choice(below: Any, above: Any) -> Any:
    if not isinstance(above, Mapping):
        return above
    lower = {"name": below} if isinstance(below, str) else dict(below) if isinstance(below, Mapping) else {}
    if above.get("name", lower.get("name")) != lower.get("name"):
        return dict(above)
    return {**lower, **above}


def complete(config: Config) -> Config:
    """Every option written out, checked.

    Raises:
        ConfigError: an unknown name or option, or a value that makes no sense.
    """
    name = config.get("model", {}).get("name") or DEFAULT_MODEL
    given = config.get("model", {}).get("options", {})
    kinds = {o.name: o for o in registry.schema("model", name) if o.kind}
    # A nested option given without a name belongs to the choice that stands there already.
    filled = {k: _named(kinds[k], v) if k in kinds else v for k, v in given.items()}
    usual = {o.name: o.default for o in data_options()}
    training = Training.of(config.get("training", {}))
    return {
        "model": {"name": name, "options": registry.merged("model", name, filled)},
        "data": {"source": config.get("data", {}).get("source")} | usual | config.get("data", {}),
        "training": training.to_dict(),
    }


def _named(option: Option, value: Any) -> Any:
    if isinstance(value, Mapping) and "name" not in value:
        standing = option.default if isinstance(option.default, Mapping) else {"name": option.default}
        return {**standing, **value}
    return value


def given_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Model options as ``build`` takes them: a bare ``auto`` is settled by the data."""
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
