"""The model folder: a configuration, weights, a model card and a manifest, from which the model is built again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sandglass import __version__, registry
from sandglass.core import Model
from sandglass.errors import CheckpointError, ConfigError, NotFoundError
from sandglass.runs import storage
from sandglass.runs.needed import check_needed
from sandglass.runs.plain import read_json, strict_json
from sandglass.runs.specification import from_plain
from sandglass.runs.weights import fill, read_tensors, tensor_file


def write_model_folder(path: Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor], card: str) -> None:
    """Writes a self-contained model folder; see :func:`load_model`."""
    files: dict[str, storage.Content] = {
        "config.json": (strict_json(config, indent=1) + "\n").encode(),
        "model.safetensors": tensor_file(tensors),
        "README.md": card.encode(),
    }
    storage.write_folder(path, files, {"sandglass": __version__, "torch": str(torch.__version__)})


def load_model(
    path: str | Path, *, device: str | torch.device = "cpu", allow_nonfinite: bool = False, **parts: Any
) -> Model:
    """Loads the model of a model folder in eval mode; nothing in the folder is executed.

    Args:
        path: the folder.
        device: device of the model.
        allow_nonfinite: warn about non-finite weights instead of raising an error.
        parts: custom objects that the model was built with, such as ``net=...``.

    Raises:
        CheckpointError: the folder is damaged, or the weights do not match the configuration.
        ConfigError: an unknown model, or a custom object that was not passed.
    """
    path = Path(path)
    storage.verify_folder(path)
    config = read_model_config(path)
    return assemble(config, path / "model.safetensors", path, device, parts, allow_nonfinite)


def read_model_config(path: str | Path) -> dict[str, Any]:
    """``config.json`` of a model folder."""
    try:
        return read_json(Path(path) / "config.json")
    except NotFoundError as error:
        raise NotFoundError(f"{path} is not a model folder: it has no config.json.") from error


def assemble(
    config: Mapping[str, Any],
    weights: Mapping[str, Tensor] | Path,
    source: Path,
    device: str | torch.device,
    parts: Mapping[str, Any],
    allow_nonfinite: bool,
) -> Model:
    """Builds the model of a configuration and loads its weights, after comparing shapes with the weights' header."""
    try:
        name, options = config["model"]["name"], dict(config["model"]["options"])
        spec = from_plain(config["spec"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{source}: the configuration lacks its model or spec ({error}).") from error
    check_needed(config, parts, source)
    try:
        options = registry.completed(name, options) | dict(parts)
        outline = registry.outline(name, spec, **options)
        tensors = read_tensors(weights, outline) if isinstance(weights, Path) else weights
        model = registry.build(name, spec, **options)
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}") from error
    fill(model, tensors, str(source), allow_nonfinite=allow_nonfinite)
    model.precision = str(config.get("precision") or config.get("training", {}).get("precision", "fp32"))
    return model.to(device).eval()
