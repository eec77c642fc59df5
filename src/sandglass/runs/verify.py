"""Verifies a run folder that may have been damaged, mixed up or edited."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import torch

from sandglass.errors import CheckpointError
from sandglass.runs import storage
from sandglass.runs.model_folder import read_model_config
from sandglass.runs.plain import parse_json, strict_json
from sandglass.runs.run import Checkpoint, Run
from sandglass.runs.weights import read_tensors


def verify(run: Run) -> Iterator[tuple[str, str]]:
    """Verifies the files and folders of a run one by one.

    Checkpoints and ``model/`` are compared with their manifests; ``config.yaml``, the log and ``model/`` also with the
    newest checkpoint; other files must be valid JSON. ``results.json``, the report and the figures have no checksums,
    as they can be recreated.

    Args:
        run: the run.

    Returns:
        Pairs of a path and its error, an empty string if there is none.
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
            yield str(path), "" if good else f"{path} names a checkpoint that does not exist."


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
    """Checks that the model folder is intact and belongs to this run."""
    folder = run.path / "model"
    storage.verify_folder(folder)
    config = read_model_config(folder)
    for key in ("model", "spec", "transform", "classes"):
        if strict_json(config.get(key)) != strict_json(run.config.get(key)):
            raise CheckpointError(f"{folder} belongs to another run: its '{key}' differs from config.yaml.")
    step = config.get("step")
    if step not in run.steps():
        return  # there is no checkpoint to compare the weights with
    try:
        saved = run.read_checkpoint(step).tensors
    except CheckpointError:
        return  # reported for the checkpoint itself
    own, kept = read_tensors(folder / "model.safetensors"), saved.get("ema") or saved["model"]
    if any(name not in kept or not torch.equal(value, kept[name]) for name, value in own.items()):
        raise CheckpointError(
            f"{folder} belongs to another run: its weights differ from the checkpoint of step {step}."
        )


def _check_log(run: Run, newest: Checkpoint | None) -> None:
    """Checks that the log starts with the records logged before the newest checkpoint."""
    run.metrics()
    if newest is None or "log_sha256" not in newest.state:
        return
    with run.metrics_file.open("rb") as file:
        begun = file.read(newest.state["log_bytes"])
    if hashlib.sha256(begun).hexdigest() != newest.state["log_sha256"]:
        raise CheckpointError(f"{run.metrics_file} is damaged: it differs from the log at step {newest.step}.")
