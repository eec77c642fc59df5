"""A trained model with its preprocessing, and the examples for a task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from numbers import Integral
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sandglass import running
from sandglass.core import Model
from sandglass.data.dataset import Dataset, Split
from sandglass.data.selecting import chosen, joined
from sandglass.data.trained_on import as_dataset, find_data, new_data, own_data, reading_of
from sandglass.data.transform import Transform
from sandglass.engine.device import settle_device
from sandglass.errors import ConfigError
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
        notes: remarks on the data that was used, for the user.
    """

    model: Model
    reading: Mapping[str, Any]
    run: Run | None
    name: str
    data: Dataset | None = None
    source: str = ""
    notes: list[str] = field(default_factory=list)

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
        found = find_data(self.run)
        self.notes.extend([found.remark] if found.remark else [])
        return found.data

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
        data: the new place of the run's own data, or other data, preprocessed like it: a folder, a file, or a name.
        labels: label column of a table in --data, FILE[:COLUMN] for pictures, or false for no labels.
        labels_from_names: pattern of the file names in --data that holds their class, such as {label}_*.jpg.
        given: companions of the examples in --data, as NAME=SOURCE, separated by commas.
    """

    def __init__(
        self,
        *,
        data: str | Dataset | None = None,
        labels: str | None = None,
        labels_from_names: str | None = None,
        given: str = "",
    ) -> None:
        self.data = data
        self._options = {"labels": labels, "labels_from_names": labels_from_names, "given": given}
        self._found: dict[bool, Dataset] = {}

    @property
    def options(self) -> dict[str, Any]:
        """Its options again."""
        return {"data": self.data, **self._options}

    @property
    def changes(self) -> dict[str, Any]:
        """Its options as those of :func:`~sandglass.data.load.load_data`; None for those that were not given."""
        labels = self._options["labels"]
        return {
            **self._options,
            "labels": False if labels == "false" else labels,
            "given": self._options["given"] or None,
        }

    def read(self, trained: Trained, *, in_order: bool = False) -> Dataset:
        """The data of the option ``data``, or the run's own; read once.

        Args:
            trained: the model.
            in_order: see :func:`~sandglass.data.trained_on.find_data`.

        Raises:
            ConfigError: there is no run, so no data.
            DataError: the data does not match the model.
        """
        if in_order not in self._found:
            self._found[in_order] = self._read(trained, in_order)
        return self._found[in_order]

    def _read(self, trained: Trained, in_order: bool) -> Dataset:
        if isinstance(self.data, Dataset):
            return self.data
        if self.data is None:
            for option, value in self.changes.items():
                if value is not None:
                    name = option.replace("_", "-")
                    raise ConfigError(f"--{name} needs --data; the run's own data already has its {option}.")
            return trained.own
        if trained.run is None:
            return new_data(trained.reading, self.data, **self.changes)
        found = find_data(trained.run, self.data, in_order=in_order, **self.changes)
        if found.remark:
            trained.notes.append(found.remark)
        return found.data

    def examples(self, trained: Trained, split: str | None, default: str = "test", *, in_order: bool = False) -> Split:
        """The examples of one or all splits, preprocessed for the model; see :func:`sandglass.data.selecting.chosen`.

        Args:
            trained: the model.
            split: name of the split, or all; None for the default.
            default: of it.
            in_order: whether ``data``, without a split, is taken whole and in its own order, even if it is the run's,
                so that a result for each row can be put beside it.

        Raises:
            ConfigError: the model needs labels and the examples have none.
        """
        if in_order and split is None and self.data is not None:
            found = joined(self.read(trained, in_order=True).splits)
        else:
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
        data: the run's data, or its place, where it moved or was passed as a Python object.
        parts: custom objects that the model was built with, such as ``net=...``.

    Raises:
        NotFoundError, CheckpointError: the model does not exist, or is damaged.
    """
    path = source.path if isinstance(source, Run) else find_run(source)
    run = source if isinstance(source, Run) else Run(path) if (path / "config.yaml").is_file() else None
    model = load(run or source, device=settle_device(device), allow_nonfinite=allow_nonfinite, **parts)
    reading = reading_of(run or source)
    known = None if data is None else own_data(run, data) if run is not None else as_dataset(data, reading)
    return Trained(model, reading, run, path.name, known, str(path))


def positions(total: int, n: int) -> Tensor:
    """``(n,)`` evenly spaced indices, since data is often sorted by class; all indices if there are at most ``n``.

    Example:
        >>> positions(10, 4), positions(2, 4)
        (tensor([0, 2, 5, 7]), tensor([0, 1]))
    """
    n = min(n, total)
    return torch.arange(n) * total // max(1, n)


def check_count(name: str, value: Any, least: int = 1) -> None:
    """Checks that a number, unless it is None, is whole and not too small.

    Raises:
        ConfigError: it is not.
    """
    if value is not None and (isinstance(value, bool) or not isinstance(value, Integral) or int(value) < least):
        raise ConfigError(f"{name} must be a whole number of at least {least}, not {value}.")
