"""A fitted estimator as plain values and arrays for pickling, as a model folder, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sandglass import __version__, registry
from sandglass.core import Model
from sandglass.data.trained_on import transform_of
from sandglass.data.transform import ImageTransform, TableTransform, Transform
from sandglass.engine.device import settle_device
from sandglass.errors import CheckpointError, ConfigError
from sandglass.runs import storage
from sandglass.runs.model_folder import load_model, read_model_config, write_model_folder
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
    options = {**registry.completed(stored["model"]["name"], stored["model"]["options"]), **own}
    model = registry.build(stored["model"]["name"], from_plain(stored["spec"]), **options)
    fill(model, {k: torch.from_numpy(v.copy()) for k, v in stored["weights"].items()}, "the pickled estimator")
    return model.eval(), Transform.from_dict(stored["transform"])


def laid_out(estimator: Any, transform: Transform, top: Any) -> Transform:
    """The transform with the layout and type of ``X``, which versions before 0.2 did not store for images.

    Args:
        estimator: with its parameters and the shape of an example of ``X``.
        transform: the stored transform.
        top: the value of white in ``X`` that such a version stored.

    Raises:
        CheckpointError: the layout does not follow from the shape.
    """
    if isinstance(transform, TableTransform) or transform.layout:
        return transform
    channels, *size = transform.spec().shape
    shape = tuple(estimator._shape)
    last = shape == (*size, channels) and shape != (channels, *size)
    layout = {1: "ND", 2: "NHW"}.get(len(shape), "NHWC" if last else "NCHW")
    fits = estimator.image_shape is not None or (1, *shape)[-3:] in ((*size, channels), (channels, *size))
    if top not in _TYPES or not fits:
        raise CheckpointError(
            f"The estimator was stored by an earlier version, and images of shape {shape} with white {top} do not fit "
            f"its model of {transform.spec().shape}; fit it again."
        )
    if not isinstance(transform, ImageTransform):
        return replace(transform, layout=layout, dtype="float64")
    return replace(transform, layout=layout, dtype=_TYPES[top], value_range=None if top == 1 else (0.0, top))


_TYPES = {1.0: "float64", 255.0: "uint8", 65535.0: "uint16"}
"""Types of images by the value of white."""


def parameter(value: Any) -> Any:
    """A parameter as a JSON value; None for values that JSON cannot represent."""
    if isinstance(value, Mapping):
        return {str(k): parameter(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [parameter(v) for v in value]
    value = value.item() if isinstance(value, np.generic) else value
    return value if value is None or isinstance(value, bool | int | float | str) else None


def write(estimator: Any, path: Path) -> Path:
    """Writes the model folder of a fitted estimator, with its parameters; see :meth:`GenerativeModel.save`."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ConfigError(f"{path} already exists and is not empty; name another folder.")
    with storage.saving(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    stored = plain(estimator.model_, estimator.input_transform_)
    params = {name: parameter(value) for name, value in estimator.get_params(deep=False).items()}
    names = getattr(estimator, "feature_names_in_", None)
    about = {
        "params": params,
        "seed": estimator.seed_,
        "n_features_in": estimator.n_features_in_,
        "feature_names_in": None if names is None else list(names),
        "shape": list(estimator._shape),
        "classes": estimator.classes_.tolist() if hasattr(estimator, "classes_") else None,
    }
    config = {k: stored[k] for k in ("model", "spec", "transform")} | {"classes": [], "sandglass": __version__}
    config["imports"] = registry.origins(estimator.model_.config)
    card = f"# {estimator.model}\n\nRead it with `sandglass.estimator.GenerativeModel.load(folder)`.\n"
    write_model_folder(path, {**config, "step": 0, "estimator": about}, estimator.model_.state_dict(), card)
    return path


def read(make: Any, path: Path, parts: Mapping[str, Any]) -> Any:
    """The inverse of :func:`write`.

    Args:
        make: the estimator's class.
        path: the folder.
        parts: custom objects that the model was built with.

    Raises:
        CheckpointError: the folder is damaged, or was not written by :func:`write`.
    """
    config = read_model_config(path)
    about = config.get("estimator")
    if about is None:
        raise CheckpointError(f"{path} contains no estimator; load its model with sandglass.load.")
    model = load_model(path, **parts)
    try:
        estimator = make(**{**about["params"], **parts})
        estimator.seed_, estimator.n_features_in_ = int(about["seed"]), int(about["n_features_in"])
        estimator._shape = tuple(int(n) for n in about["shape"])
        if about.get("classes") is not None:
            estimator.classes_ = np.array(about["classes"])
        if about["feature_names_in"] is not None:
            estimator.feature_names_in_ = np.array([str(n) for n in about["feature_names_in"]], dtype=object)
        estimator.model_ = model.to(settle_device(estimator.device))
        estimator.input_transform_ = laid_out(estimator, transform_of(path), about.get("top", 1.0))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{path}: the estimator's configuration is damaged ({error}).") from error
    return estimator
