"""What every use of a trained model begins with: the model, the way its data is prepared, and examples for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sandglass import running
from sandglass.core import Model
from sandglass.data import rows
from sandglass.data.dataset import Dataset, Split
from sandglass.data.load import load_data
from sandglass.data.trained_on import reading_of, run_data
from sandglass.data.transform import Transform
from sandglass.engine.options import settle_device
from sandglass.errors import ConfigError, DataError, NotFoundError
from sandglass.runs.load import load
from sandglass.runs.run import Run

_CODES = 5000  # examples that a latent space is laid out by


@dataclass(frozen=True)
class Trained:
    """A trained model in eval mode, and where it came from.

    Args:
        model: the model.
        reading: the options of :func:`~sandglass.data.load.load_data` that prepare data as the model's was.
        run: None for a model folder or one from the hub.
        name: what messages call it.
        data: what it was trained on, where that is at hand already.
    """

    model: Model
    reading: Mapping[str, Any]
    run: Run | None
    name: str
    data: Dataset | None = None

    @property
    def transform(self) -> Transform:
        """How a picture or row is prepared for it, and the way back."""
        return self.reading["transform"]

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes it knows; empty without any."""
        return tuple(self.reading.get("classes") or ())

    @cached_property
    def own(self) -> Dataset:
        """What it was trained on, read when it is first asked for.

        Raises:
            ConfigError: a model folder has no data of its own.
            DataError: the data is not there any more.
        """
        if self.data is not None:
            return self.data
        if self.run is None:
            raise ConfigError(f"{self.name} is a model without its run; say what to use it on with --data.")
        return run_data(self.run)

    @cached_property
    def codes(self) -> Tensor | None:
        """``(N, D)`` codes of test examples of its own; None without a run, or a model that does not encode."""
        if (self.run is None and self.data is None) or "encode" not in self.model.provides:
            return None
        split = self.own.splits.get("test") or self.own.train
        return running.encode(self.model, split.take(torch.arange(min(_CODES, len(split))))).double()


class Source:
    """Where the examples of a task come from.

    Args:
        data: other examples than the run's own, prepared as those were: a folder, a file, a name.
        labels: of data: a table's column of labels, or false to read no labels at all.
        given: of data: the companions that a model needs with each example, NAME=SOURCE with commas between.
    """

    def __init__(self, *, data: str | Dataset | None = None, labels: str | None = None, given: str = "") -> None:
        self.data, self.labels, self.given = data, labels, given

    def read(self, trained: Trained) -> Dataset:
        """The run's own data, or the other.

        Raises:
            ConfigError: a model folder has no data of its own.
            DataError: data that does not fit the model.
        """
        if isinstance(self.data, Dataset):
            return self.data
        if self.data is not None:
            return new_data(trained.reading, self.data, self.labels, self.given)
        for option in ("labels", "given"):
            if getattr(self, option):
                raise ConfigError(f"--{option} goes with --data; a run's own {option} are what it was trained on.")
        return trained.own

    def examples(self, trained: Trained, split: str | None, usual: str = "test") -> Split:
        """The examples of one or all splits, fit for the model; see :func:`chosen`.

        Raises:
            CapabilityError: a model that needs classes, and there are none.
        """
        found = joined(chosen(self.read(trained), split, usual))
        if "labels" in trained.model.conditions and found.y is None:
            raise ConfigError(
                f"The model '{trained.model.config['name']}' needs the class of every example; name the column of a "
                "table with --labels, or put pictures into a folder for each class."
            )
        return found


def opened(source: str, device: str = "auto", allow_nonfinite: bool = False) -> Trained:
    """The trained model of a run folder, a model folder or the hub.

    Args:
        source: where it is.
        device: where to put it.
        allow_nonfinite: warn of weights that are not finite in place of refusing them.

    Raises:
        NotFoundError, CheckpointError: it is not there, or damaged.
    """
    path = find_run(source)
    run = Run(path) if (path / "config.yaml").is_file() else None
    model = load(run or source, device=settle_device(device), allow_nonfinite=allow_nonfinite)
    return Trained(model, reading_of(run or source), run, path.name)


