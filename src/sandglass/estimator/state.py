"""Conversion of a fitted model to plain values and arrays for pickling, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from sandglass import registry
from sandglass.core import Model
from sandglass.data.transform import Transform
from sandglass.runs.specification import from_plain, to_plain
from sandglass.runs.weights import fill


def plain(model: Model, transform: Transform) -> dict[str, Any]:
    """Configuration, spec and transform as in a model folder, and the weights as arrays."""
    return {
        "model": model.config,
        "spec": to_plain(model.spec),
        "transform": transform.to_dict(),
        "weights": {k: v.detach().cpu().numpy().copy() for k, v in model.state_dict().items()},
    }


def built(stored: Mapping[str, Any], own: Mapping[str, Any]) -> tuple[Model, Transform]:
    """The inverse of :func:`plain`.

    Args:
        stored: the result of :func:`plain`.
        own: custom objects among the model's options.

    Raises:
        CheckpointError: the weights do not match the model.
    """
    options = {**stored["model"]["options"], **own}
    model = registry.build(stored["model"]["name"], from_plain(stored["spec"]), **options)
    fill(model, {k: torch.from_numpy(v.copy()) for k, v in stored["weights"].items()}, "the pickled estimator")
    return model.eval(), Transform.from_dict(stored["transform"])


def parameter(value: Any) -> Any:
    """A parameter as a JSON value; None for values that JSON cannot represent."""
    if isinstance(value, Mapping):
        return {str(k): parameter(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [parameter(v) for v in value]
    value = value.item() if isinstance(value, np.generic) else value
    return value if value is None or isinstance(value, bool | int | float | str) else None
