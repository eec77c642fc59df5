"""The prior of a model, where it goes with the codes and the losses of the model."""

from __future__ import annotations

from typing import Any

from torch import nn

from sandglass.errors import ConfigError
from sandglass.registry import entries, resolve

_LIE = {"real": "are real numbers", "simplex": "lie on the simplex", "sphere": "lie on the sphere"}


def prior_of(choice: Any, dim: int, support: str | None = "real", *, attached: bool = False) -> Any:
    """The prior over codes of ``dim`` numbers.

    Args:
        choice: of the prior.
        dim: size of a code.
        support: where the codes of the model lie; None where they may lie anywhere.
        attached: whether the model has a posterior that a prior may be made of.

    Raises:
        ConfigError: the prior's codes lie elsewhere, or it needs a posterior.
    """
    pz = resolve("prior", choice, dim)
    if hasattr(pz, "attach") and not attached:
        raise ConfigError("A prior of posteriors needs a model with a posterior whose density is known, such as vae.")
    if support and (own := getattr(pz, "support", support if hasattr(pz, "attach") else "real")) != support:
        alike = [e.name for e in entries("prior") if getattr(e.make, "support", "real") == support]
        raise ConfigError(
            f"The codes of this model {_LIE[support]}, and those of the prior {_LIE[own]}. Priors that go with it: "
            f"{', '.join(alike)}."
        )
    return pz


def check_trained(pz: Any, trained: bool) -> None:
    """Checks that a prior with parameters is trained.

    Raises:
        ConfigError: nothing trains it.
    """
    if not trained and isinstance(pz, nn.Module) and any(True for _ in pz.parameters()):
        raise ConfigError("With these options no loss trains the prior: choose one without parameters.")
