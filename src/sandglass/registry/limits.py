"""Limits on the size of a model, checked before memory is allocated."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_parameter_registration_hook,
)

from sandglass.errors import ConfigError

_MOST_TENSORS = 20_000  # in one model; each takes time to construct


class Counter:
    """Counts the tensors that modules register and their bytes, up to what fits in the memory of this machine.

    Args:
        what: the name of the model in the message.

    Example:
        >>> import torch
        >>> with Counter("It") as counter, torch.device("meta"):
        ...     layer = torch.nn.Linear(10, 10)
        >>> counter.bytes
        440
    """

    def __init__(self, what: str) -> None:
        self.what, self.tensors, self.bytes = what, 0, 0

    def __enter__(self) -> Counter:
        hooks = (register_module_parameter_registration_hook, register_module_buffer_registration_hook)
        self.handles = [hook(self.add) for hook in hooks]
        return self

    def __exit__(self, *error: object) -> None:
        for handle in self.handles:
            handle.remove()

    def add(self, module: Any, name: str, value: Any) -> None:
        """Counts a tensor.

        Raises:
            ConfigError: too many tensors or bytes.
        """
        if value is None:
            return
        self.tensors, self.bytes = self.tensors + 1, self.bytes + value.nbytes
        if self.bytes > memory():
            raise ConfigError(
                f"{self.what} needs {self.bytes / 2**30:,.0f} GiB for its weights; this machine has "
                f"{memory() / 2**30:,.0f} GiB. Choose smaller ones."
            )
        if self.tensors > _MOST_TENSORS:
            raise ConfigError(f"{self.what} has more than {_MOST_TENSORS:,} tensors. Choose smaller ones.")


def memory() -> int:
    """Bytes of memory in this machine; a terabyte if the system does not report it."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return 2**40


def is_own(value: Any) -> bool:
    """Whether a value is or contains an object that is not plain data."""
    if isinstance(value, Mapping):
        return any(is_own(v) for v in value.values())
    if isinstance(value, list | tuple):
        return any(is_own(v) for v in value)
    return not (value is None or isinstance(value, bool | int | float | str))
