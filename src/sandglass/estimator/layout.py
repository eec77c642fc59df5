"""Conversion between the layout of an estimator's ``X`` and the examples of a model."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sandglass.data.transform import ArrayTransform, TableTransform, Transform
from sandglass.errors import ConfigError

Array = np.ndarray[Any, Any]


def top_of(array: Array) -> float:
    """The white level of images: 255 or 65,535 for larger integers, otherwise 1.

    Example:
        >>> top_of(np.array([0, 200])), top_of(np.array([0, 4000])), top_of(np.array([0.0, 0.5]))
        (255.0, 65535.0, 1.0)
    """
    if array.dtype.kind not in "iu" or array.min() < 0:
        return 1.0
    return next((top for top in (1.0, 255.0, 65535.0) if array.max() <= top), 1.0)


def images(array: Array, image_shape: tuple[int, ...] | None, top: float) -> Tensor:
    """``(n, C, H, W)`` from any layout, with bytes converted to floats in [0, 1].

    Args:
        array: ``(n, H, W)``, ``(n, H, W, C)`` or ``(n, C, H, W)``; with ``image_shape``, any shape of that size.
        image_shape: ``(H, W)`` or ``(C, H, W)`` to reshape rows to; None for images.
        top: the value that is mapped to 1.

    Raises:
        ConfigError: ``image_shape`` has another size.

    Example:
        >>> images(np.zeros((5, 7, 6, 3)), None, 1.0).shape
        torch.Size([5, 3, 7, 6])
    """
    if image_shape is not None:
        shape = (1, *image_shape)[-3:]
        if math.prod(shape) != math.prod(array.shape[1:]):
            raise ConfigError(f"Examples of shape {array.shape[1:]} cannot be reshaped to image_shape {shape}.")
        array = array.reshape(-1, *shape)
    elif array.ndim == 3:
        array = array[:, None]
    elif array.ndim == 4 and array.shape[1] not in (1, 3, 4) and array.shape[3] in (1, 3, 4):
        array = np.moveaxis(array, 3, 1)
    if array.dtype == np.bool_ or top != 1:
        array = array.astype(np.float32) / np.float32(top)
    return torch.from_numpy(np.array(array, order="C"))


def inverted(transform: Transform, shape: tuple[int, ...], top: float, x: Tensor) -> Any:
    """Examples of a model in the unit and layout of ``X``.

    Args:
        transform: the preprocessing to invert.
        shape: of one example of ``X``.
        top: see :func:`images`.
        x: ``(n, *spec.shape)``.
    """
    if isinstance(transform, TableTransform):
        return transform.inverse(x)
    back = transform.inverse(x) if isinstance(transform, ArrayTransform) else x.double().numpy() * top
    if len(shape) == 3 and back.shape[1:] != shape:
        back = np.moveaxis(back, 1, 3)
    return back.reshape(len(back), *shape)


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
