"""Loads a trained model from a run, a model folder or the Hugging Face hub."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sandglass.core import Model
from sandglass.errors import MissingPackageError, NotFoundError
from sandglass.runs.model_folder import load_model, read_model_config
from sandglass.runs.run import Run, find_run
from sandglass.runs.storage import is_there


def load(source: str | Path | Run, *, device: str = "cpu", allow_nonfinite: bool = False, **parts: Any) -> Model:
    """Loads a trained model in eval mode from a run, a model folder or a Hugging Face hub id (``owner/name``).

    Args:
        source: run, folder or hub id; ``latest`` is the newest run in ``runs/``.
        device: device of the model.
        allow_nonfinite: warn about non-finite weights instead of raising an error.
        parts: custom objects that the model was built with, such as ``net=...``.

    Raises:
        NotFoundError: there is no such run, folder or hub id.
        CheckpointError: it is damaged.
        MissingPackageError: a hub id needs ``pip install sandglass-ml[hub]``.
    """
    parts = {"allow_nonfinite": allow_nonfinite, **parts}
    if isinstance(source, Run):
        return source.load_model(device=device, **parts)
    path = find_run(source)
    if (path / "config.yaml").is_file():
        return Run(path).load_model(device=device, **parts)
    if (path / "config.json").is_file():
        return load_model(path, device=device, **parts)
    return load_model(fetch(str(source)), device=device, **parts)


def parts_of(source: Run | str | Path, options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The custom objects that a model was built with, such as ``net=...``, and all other options."""
    model = config_of(source).get("model")
    known = model.get("options") if isinstance(model, Mapping) else None
    known = known if isinstance(known, Mapping) else {}
    own = {name for name, value in known.items() if isinstance(value, Mapping) and "custom" in value}
    parts = {name: value for name, value in options.items() if name in own}
    return parts, {name: value for name, value in options.items() if name not in own}


def fetch(name: str) -> Path:
    """Downloads a model folder from the Hugging Face hub.

    Raises:
        NotFoundError: it is neither a local folder nor on the hub.
        MissingPackageError: huggingface_hub is not installed.
    """
    owner = name.split("/")[0]
    if is_there(name):
        raise NotFoundError(f"{name} is neither a run (config.yaml) nor a model folder (config.json).")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name) or owner == "runs" or is_there(owner):
        raise NotFoundError(f"There is no folder {name}. `sandglass runs` lists all runs.")
    meant = Path("runs") / name.split("/")[-1]
    if meant.is_dir():
        raise NotFoundError(f"There is no folder {name}. Did you mean {meant}?")
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
    except ImportError as error:
        raise MissingPackageError(
            f"There is no folder {name}; to fetch it from the hub: pip install 'sandglass-ml[hub]'."
        ) from error
    try:
        patterns = ["config.json", "model.safetensors", "README.md", "MANIFEST.json"]
        return Path(snapshot_download(name, allow_patterns=patterns))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        why = str(error).strip().split("\n")[0]
        raise NotFoundError(f"There is no folder {name}, and the download from the hub failed: {why[:200]}") from error


def kept_step(run: Run) -> int:
    """The training step of the weights in ``model/``."""
    return read_model_config(run.path / "model")["step"] if (run.path / "model").is_dir() else run.steps()[-1]


def config_of(source: Run | str | Path) -> dict[str, Any]:
    """The configuration of a run, a model folder or a model on the hub."""
    if isinstance(source, Run):
        return source.config
    path = find_run(source)
    if (path / "config.yaml").is_file():
        return Run(path).config
    return read_model_config(path if path.exists() else fetch(str(source)))
