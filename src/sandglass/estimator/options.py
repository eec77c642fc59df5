"""What the parameters of an estimator come to: the model's options, and what the model of that name can do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sandglass import registry
from sandglass.errors import CapabilityError, ConfigError


def offers(capability: str) -> Callable[[Any], bool]:
    """For ``available_if``: whether the model of the estimator's name has a capability."""

    def check(self: Any) -> bool:
        try:
            return capability in registry.declared(self.model).provides
        except ConfigError:
            return False

    return check


def takes_gaps(name: str) -> bool:
    """Whether the model of that name leaves missing values out; no where there is none."""
    try:
        return "complete" not in registry.declared(name).needs
    except ConfigError:
        return False


def check_model(name: str) -> None:
    """Refuses a model that needs more of an example than ``X`` holds.

    Raises:
        ConfigError: there is no such model.
        CapabilityError: it needs labels, or a companion of each example.

    Example:
        >>> check_model("cvae")
        Traceback (most recent call last):
        sandglass.errors.CapabilityError: The model 'cvae' needs labels, which an estimator does not take; ...
    """
    registry.entry("model", name)
    needs = [need.partition(":")[0] for need in registry.declared(name).needs if need != "complete"]
    if needs:
        raise CapabilityError(
            f"The model '{name}' needs {' and '.join(needs)}, which an estimator does not take; train it with "
            "sandglass.train."
        )


def joined(flat: Mapping[str, Any], rest: Mapping[str, Any] | None, name: str) -> dict[str, Any]:
    """Parameters that were given, with those of a mapping.

    Raises:
        ConfigError: one is in both.
    """
    given = {key: value for key, value in flat.items() if value is not None}
    twice = sorted(set(given) & set(rest or {}))
    if twice:
        raise ConfigError(f"'{twice[0]}' is given twice, as itself and in {name}.")
    return given | dict(rest or {})
