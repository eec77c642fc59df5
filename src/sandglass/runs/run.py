"""The run folder: the interface between training and later steps, and the only code that locates weights in it.

::

    runs/<name>/
      config.yaml      everything needed to repeat the run; its long lists are in config-*.json
      metrics.jsonl    a record per logged value: step, epoch, split, phase, term, value, n
      events.jsonl     starts and stops with timestamps; a separate file, so that metrics.jsonl is reproducible
      model/           config.json, model.safetensors, README.md, MANIFEST.json: the selected weights, self-contained
      checkpoints/     step-XXXXXXXX/ folders, LAST and BEST (text files with the name of a folder)
      results.json     evaluation results       report.html, figures/
      bad_files.csv    files of the data that could not be read, with reasons; only if there are any
"""

from __future__ import annotations

import copy
import functools
import hashlib
import os
import re
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, ParamSpec, cast

import torch
from torch import Tensor

from sandglass import __version__
from sandglass.core import Model
from sandglass.errors import CheckpointError, ConfigError, NotFoundError, SaveError
from sandglass.runs import history, overview, settings, storage
from sandglass.runs.configuration import files_of, read_config
from sandglass.runs.lock import LOCK_FILES
from sandglass.runs.model_folder import assemble, load_model, write_model_folder
from sandglass.runs.plain import last_jsonl, read_json, read_jsonl, strict_json
from sandglass.runs.weights import read_tensors, tensor_file

P = ParamSpec("P")

