"""All checks of one model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from sandglass import registry
from sandglass.errors import ConfigError, SandglassError
from sandglass.registry import nearest
from sandglass.testing import checks
from sandglass.testing.data import SPECS, make, spec_for, suits


def check_model(name: str, *, kinds: str | Sequence[str] = tuple(SPECS), **options: Any) -> None:
    """Checks that a registered model keeps what the engine, the metrics and the tasks rely on.

    It is built small and is given a few random examples of every kind of data that suits it. Checked are, among others:
    losses per example and without gradients in their parts, gradients in every parameter, samples of the right shape
    from the seed alone, declared capabilities, missing values, and that a saved model gives the same bits.

    Args:
        name: the registered name; import the file that registers it first.
        kinds: of data: ``"row"``, ``"grey"``, ``"colour"`` and ``"binary"``; those that do not suit the model are left
            out.
        options: of the model.

    Raises:
        AssertionError: a check fails; the message names the check and the kind of data.
        ConfigError: there is no such model, option or kind of data, or none of the kinds suits the model.

    Example:
        >>> check_model("vae", kinds=["row"])
    """
    registry.entry("model", name)
    kinds = [kinds] if isinstance(kinds, str) else list(kinds)
    known = [option.name for option in registry.schema("model", name)]
    for option in options:
        if option not in known:
            hint = nearest(option, known)
            raise ConfigError(f"The model '{name}' has no option '{option}'.{hint} It has: {', '.join(known)}.")
    if not kinds:
        raise ConfigError(f"Name a kind of data to check the model on: {', '.join(SPECS)}.")
    for kind in kinds:
        if kind not in SPECS:
            raise ConfigError(
                f"There is no kind of data '{kind}'.{nearest(kind, list(SPECS))} Known: {', '.join(SPECS)}."
            )
    suited = [kind for kind in kinds if suits(name, kind)]
    if not suited:
        raise ConfigError(f"The model '{name}' is not for {' or '.join(kinds)} data; name other kinds.")
    for of_name in checks.OF_NAME:
        _run(of_name, f"The model '{name}'", lambda: name)
    for kind in suited:
        for of_model in checks.OF_MODEL:
            _run(of_model, f"The model '{name}' on {kind} data", partial(make, name, spec_for(name, kind), **options))


def _run(check: Any, what: str, build: Callable[[], Any]) -> None:
    title = check.__name__.replace("_", " ")
    try:
        check(build())
    except AssertionError as error:
        raise AssertionError(f"{what} fails the check '{title}': {error}") from error
    except (TypeError, ValueError, RuntimeError, LookupError, AttributeError) as error:
        if isinstance(error, SandglassError):
            raise AssertionError(f"{what} fails the check '{title}': {error}") from error
        raise AssertionError(f"{what} fails the check '{title}': {type(error).__name__}: {error}") from error
