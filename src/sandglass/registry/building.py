"""Objects from names and plain options, above all models, and checks of what data a model needs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch

from sandglass.core import Model, Spec
from sandglass.errors import CapabilityError, ConfigError, SandglassError, named_type
from sandglass.registry.completing import expand, merged
from sandglass.registry.limits import Counter, is_own
from sandglass.registry.names import AUTO, Entry, entries, entry, names, origin, present, schema
from sandglass.rng import forked

_USUAL = ("vae", "it does most: it encodes, draws, fills gaps and finds what is unusual")


def resolve(kind: str, choice: Any, *args: Any, spec: Spec | None = None, own: Mapping[str, Any] | None = None) -> Any:
    """An object from a choice: a name, a mapping with a name and options, or an object, which is returned.

    Args:
        kind: ``"net"``, ``"likelihood"``, ``"prior"``, ...
        choice: the choice.
        args: positional arguments, such as the :class:`~sandglass.core.Spec`.
        spec: of the data, needed for the choice ``"auto"``.
        own: what ``"auto"`` is for one model instead.

    Example:
        >>> resolve("net", {"name": "mlp", "widths": [32]}).widths
        (32,)
    """
    if not isinstance(choice, str | Mapping):
        return choice
    options = expand(kind, choice)
    if spec is not None:
        options = settle(kind, options, spec, own)
    name = options.pop("name")
    return _make(entry(kind, name), args, options)


def build(name: str, spec: Spec, /, **options: Any) -> Model:
    """Builds a model by name for this data, with PyTorch's default initialisation.

    Args:
        name: see ``sandglass models``.
        spec: the data, from :func:`sandglass.load_data`.
        options: options of that model; a nested choice is a name, a mapping, or (for ``net``) an object of your own.

    Raises:
        ConfigError: an unknown name or option, an invalid value, or more weights than fit in memory.

    Example:
        >>> build("vae", Spec((1, 28, 20), "unit"), latent_dim=8).sample(3).shape
        torch.Size([3, 1, 28, 20])
    """
    if not isinstance(spec, Spec):
        raise ConfigError(f"A model is built for a Spec, such as load_data(...).spec, not for {named_type(spec)}.")
    outline(name, spec, **options)
    return _build(name, spec, options)


def outline(name: str, spec: Spec, /, **options: Any) -> Model | None:
    """Builds the model on the device ``meta``: its tensors have names, types and shapes, but take no memory.

    Args:
        name: see :func:`build`.
        spec: the data.
        options: of that model.

    Returns:
        The model; None if it cannot be built so, as with your own objects among the options.

    Raises:
        ConfigError: an unknown name or option, or more weights than fit in memory.

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
        # A constructor that draws on the CPU in spite of the device must not change the global generator.
        with forked(), counter, torch.device("meta"):
            return _build(name, spec, options)
    except ConfigError:
        raise
    except Exception:  # a constructor may compute with values, which meta tensors lack; build() will report real errors
        return None


def model_for(spec: Spec, *options: str) -> tuple[str, str]:
    """The model that suits this data where none is named, and why, as the end of a sentence.

    Args:
        spec: the data.
        options: names of options that it must have.

    Example:
        >>> [model_for(Spec(shape, "levels"))[0] for shape in ((6,), (3, 32, 32), (3, 64, 64))]
        ['vae', 'flow-matching', 'latent-flow']
        >>> model_for(Spec((3, 32, 32), "levels"), "latent_dim")
        ('vae', 'it has the option latent_dim')
    """
    suited = [found for found in entries("model") if not found.preset and _suits(found.make, spec)]
    if not suited:
        return _USUAL
    first = max(suited, key=lambda found: int(getattr(found.make, "priority", 0)))
    lacking = [name for name in options if name not in {option.name for option in schema("model", first.name)}]
    if lacking:
        return _USUAL[0], f"it has the option{'s' * (len(lacking) > 1)} {', '.join(lacking)}"
    return first.name, str(getattr(first.make, "because", "it suits this data"))


def _suits(make: Any, spec: Spec) -> bool:
    return hasattr(make, "natural") and bool(make.natural(spec))


def _build(name: str, spec: Spec, options: Mapping[str, Any]) -> Model:
    values, found = merged("model", name, options), entry("model", name)
    by_data: Mapping[str, Any] = found.make.defaults(spec) if hasattr(found.make, "defaults") else {}
    for option in schema("model", name):
        value, own = values[option.name], by_data.get(option.name)
        if option.kind and isinstance(value, Mapping):
            values[option.name] = settle(option.kind, value, spec, own)
        elif value is None:
            values[option.name] = own
    model: Model = _make(found, (spec,), values)
    model.config = {"name": found.name, "options": {k: _plain(v) for k, v in values.items()}}
    model.custom = {k: v for k, v in values.items() if is_own(v)}
    return model


