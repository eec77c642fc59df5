"""The parameters and fitted attributes of an estimator for the model of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sandglass.data.transform import ImageTransform, TableTransform, Transform
from sandglass.runs.load import config_of
from sandglass.runs.run import Run

_FLAT = ("latent_dim", "net")
_TRAINING = ("epochs", "batch_size", "lr")


def parameters(source: Run | str | Path, parts: Mapping[str, Any]) -> dict[str, Any]:
    """The constructor's parameters, from the configuration of a run or model folder.

    Args:
        source: the run or folder.
        parts: custom objects that the model was built with.
    """
    config = config_of(source)
    options, training = {**config["model"]["options"], **parts}, config.get("training", {})
    params: dict[str, Any] = {"model": config["model"]["name"]}
    params |= {name: options.pop(name) for name in _FLAT if name in options}
    params |= {name: training[name] for name in _TRAINING if training.get(name) is not None}
    return {**params, "model_options": options or None, "random_state": training.get("seed")}


def for_arrays(transform: Transform) -> Transform:
    """The transform of a model for images as arrays: those of files and known data sets are floats, channels last."""
    if not isinstance(transform, ImageTransform) or transform.layout:
        return transform
    return replace(transform, layout="NHW" if transform.channels == 1 else "NHWC", dtype="float64")


def shape_of(transform: Transform) -> tuple[int, ...]:
    """The shape of one example of X: a row, or an image or array in the layout of the transform.

    Example:
        >>> shape_of(ImageTransform((4, 6), 3, layout="NCHW"))
        (3, 4, 6)
    """
    if isinstance(transform, TableTransform):
        return (len(transform.columns),)
    return np.shape(transform.inverse(torch.zeros(1, *transform.spec().shape)))[1:]


def names_of(transform: Transform) -> Any:
    """The names of the columns of a DataFrame if all are strings, else None."""
    if not (isinstance(transform, TableTransform) and transform.frame):
        return None
    names = [c["name"] for c in transform.columns]
    return np.array(names, dtype=object) if all(isinstance(name, str) for name in names) else None


def classes_of(source: Run | str | Path) -> np.ndarray[Any, Any]:
    """The classes of a run or model folder in the order of their numbers: names, or whole numbers without names."""
    config = config_of(source)
    names = config.get("classes") or []
    return np.array([str(name) for name in names]) if names else np.arange(config["spec"]["classes"])