_STEP = re.compile(r"^step-(\d{8,})$")


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint: ``tensors`` by file, and ``state`` as plain values."""

    step: int
    tensors: Mapping[str, Mapping[str, Tensor]]
    state: Mapping[str, Any]


def _writing(method: Callable[P, None]) -> Callable[P, None]:
    """Only of a run that is written here; others are left to the process that writes them."""

    @functools.wraps(method)
    def call(*args: P.args, **kwargs: P.kwargs) -> None:
        if cast(Run, args[0]).writes:
            method(*args, **kwargs)

    return call


class Run:
    """A run folder on disk.

    Args:
        path: the folder, or ``latest`` for the newest in ``runs/``.
        writes: whether anything is written to it; not by a process whose training another one records.

    Attributes:
        data: what it was trained on, if this Python process trained it on an object that no file has; else None.
        parts: the custom objects that its model was built with, such as a net, if this Python process trained it.

    Raises:
        NotFoundError: there is no run there.
    """

    data: Any = None
    parts: Mapping[str, Any] = MappingProxyType({})

    def __init__(self, path: str | Path, *, writes: bool = True) -> None:
        self.path, self.writes = find_run(path), writes
        if not (self.path / "config.yaml").is_file():
            if not self.path.exists():
                raise NotFoundError(f"There is no folder {self.path}. `sandglass runs` lists all runs.")
            raise NotFoundError(f"{self.path} is not a run: it has no config.yaml. `sandglass runs` lists all runs.")
        self.config: dict[str, Any] = read_config(self.path / "config.yaml")
        version = self.config.get("format", 2)
        if version == 1:
            raise ConfigError(
                f"{self.path} was written by Sandglass 0.1, whose weights have other names: read it with "
                "that version, or train again with its settings: "
                f"sandglass train --config {self.path / 'config.yaml'}."
            )
        if version != 2:
            raise ConfigError(f"{self.path} was written by a newer Sandglass (format {version}); upgrade to read it.")
        settings.check(self.config, self.path / "config.yaml")

    def __repr__(self) -> str:
        return overview.line(self)

    def _repr_html_(self) -> str:
        """What a notebook shows: what was trained on what, and its figures."""
        return overview.page(self)

    @classmethod
    def create(cls, path: str | Path, config: Mapping[str, Any]) -> Run:
        """Creates the folder and writes its configuration.

        Raises:
            ConfigError: the path already exists and is not empty, or the configuration is too large to be read again.
            SaveError: the folder could not be created.
        """
        path = Path(path)
        if path.exists() and (not path.is_dir() or any(f for f in path.iterdir() if f.name not in LOCK_FILES)):
            raise ConfigError(f"{path} already exists and is not empty; name another folder, or use --resume {path}.")
        files = files_of(config)
        with storage.saving(path):
            (path / "checkpoints").mkdir(parents=True, exist_ok=True)
            (path / "metrics.jsonl").touch()
        for name, data in files.items():
            storage.write_file(path / name, data)
        return cls(path)

    def rewrite(self, config: Mapping[str, Any]) -> None:
        """Replaces the configuration, for example when a run is resumed with more epochs."""
        self.config = dict(config)
        if self.writes:
            for name, data in files_of(self.config).items():
                storage.write_file(self.path / name, data)

    # log

    @property
    def metrics_file(self) -> Path:
        """The file of logged values."""
        return self.path / "metrics.jsonl"

    def metrics(self) -> list[dict[str, Any]]:
        """All logged records in order; an incomplete last line, as after a crash, is ignored."""
        return read_jsonl(self.metrics_file)

    def last_metrics(self) -> list[dict[str, Any]]:
        """The last logged records, some hundred, without reading all of them."""
        return last_jsonl(self.metrics_file)

    def history(self) -> Any:
        """A DataFrame with a row for every epoch of every stage: ``stage``, ``epoch``, and a column for each term.

        A column is named by split and term, such as ``train_loss`` or ``validation_objective``, with the phase between
        them where a stage has several. Values of training are means over the examples of the epoch while the weights
        change, those of other splits are measured after it; ``lr`` is that of the last update.

        Raises:
            MissingPackageError: pandas is not installed.

        Example:
            >>> import tempfile
            >>> from sandglass import train
            >>> run = train("vae", "digits", out=tempfile.mkdtemp() + "/run", epochs=2, net="mlp", sheets=0)
            >>> run.history()["epoch"].tolist(), "train_loss" in run.history()
            ([1, 2], True)
        """
        return history.frame(self.metrics())

    def events(self) -> list[dict[str, Any]]:
        """The records of ``events.jsonl``."""
        return read_jsonl(self.path / "events.jsonl")

    @_writing
    def event(self, name: str, **values: Any) -> None:
        """Logs an event with a timestamp."""
        record = {"time": datetime.now(UTC).isoformat(timespec="seconds"), "event": name, **values}
        storage.append(self.path / "events.jsonl", strict_json(record) + "\n")

    @_writing
    def log(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Appends records to ``metrics.jsonl``; non-finite values are written as null."""
        storage.append(self.metrics_file, "".join(strict_json(r) + "\n" for r in records))

    def results(self) -> dict[str, Any]:
        """The results of ``evaluate`` by split; empty if there are none.

        Raises:
            CheckpointError: the file is damaged.
        """
        file = self.path / "results.json"
        results = read_json(file) if file.is_file() else {}
        for split in results.values():
            metrics = split.get("metrics") if isinstance(split, dict) else None
            if not isinstance(metrics, dict) or not all(isinstance(m, dict) and "value" in m for m in metrics.values()):
                raise CheckpointError(f"{file} is damaged: it has no metrics; `sandglass evaluate` recreates it.")
        return results

    @_writing
    def write_results(self, results: Mapping[str, Any]) -> None:
        """Replaces ``results.json``."""
        storage.write_file(self.path / "results.json", (strict_json(results, indent=1) + "\n").encode())

    # checkpoints

    def steps(self) -> list[int]:
        """Steps of all checkpoints in ascending order, by folder name."""
        folder = self.path / "checkpoints"
        matches = (_STEP.match(f.name) for f in (folder.iterdir() if folder.is_dir() else ()))
        return sorted(int(m[1]) for m in matches if m)

    def checkpoint_path(self, step: int) -> Path:
        """The folder of the checkpoint of a step."""
        return self.path / "checkpoints" / f"step-{step:08d}"

    @_writing
    def save_checkpoint(
        self, step: int, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any], about: Mapping[str, Any]
    ) -> None:
        """Writes a checkpoint atomically, then points ``LAST`` at it.

        Args:
            step: number of completed updates.
            tensors: ``{"model": {...}, "optim": {...}, ...}``, a file for each.
            state: plain values; the configuration and a checksum of the log are added.
            about: plain values for the manifest.

        Raises:
            SaveError: it could not be written, or there is too little disk space; older checkpoints are unchanged.
        """
        self._check_room(step)
        with storage.saving(self.metrics_file), self.metrics_file.open("rb+") as file:
            os.fsync(file.fileno())
            log = {"log_sha256": hashlib.file_digest(file, "sha256").hexdigest(), "log_bytes": file.tell()}
        files: dict[str, storage.Content] = {f"{k}.safetensors": tensor_file(v) for k, v in tensors.items()}
        more = {"step": step, **log, "config": settings.fixed(self.config)}
        files["state.json"] = strict_json({**state, **more}, indent=1).encode()
        storage.write_folder(self.checkpoint_path(step), files, {"step": step, **about})
        self.point("LAST", step)

    def _check_room(self, step: int) -> None:
        """Raises a SaveError before the disk is full, to leave space for the log and the model."""
        steps, free = self.steps(), storage.free_bytes(self.path)
        size = storage.folder_bytes(self.checkpoint_path(steps[-1])) if steps else 0
        if free is not None and free < 2 * size:
            raise SaveError(
                f"{self.checkpoint_path(step)} was not written: {free / 2**20:,.0f} MiB are free, "
                f"{2 * size / 2**20:,.1f} MiB are needed. Free disk space, then continue with --resume {self.path}."
            )

    @_writing
    def point(self, name: str, step: int) -> None:
        """Writes the text pointer ``LAST`` or ``BEST``."""
        storage.write_file(self.path / "checkpoints" / name, f"{self.checkpoint_path(step).name}\n".encode())

    def pointed(self, name: str) -> int | None:
        """The step that a pointer names, None if there is no pointer."""
        file = self.path / "checkpoints" / name
        match = _STEP.match(file.read_bytes()[:99].decode(errors="replace").strip()) if file.is_file() else None
        return int(match[1]) if match else None

    def read_checkpoint(self, step: int) -> Checkpoint:
        """Reads and verifies one checkpoint.

        Raises:
            CheckpointError: it is missing or damaged; the message names the file.
        """
        folder = self.checkpoint_path(step)
        manifest = storage.verify_folder(folder)
        if manifest.get("step") != step:
            raise CheckpointError(f"{folder} holds step {manifest.get('step')}: it was renamed.")
        state = read_json(folder / "state.json")
        names = [n for n in manifest["files"] if n.endswith(".safetensors")]
        return Checkpoint(step, {n.removesuffix(".safetensors"): read_tensors(folder / n) for n in names}, state)

    def latest_checkpoint(self, stages: Collection[str] | None = None) -> tuple[Checkpoint | None, list[str]]:
        """The newest valid checkpoint, of one of these stages if given, and the errors of newer, damaged ones."""
        problems: list[str] = []
        for step in reversed(self.steps()):
            try:
                found = self.read_checkpoint(step)
            except CheckpointError as error:
                problems.append(str(error))
                continue
            if stages is None or found.state.get("loop", {}).get("stage") in stages:
                return found, problems
        return None, problems

    @_writing
    def drop_after(self, checkpoint: Checkpoint | None, *, keep_trained: Sequence[str]) -> None:
        """Deletes the checkpoints after a given one, so that an earlier stage can be extended.

        Args:
            checkpoint: the checkpoint to resume from; None if the stage has none.
            keep_trained: the stages up to the extended one.

        Raises:
            ConfigError: a later stage has training steps (not only a fit), which would be lost, or there is no
                checkpoint to resume from. Nothing is deleted then.
        """
        later = [k for k in self.steps() if checkpoint is None or k > checkpoint.step]
        for k in later:
            state = self.read_checkpoint(k).state["loop"]
            if state["stage"] not in keep_trained and state["step"]:
                raise ConfigError(
                    f"{self.path} is already in its stage '{state['stage']}', whose training would be lost; extend "
                    f"that stage with --stage.{state['stage']}.epochs, or start a new run with --init-from {self.path}."
                )
        if later and checkpoint is None:
            raise ConfigError(
                f"{self.path}: there is no checkpoint of its stage '{keep_trained[-1]}' to resume from; "
                f"start a new run with --init-from {self.path}."
            )
        for k in later:
            self._delete(k)

    @_writing
    def prune(self, keep: int, needed: Collection[int | None]) -> None:
        """Deletes all but the newest ``keep`` checkpoints and those in ``needed``."""
        for step in self.steps()[: -max(keep, 1)]:
            if step not in needed:
                self._delete(step)

    def _delete(self, step: int) -> None:
        """Deletes a checkpoint; renames it first, so that a crash cannot leave a partial one that looks complete."""
        gone = self.path / "checkpoints" / f".{self.checkpoint_path(step).name}.tmp-{os.getpid()}"
        with storage.saving(self.checkpoint_path(step)):
            os.rename(self.checkpoint_path(step), gone)
        shutil.rmtree(gone, ignore_errors=True)

    @_writing
    def rewind_log(self, size: int) -> None:
        """Truncates ``metrics.jsonl`` to its size at a checkpoint."""
        if self.metrics_file.stat().st_size < size:
            raise CheckpointError(f"{self.metrics_file} is shorter than at the checkpoint; it was cut or replaced.")
        with storage.saving(self.metrics_file):
            os.truncate(self.metrics_file, size)

    def changes(self, checkpoint: Checkpoint) -> list[str]:
        """The settings in ``config.yaml`` that changed since a checkpoint, one string each."""
        before, now = checkpoint.state.get("config"), settings.fixed(self.config)
        if not isinstance(before, dict):
            return []
        # An option that the checkpoint does not know is newer than it, and was off.
        names = [n for n in {**before, **now} if before.get(n) != now.get(n) and (n in before or now[n])]
        names = [n for n in names if not settings.may_change(n)]
        return [f"{n} was {before.get(n)}, is {now.get(n)}" for n in names]

    # model

    @_writing
    def write_model(self, tensors: Mapping[str, Tensor], card: str, step: int) -> None:
        """Writes the self-contained ``model/`` folder: configuration, weights, model card and manifest."""
        keys = ("model", "spec", "transform", "classes", *({"imports"} & self.config.keys()))
        about = {"precision": self.config["training"]["precision"], "sandglass": __version__, "step": step}
        write_model_folder(self.path / "model", {k: self.config[k] for k in keys} | about, tensors, card)

    def load_model(
        self,
        which: str = "kept",
        *,
        device: str | torch.device = "cpu",
        allow_nonfinite: bool = False,
        **parts: Any,
    ) -> Model:
        """The model of this run in eval mode.

        Args:
            which: ``"kept"`` for ``model/``, ``"last"`` for the newest checkpoint.
            device: device of the model.
            allow_nonfinite: warn about non-finite weights instead of raising an error.
            parts: custom objects that the model was built with, such as ``net=...``.

        Raises:
            CheckpointError: damaged or missing weights.
        """
        parts = {**copy.deepcopy(dict(self.parts)), **parts}
        if which == "kept" and (self.path / "model").is_dir():
            return load_model(self.path / "model", device=device, allow_nonfinite=allow_nonfinite, **parts)
        checkpoint, problems = self.latest_checkpoint()
        if checkpoint is None:
            raise CheckpointError(problems[0] if problems else f"{self.path} has no weights yet: nothing was saved.")
        tensors = checkpoint.tensors.get("ema") or checkpoint.tensors["model"]
        where = self.checkpoint_path(checkpoint.step)
        return assemble(self.config, tensors, where, device, parts, allow_nonfinite)


def find_run(source: str | Path) -> Path:
    """The run folder, or the newest run for ``latest``.

    Raises:
        NotFoundError: there are no runs.
        ConfigError: it is no path.
    """
    if not isinstance(source, str | os.PathLike) or not str(source):
        raise ConfigError(f"A run is named by its folder, or latest for the newest in runs/, not by {source!r:.80}.")
    place = storage.place_of(source)
    if str(source) == "latest" and not place.exists():
        found = sorted(Path("runs").glob("*/config.yaml"), key=lambda p: p.stat().st_mtime)
        if not found:
            raise NotFoundError(
                "There is no run in the folder runs/ yet; create one with `sandglass train --recipe digits`."
            )
        return found[-1].parent
    return place
