"""The device and precision of a training where they are not given."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import nn

from sandglass.core import Stage
from sandglass.engine.batches import modules
from sandglass.engine.checking import check
from sandglass.errors import ConfigError

_CHANNELS, _FEATURES = 32, 512  # of the narrower side of a convolution or linear layer that gains from bf16


def settle_device(name: str) -> str:
    """An available device; ``auto`` is the first available of cuda, mps, cpu.

    Raises:
        ConfigError: the device is not available.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    kind = name.split(":")[0]
    check("device", kind in ("cpu", "cuda", "mps"), name, "one of auto, cpu, cuda, cuda:N, mps")
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}[kind]
    if not there:
        raise ConfigError(f"The device '{name}' is not available here; use --device cpu.")
    try:
        torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"There is no device '{name}'.") from error
    return name


def has_bf16() -> bool:
    """Whether this CPU has instructions for bf16 (AMX or AVX-512), 1.5 to 3 times as fast as float32."""
    checks = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return any(bool(getattr(torch.cpu, check, lambda: False)()) for check in checks)


def gains_by_bf16(modules: Iterable[nn.Module]) -> bool:
    """Whether layers are wide enough for bf16 to pay on a CPU.

    Example:
        >>> gains_by_bf16([nn.Linear(784, 512)]), gains_by_bf16([nn.Linear(784, 128), nn.Conv2d(3, 64, 3)])
        (True, False)
    """
    least = ((nn.Conv2d, _CHANNELS), (nn.Linear, _FEATURES))
    return any(isinstance(m, kind) and min(m.weight.shape[:2]) >= wide for m in modules for kind, wide in least)


def settle_precision(device: str, stages: Sequence[Stage]) -> str:
    """What ``auto`` is; weights, statistics and likelihoods have at least single precision in all of them."""
    if device.startswith("cuda"):
        return "tf32"
    trained = modules(stages)
    double = any(p.dtype == torch.float64 for m in trained for p in m.parameters(recurse=False))
    return "bf16" if device == "cpu" and gains_by_bf16(trained) and not double and has_bf16() else "fp32"
