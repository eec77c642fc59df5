"""A trained model with its preprocessing, and the examples for a task."""

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
from sandglass.data.trained_on import as_dataset, reading_of, run_data
from sandglass.data.transform import Transform
from sandglass.engine.options import settle_device
from sandglass.errors import ConfigError, DataError
from sandglass.runs.load import load
from sandglass.runs.run import Run, find_run

_CODES = 5000  # maximum examples for the layout of a latent space


@dataclass(frozen=True)
class Trained:
    """A trained model in eval mode, and its origin.

    Args:
        model: the model.
        reading: the options of :func:`~sandglass.data.load.load_data` that preprocess data like the training data.
        run: its run; None for a model folder or a model from the hub.
        name: its name in messages.
        data: the run's data, where already loaded.
        source: the folder or hub id that another process can load it from.
    """

    model: Model
    reading: Mapping[str, Any]
    run: Run | None
    name: str
    data: Dataset | None = None
    source: str = ""

    @property
    def transform(self) -> Transform:
        """Preprocessing of images or rows for the model, and its inverse."""
        return self.reading["transform"]

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names; empty without classes."""
        return tuple(self.reading.get("classes") or ())

    @cached_property
    def own(self) -> Dataset:
        """The run's data, loaded on first use.

        Raises:
            ConfigError: there is no run, so no data.
            DataError: the data is no longer available.
        """
        if self.data is not None:
            return self.data
        if self.run is None:
            raise ConfigError(f"{self.name} is a model without a run; give the data to use with --data.")
        return run_data(self.run)

    @cached_property
    def codes(self) -> Tensor | None:
        """``(N, D)`` codes of the run's test examples; None without a run or an encoder."""
        if (self.run is None and self.data is None) or "encode" not in self.model.provides:
            return None
        split = self.own.splits.get("test") or self.own.train
        return running.encode(self.model, split.take(torch.arange(min(_CODES, len(split))))).double()


class Source:
    """The examples of a task.

    Args:
        data: other data than the run's own, preprocessed like it: a folder, a file, or a name.
        labels: label column of a table in --data, or false for no labels.
        given: companions of the examples in --data, as NAME=SOURCE, separated by commas.
    """

    def __init__(self, *, data: str | Dataset | None = None, labels: str | None = None, given: str = "") -> None:
        self.data, self.labels, self.given = data, labels, given

    @property
    def options(self) -> dict[str, Any]:
        """Its options again."""
        return {"data": self.data, "labels": self.labels, "given": self.given}

    def read(self, trained: Trained) -> Dataset:
        """The data of the option ``data``, or the run's own.

        Raises:
            ConfigError: there is no run, so no data.
            DataError: the data does not match the model.
        """
        if isinstance(self.data, Dataset):
            return self.data
        if self.data is not None:
            return new_data(trained.reading, self.data, self.labels, self.given)
        for option in ("labels", "given"):
            if getattr(self, option):
                raise ConfigError(f"--{option} needs --data; the run's own data already has its {option}.")
        return trained.own

    def examples(self, trained: Trained, split: str | None, default: str = "test") -> Split:
        """The examples of one or all splits, preprocessed for the model; see :func:`chosen`.

        Raises:
            ConfigError: the model needs labels and the examples have none.
        """
        found = joined(chosen(self.read(trained), split, default))
        if "labels" in trained.model.conditions and found.y is None:
            raise ConfigError(
                f"The model '{trained.model.config['name']}' needs a label for every example; name the label column of "
                "a table with --labels, or put the images of each class into a folder."
            )
        return found


def opened(
    source: Run | str | Path, device: str = "auto", allow_nonfinite: bool = False, *, data: Any = None, **parts: Any
) -> Trained:
    """The trained model of a run, a run folder, a model folder or the hub.

    Args:
        source: the run, its path or hub id.
        device: the device to load it on.
        allow_nonfinite: warn about weights that are not finite instead of raising.
        data: the run's data, where it was passed as a Python object and is no longer in memory.
        parts: custom objects that the model was built with, such as ``net=...``.

    Raises:
        NotFoundError, CheckpointError: the model does not exist, or is damaged.
    """
    path = source.path if isinstance(source, Run) else find_run(source)
    run = source if isinstance(source, Run) else Run(path) if (path / "config.yaml").is_file() else None
    model = load(run or source, device=settle_device(device), allow_nonfinite=allow_nonfinite, **parts)
    reading = reading_of(run or source)
    known = None if data is None else as_dataset(data, reading)
    return Trained(model, reading, run, path.name, known, str(path))


def new_data(reading: Mapping[str, Any], source: str, labels: str | None = None, given: str = "") -> Dataset:
    """New data, preprocessed and with classes numbered like a run's own, in a single split.

    Args:
        reading: see :func:`sandglass.data.trained_on.reading_of`.
        source: path or name of the data.
        labels: label column, ``"false"`` for no labels, None for the labels of the source.
        given: companions as ``NAME=SOURCE``, separated by commas.
    """
    chosen_labels = False if labels == "false" else labels
    return load_data(source, **reading, labels=chosen_labels, given=given or None, validation=0.0, test=0.0)


def chosen(data: Dataset, split: str | None, default: str) -> dict[str, Split]:
    """The splits selected by a name.

    Args:
        data: the dataset.
        split: a name, ``"all"``, or None for the default.
        default: ``"all"`` or the preferred split; all splits if it does not exist.

    Raises:
        DataError: there is no such split.
    """
    wanted = split or (default if default in data.splits else "all")
    if wanted == "all":
        return dict(data.splits)
    if wanted not in data.splits:
        raise DataError(f"There is no split '{wanted}' in '{data.name}'; it has: {', '.join(data.splits)}.")
    return {wanted: data.splits[wanted]}


def joined(splits: Mapping[str, Split]) -> Split:
    """Concatenates several splits."""
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
        beside={name: joined({key: p.beside[name] for key, p in splits.items()}) for name in first.beside},
    )


def _together(tensors: Sequence[Tensor | None]) -> Tensor | None:
    """Concatenated tensors; None if any is None."""
    present = [t for t in tensors if t is not None]
    return torch.cat(present) if len(present) == len(tensors) else None


def _filled(tensors: Sequence[Tensor | None], shapes: Sequence[tuple[int, ...]], fill: bool) -> Tensor:
    """Concatenated booleans, with ``fill`` for parts that are None."""
    return torch.cat([torch.full(s, fill) if t is None else t.cpu() for t, s in zip(tensors, shapes, strict=True)])


def positions(total: int, n: int) -> Tensor:
    """``(n,)`` evenly spaced indices, since data is often sorted by class; all indices if there are at most ``n``.

    Example:
        >>> positions(10, 4), positions(2, 4)
        (tensor([0, 2, 5, 7]), tensor([0, 1]))
    """
    n = min(n, total)
    return torch.arange(n) * total // max(1, n)


def check_count(name: str, value: int | None, least: int = 1) -> None:
    """Checks that a number is not too small.

    Raises:
        ConfigError: it is.
    """
    if value is not None and value < least:
        raise ConfigError(f"{name} must be a whole number of at least {least}, not {value}.")