def of_run(run: Run, data: Dataset | None = None, *, device: str = "cpu") -> Trained:
    """The trained model of a run, beside its data where that is at hand."""
    return Trained(run.load_model(device=device), reading_of(run), run, run.path.name, data)


def find_run(source: str) -> Path:
    """The folder, or the newest run for ``latest``.

    Raises:
        NotFoundError: there are no runs.
    """
    if source == "latest" and not Path(source).exists():
        found = sorted(Path("runs").glob("*/config.yaml"), key=lambda p: p.stat().st_mtime)
        if not found:
            raise NotFoundError("There is no run in the folder runs/ yet; `sandglass train --recipe digits` makes one.")
        return found[-1].parent
    return Path(source)


def new_data(reading: Mapping[str, Any], source: str, labels: str | None = None, given: str = "") -> Dataset:
    """Other examples than a run's own, prepared and their classes numbered as those were, and kept together.

    Args:
        reading: see :func:`sandglass.data.trained_on.reading_of`.
        source: where they are.
        labels: a column, ``"false"`` for no labels, None for what the source has.
        given: their companions, ``NAME=SOURCE`` with commas between.
    """
    chosen_labels = False if labels == "false" else labels
    return load_data(source, **reading, labels=chosen_labels, given=given or None, validation=0.0, test=0.0)


def chosen(data: Dataset, split: str | None, usual: str) -> dict[str, Split]:
    """The splits meant by a name.

    Args:
        data: where from.
        split: a name, ``"all"``, or None for the usual one.
        usual: ``"all"``, or the preferred split; where it is missing, all of them stand for it.

    Raises:
        DataError: there is no such split.
    """
    wanted = split or (usual if usual in data.splits else "all")
    if wanted == "all":
        return dict(data.splits)
    if wanted not in data.splits:
        raise DataError(f"There is no split '{wanted}' in '{data.name}'; it has: {', '.join(data.splits)}.")
    return {wanted: data.splits[wanted]}


def joined(splits: Mapping[str, Split]) -> Split:
    """Several splits as one."""
    parts = list(splits.values())
    if len(parts) == 1:
        return parts[0]
    first = parts[0]
    return replace(
        first,
        x=rows.joined([p.x for p in parts]),
        y=_together([p.y for p in parts]),
        names=tuple(n for p in parts for n in p.names),
        factors=_together([p.factors for p in parts]),
        mask=None
        if all(p.mask is None for p in parts)
        else _filled([p.mask for p in parts], [tuple(p.x.shape) for p in parts], True),
        given={name: rows.joined([p.given[name] for p in parts]) for name in first.given},
        absent={
            name: _filled([p.absent.get(name) for p in parts], [(len(p),) for p in parts], False)
            for name in dict.fromkeys(n for p in parts for n in p.absent)
        },
    )


def _together(tensors: Sequence[Tensor | None]) -> Tensor | None:
    """One after the other; None where some part has none."""
    there = [t for t in tensors if t is not None]
    return torch.cat(there) if len(there) == len(tensors) else None


def _filled(tensors: Sequence[Tensor | None], shapes: Sequence[tuple[int, ...]], usual: bool) -> Tensor:
    """Booleans one after the other, those of a part without any being the usual."""
    return torch.cat([torch.full(s, usual) if t is None else t.cpu() for t, s in zip(tensors, shapes, strict=True)])


def positions(total: int, n: int) -> Tensor:
    """``(n,)`` places in so many, evenly spread, for files often come class by class; all where there are fewer.

    Example:
        >>> positions(10, 4), positions(2, 4)
        (tensor([0, 2, 5, 7]), tensor([0, 1]))
    """
    n = min(n, total)
    return torch.arange(n) * total // max(1, n)


def check_count(name: str, value: int | None, least: int = 1) -> None:
    """Refuses a number that is too small.

    Raises:
        ConfigError: it is.
    """
    if value is not None and value < least:
        raise ConfigError(f"{name} must be a whole number of at least {least}, not {value}.")