def completed(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a saved model, and those added since it was saved, with the values that it was saved under.

    Example:
        >>> completed("gan", {"adversary": "hinge"})["r2"], completed("gan", {"r2": 0.5})["r2"]
        (0.0, 0.5)
    """
    earlier: Mapping[str, Any] = getattr(entry("model", name).make, "earlier", {})
    return {**earlier, **options}


def registered(config: Mapping[str, Any]) -> bool:
    """Whether a model in plain values, and every registered object among its options, is known here."""
    return all(name in names(kind) for kind, name in _choices(config))


def origins(config: Mapping[str, Any]) -> list[str]:
    """The files and packages of others that register a model and the objects among its options.

    Example:
        >>> origins({"name": "vae", "options": {"net": {"name": "mlp"}}})
        []
    """
    return sorted({found for kind, name in _choices(config) if (found := origin(kind, name))})


def _choices(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Kind and name of a model, and of the registered objects among its options."""
    name = present("model", str(config["name"]))
    yield "model", name
    if name in names("model"):
        for option in schema("model", name):
            value = config["options"].get(option.name)
            if option.kind and isinstance(value, Mapping) and isinstance(value.get("name"), str):
                yield option.kind, value["name"]


def settle(kind: str, choice: Mapping[str, Any], spec: Spec, own: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Replaces ``"auto"`` by the entry that is natural for the data, of several the one of highest ``priority``.

    Args:
        kind: of the choice.
        choice: with a name.
        spec: the data.
        own: what ``"auto"`` is for one model instead, from its ``defaults(spec)``.

    Example:
        >>> settle("net", {"name": "auto"}, Spec((1, 28, 28), "unit"))["name"]
        'conv'
    """
    if choice["name"] != AUTO:
        return dict(choice)
    rest = {k: v for k, v in choice.items() if k != "name"}
    if own is not None:
        return {"name": own["name"], **merged(kind, own["name"], {k: v for k, v in own.items() if k != "name"} | rest)}
    fit: dict[int, Entry] = {}  # by priority; the first entry of each
    for found in entries(kind):
        natural = getattr(found.make, "natural", None)  # priors and schedules have none
        if natural is not None and not found.preset and natural(spec):
            fit.setdefault(int(getattr(found.make, "priority", 0)), found)
    if fit:
        first = fit[max(fit)]
        return {"name": first.name, **merged(kind, first.name, rest)}
    raise ConfigError(f"No {kind} suits data of shape {spec.shape}; name one of: {', '.join(names(kind))}.")


def declared(name: str, **options: str) -> Model:
    """The outline of a model for data with labels and companions, from which capabilities and needs are read.

    Args:
        name: of the model.
        options: names of choices that decide what stages it has.

    Example:
        >>> declared("ae").provides[:3], [stage.name for stage in declared("ae").stages()]
        (('encode', 'decode', 'reconstruct'), ['train', 'density'])
    """
    key = " ".join([name, *(f"{option}={value}" for option, value in sorted(options.items()))])
    if key not in _declared:
        picture = Spec((1, 8, 8), "unit", classes=2)
        companions = {key: Spec((1, 8, 8), "unit") for key in COMPANIONS}
        spec = replace(picture, given=companions, beside={"b": picture})
        laid = outline(name, spec, **options)
        _declared[key] = build(name, spec, **options) if laid is None else laid
    return _declared[key]


COMPANIONS = ("source", "grey", "edges")
"""Common names of companions."""

_declared: dict[str, Model] = {}


def able(what: str) -> list[str]:
    """The names of the models and presets with a capability."""
    return [name for name in names("model") if what in declared(name).provides]


def require(model: Model, capability: str) -> None:
    """Checks that a model declares a capability.

    Args:
        model: the model.
        capability: one of :data:`~sandglass.core.CAPABILITIES`, ``"codes"`` for codes of real numbers, or ``"labels"``
            for samples conditional on labels.

    Raises:
        CapabilityError: it does not; the message names the models that do.
    """
    if can(model, capability):
        return
    name = name_of(model)
    if capability == "codes" and model.evaluations > 1:
        raise CapabilityError(f"Codes of the model '{name}' have the size of the example and mean little.")
    if capability == "codes":
        raise CapabilityError(f"The model '{name}' has no codes of real numbers.")
    if capability == "labels":
        conditional = ", ".join(name for name in names("model") if capability in declared(name).needs)
        raise CapabilityError(f"The model '{name}' is not conditional on labels. Models that are: {conditional}.")
    others = ", ".join(able(capability)) or "none"
    raise CapabilityError(f"The model '{name}' does not provide '{capability}'. Models that do: {others}.")


def name_of(model: Model) -> str:
    """The registered name of a model; the name of its class if it was built without the registry."""
    return str(getattr(model, "config", {}).get("name", type(model).__name__))


def can(model: Model, capability: str) -> bool:
    """Whether a model declares a capability; see :func:`require`."""
    if capability == "codes":
        real = bool(model.latents) and all(latent.support != "index" for latent in model.latents)
        return real and model.evaluations == 1
    return capability in (model.needs if capability == "labels" else model.provides)


def check_needs(model: Model, spec: Spec, *, gaps: bool) -> None:
    """Checks that the data has what a model needs.

    Args:
        model: the model.
        spec: the data.
        gaps: whether it has missing values.

    Raises:
        CapabilityError: something is missing; the message says what, and which models do not need it.
    """
    companions = {f"{name}:{s.layout}" for name, s in spec.given.items()} | {f"beside:{name}" for name in spec.beside}
    has = companions | ({"labels"} if spec.classes else set()) | (set() if gaps else {"complete"})
    for need in model.needs:
        if need in has:
            continue
        free = ", ".join(name for name in names("model") if need not in declared(name).needs)
        kind, _, what = need.partition(":")
        why = {
            "complete": "cannot learn from data with missing values; fill them in first",
            "labels": "needs a class for every example; name their column with --labels",
            "beside": f"needs a second set of examples, '{what}'",
        }.get(kind, f"needs with each example the {what} '{kind}'")
        raise CapabilityError(f"The model '{name_of(model)}' {why}, or choose one of: {free or 'none'}.")


def _make(found: Entry, args: tuple[Any, ...], options: Mapping[str, Any]) -> Any:
    try:
        return found.make(*args, **options)
    except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError, RuntimeError) as error:
        if isinstance(error, SandglassError) or "memory" in str(error):
            raise
        raise ConfigError(f"The {found.kind} '{found.name}' could not be built: {error}") from error


def _plain(value: Any) -> Any:
    """A value as stored in a configuration file; of your own objects only the class name is stored."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return {"custom": type(value).__qualname__}
