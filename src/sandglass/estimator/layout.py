"""The layout of an estimator's ``X``, and the unit of its densities."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sandglass.data.transform import TableTransform, Transform
from sandglass.errors import ConfigError

Array = np.ndarray[Any, Any]


def unfolded(array: Array, image_shape: tuple[int, ...]) -> Tensor:
    """``(n, C, H, W)`` from rows, or any shape of that size.

    Args:
        array: ``(n, ...)``.
        image_shape: ``(H, W)`` or ``(C, H, W)``.

    Raises:
        ConfigError: ``image_shape`` has another size.

    Example:
        >>> unfolded(np.zeros((5, 42)), (7, 6)).shape
        torch.Size([5, 1, 7, 6])
    """
    shape = (1, *image_shape)[-3:]
    if math.prod(shape) != math.prod(array.shape[1:]):
        raise ConfigError(f"Examples of shape {array.shape[1:]} cannot be reshaped to image_shape {shape}.")
    return torch.from_numpy(np.array(array.reshape(-1, *shape), order="C"))


def log_unit(transform: Transform, x: Tensor, mask: Tensor | None, *, mixed: bool = False) -> Tensor:
    """``(n,)`` log Jacobian to subtract from a log density of model inputs to get a density of ``X``, in nats.

    It is the sum of ``log(scale)`` over the observed values, as one unit of the model input is ``scale`` units of
    ``X``; for positive columns, which are log-transformed, the logarithm of the value is added.

    Args:
        transform: the preprocessing from ``X`` to ``x``.
        x: ``(n, ...)``, the model's inputs.
        mask: True where observed; None if all values are observed.
        mixed: whether counts and ordinal columns have probabilities, which have no unit, instead of densities.

    Example:
        >>> from sandglass.data.transform import ArrayTransform
        >>> transform = ArrayTransform((2, 3, 4), scale=8.0)
        >>> log_unit(transform, torch.zeros(1, 2, 3, 4), None) / math.log(8)
        tensor([24.], dtype=torch.float64)
    """
    if isinstance(transform, TableTransform):
        columns = transform.spec().columns
        width = torch.tensor([c.width for c in columns])
        scales = torch.tensor([1.0 if mixed and c.discrete else c.scale for c in columns], dtype=torch.float64)
        positive = torch.tensor([c.kind == "positive" for c in columns]).repeat_interleave(width)
        means = torch.tensor([c.mean for c in columns], dtype=torch.float64).repeat_interleave(width)
        each = scales.log().repeat_interleave(width)
        each = each + torch.where(positive, x.double() * each.exp() + means, 0.0)
    else:
        each = torch.tensor(getattr(transform, "scale", 1.0), dtype=torch.float64).log()
    each = each.expand(x.shape)
    return (each if mask is None else each * mask).flatten(1).sum(1)
