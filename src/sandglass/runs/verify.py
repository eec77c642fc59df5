"""Checking a run folder that may have been damaged, mixed up or edited since it was written."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import torch

from sandglass.errors import CheckpointError
from sandglass.runs import storage
from sandglass.runs.plain import parse_json, strict_json
from sandglass.runs.run import Checkpoint, Run, read_model_config
from sandglass.runs.weights import read_tensors


def verify(run: Run) -> Iterator[tuple[str, str]]:
    """Checks everything that can be checked, a file or folder after the other.

    Checkpoints and ``model/`` are compared with their manifests; ``config.yaml``, the log and ``model/`` also with what
    the newest checkpoint says of them; other files must be what they claim to be. ``results.json``, the report and the
    figures carry no checksum: they can be made again.

    Args:
        run: the run.

    Returns:
        Each path with what is wrong with it, an empty text where nothing is.
    """
    newest: Checkpoint | None = None
    for step in run.steps():
        problem = ""
        try:
            newest = run.read_checkpoint(step)
        except CheckpointError as error:
            problem = str(error)
        yield str(run.checkpoint_path(step)), problem
    others = sorted(f.name for f in run.path.glob("*.json"))
    for name in ("config.yaml", "metrics.jsonl", "events.jsonl", "model", *others):
        path = run.path / name
        if path.exists():
            problem = ""
            try:
                _check(run, name, newest)
            except (CheckpointError, ValueError, OSError) as error:
                problem = str(error) if str(path) in str(error) else f"{path} is damaged: {error}"
            yield str(path), problem
    for name in ("LAST", "BEST"):
        path = run.path / "checkpoints" / name
        if path.exists():
            good = run.pointed(name) in run.steps()
            yield str(path), "" if good else f"{path} names no checkpoint that is there."


def _check(run: Run, name: str, newest: Checkpoint | None) -> None:
    if name == "model":
        _check_model(run)
    elif name == "metrics.jsonl":
        _check_log(run, newest)
    elif name == "events.jsonl":
        run.events()
    elif name == "config.yaml":
        changed = run.changes(newest) if newest is not None else []
        if changed:
            raise CheckpointError(f"{run.path / name} was changed since the last checkpoint: {changed[0]}.")
    else:
        parse_json((run.path / name).read_bytes())


def _check_model(run: Run) -> None:
    """Whether the folder is whole, and of this run."""
    folder = run.path / "model"
    storage.verify_folder(folder)
    config = read_model_config(folder)
    for key in ("model", "spec", "transform", "classes"):
        if strict_json(config.get(key)) != strict_json(run.config.get(key)):
            raise CheckpointError(f"{folder} is of another run: its '{key}' is not that of config.yaml.")
    step = config.get("step")
    if step not in run.steps():
        return  # its checkpoint was pruned or never was; there is nothing to compare the weights with
    try:
        saved = run.read_checkpoint(step).tensors
    except CheckpointError:
        return  # of which its own line tells
    own, kept = read_tensors(folder / "model.safetensors"), saved.get("ema") or saved["model"]
    if any(name not in kept or not torch.equal(value, kept[name]) for name, value in own.items()):
        raise CheckpointError(
            f"{folder} is of another run: its weights are not those of the checkpoint of step {step}."
        )


def _check_log(run: Run, newest: Checkpoint | None) -> None:
    """Whether the log begins with what had been logged when the newest checkpoint was written."""
    run.metrics()
    if newest is None or "log_sha256" not in newest.state:
        return
    with run.metrics_file.open("rb") as file:
        begun = file.read(newest.state["log_bytes"])
    if hashlib.sha256(begun).hexdigest() != newest.state["log_sha256"]:
        raise CheckpointError(f"{run.metrics_file} is damaged: it is not what step {newest.step} had logged.")
