"""Model options and capabilities from an estimator's parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sandglass import registry
from sandglass.errors import CapabilityError, ConfigError


def offers(capability: str) -> Callable[[Any], bool]:
    """A check for ``available_if``: whether the estimator's model has a capability."""

    def check(self: Any) -> bool:
        try:
            return capability in registry.declared(self.model).provides
        except ConfigError:
            return False

    return check


def takes_gaps(name: str) -> bool:
    """Whether the model supports missing values; False for an unknown model."""
    try:
        return "complete" not in registry.declared(name).needs
    except ConfigError:
        return False


def check_model(name: str) -> None:
    """Checks that a model needs nothing besides ``X`` and ``y``.

    Raises:
        ConfigError: unknown model.
        CapabilityError: the model needs companions or unpaired sets.

    Example:
        >>> check_model("pix2pix")
        Traceback (most recent call last):
        sandglass.errors.CapabilityError: The model 'pix2pix' needs source, which the estimator does not support; ...
    """
    registry.entry("model", name)
    needs = [need.partition(":")[0] for need in registry.declared(name).needs if need not in ("complete", "labels")]
    if needs:
        raise CapabilityError(
            f"The model '{name}' needs {' and '.join(needs)}, which the estimator does not support; train it with "
            "sandglass.train."
        )


def joined(flat: Mapping[str, Any], rest: Mapping[str, Any] | None, name: str) -> dict[str, Any]:
    """Merges the parameters that are not None with those of a mapping.

    Raises:
        ConfigError: a parameter is in both.
    """
    given = {key: value for key, value in flat.items() if value is not None}
    twice = sorted(set(given) & set(rest or {}))
    if twice:
        raise ConfigError(f"'{twice[0]}' is given twice, as a parameter and in {name}.")
    return given | dict(rest or {})
