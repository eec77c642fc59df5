"""All checks of one model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sandglass import registry
from sandglass.errors import SandglassError
from sandglass.testing import checks
from sandglass.testing.data import SPECS, make, spec_for, suits


def check_model(name: str, *, kinds: Sequence[str] = tuple(SPECS), **options: Any) -> None:
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
        ConfigError: there is no such model, or no such option.

    Example:
        >>> check_model("vae", kinds=["row"])
    """
    registry.entry("model", name)
    for of_name in checks.OF_NAME:
        _run(of_name, f"The model '{name}'", name)
    for kind in kinds:
        if suits(name, kind):
            for of_model in checks.OF_MODEL:
                _run(of_model, f"The model '{name}' on {kind} data", make(name, spec_for(name, kind), **options))


def _run(check: Any, what: str, subject: Any) -> None:
    title = check.__name__.replace("_", " ")
    try:
        check(subject)
    except AssertionError as error:
        raise AssertionError(f"{what} fails the check '{title}': {error}") from error
    except (TypeError, ValueError, RuntimeError, LookupError, AttributeError) as error:
        if isinstance(error, SandglassError):
            raise AssertionError(f"{what} fails the check '{title}': {error}") from error
        raise AssertionError(f"{what} fails the check '{title}': {type(error).__name__}: {error}") from error
