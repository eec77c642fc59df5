"""Activations by name."""

from __future__ import annotations

from torch import nn

from sandglass.errors import ConfigError

_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky-relu": nn.LeakyReLU,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "elu": nn.ELU,
    "tanh": nn.Tanh,
    "softplus": nn.Softplus,
}


def activation(name: str) -> nn.Module:
    """A new activation module.

    Raises:
        ConfigError: unknown name.
    """
    if name not in _ACTIVATIONS:
        raise ConfigError(f"There is no activation '{name}'. Known: {', '.join(_ACTIVATIONS)}.")
    if name == "relu":
        return nn.ReLU(inplace=True)  # safe: the preceding linear or normalisation layer does not need its output
    if name == "leaky-relu":
        return nn.LeakyReLU(0.2)
    return _ACTIVATIONS[name]()
