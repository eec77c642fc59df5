"""What every use of a trained model begins with: the model, the way its data is prepared, and examples for it."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sandglass import api
from sandglass.app.output import say
from sandglass.core import Model
from sandglass.data import rows
from sandglass.data.dataset import Dataset, Split
from sandglass.data.load import load_data
from sandglass.data.loading import in_order
from sandglass.data.transform import Transform
from sandglass.engine.options import settle_device
from sandglass.errors import ConfigError, DataError, NotFoundError
from sandglass.runs.run import Run

_AT_ONCE = 256


@dataclass(frozen=True)
class Trained:
    """A trained model in eval mode, and where it came from; ``run`` is None for a model folder or one from the hub."""

    model: Model
    reading: Mapping[str, Any]
    run: Run | None
    name: str

    @property
    def transform(self) -> Transform:
        """How a picture or row is prepared for it, and the way back."""
        return self.reading["transform"]

    @property
    def dtype(self) -> torch.dtype:
        """What its weights are in."""
        return next(self.model.parameters()).dtype

    @property
    def latent_dim(self) -> int:
        """Size of its latent."""
        return int(self.model.latent_dim)

    def batches(self, split: Split) -> Iterator[Tensor]:
        """The examples ``(B, *shape)``, batch by batch, where and as the model wants them."""
        for make in in_order(split, _AT_ONCE, device=self.model.device, dtype=self.dtype):
            yield make().x

    @torch.no_grad()
    def encode(self, split: Split) -> Tensor:
        """``(N, latent_dim)`` codes on the CPU."""
        return torch.cat([self.model.encode(x).cpu() for x in self.batches(split)])

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        """``(N, *shape)`` on the CPU from ``(N, latent_dim)``."""
        z = z.to(self.model.device, self.dtype)
        return torch.cat([self.model.decode(z[i : i + _AT_ONCE]).cpu() for i in range(0, len(z), _AT_ONCE)])


def opened(source: str, device: str, allow_nonfinite: bool = False) -> Trained:
    """The trained model of a run folder, a model folder or the hub.

    Args:
        source: where it is.
        device: where to put it.
        allow_nonfinite: say which weights are not finite in place of refusing them.

    Raises:
        NotFoundError, CheckpointError: it is not there, or damaged.
    """
    path = find_run(source)
    run = Run(path) if (path / "config.yaml").is_file() else None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = api.load(run or source, device=settle_device(device), allow_nonfinite=allow_nonfinite)
    for warning in caught:
        say(str(warning.message))
    return Trained(model, api.reading_of(run or source), run, path.name)


def find_run(source: str) -> Path:
    """The folder, or the newest run for ``latest``.

    Raises:
        NotFoundError: there are no runs.
    """
    if source == "latest" and not Path(source).exists():
        runs = sorted(Path("runs").glob("*/config.yaml"), key=lambda p: p.stat().st_mtime)
        if not runs:
            raise NotFoundError("There is no run in the folder runs/ yet; `sandglass train --recipe digits` makes one.")
        return runs[-1].parent
    return Path(source)


def new_data(reading: Mapping[str, Any], source: str, labels: str | None = None) -> Dataset:
    """Other examples than a run's own, prepared and their classes numbered as those were, and kept together.

    Args:
        reading: see :func:`sandglass.api.reading_of`.
        source: where they are.
        labels: a column, ``"false"`` for no labels, None for what the source has.
    """
    return load_data(source, **reading, labels=False if labels == "false" else labels, validation=0.0, test=0.0)


def dataset(trained: Trained, data: str | None, labels: str | None = None) -> Dataset:
    """The run's own data, or other data for it.

    Raises:
        ConfigError: a model folder has no data of its own.
    """
    if data is not None:
        return new_data(trained.reading, data, labels)
    if labels is not None:
        raise ConfigError("--labels goes with --data; a run's own labels are what it was trained on.")
    if trained.run is None:
        raise ConfigError(f"{trained.name} is a model without its run; say what to use it on with --data.")
    return api.run_data(trained.run)


def examples(data: Dataset, split: str | None, default: str) -> dict[str, Split]:
    """The splits meant by a name.

    Args:
        data: where from.
        split: a name, ``"all"``, or None for the default.
        default: ``"all"``, or the preferred split; where it is missing, all of them stand for it.

    Raises:
        DataError: there is no such split.
    """
    wanted = split or (default if default in data.splits else "all")
    if wanted == "all":
        return dict(data.splits)
    if wanted not in data.splits:
        raise DataError(f"There is no split '{wanted}' in '{data.name}'; it has: {', '.join(data.splits)}.")
    return {wanted: data.splits[wanted]}


def joined(splits: dict[str, Split]) -> Split:
    """Several splits as one."""
    parts = list(splits.values())
    labelled = all(p.y is not None for p in parts)
    y = torch.cat([p.y for p in parts if p.y is not None]) if labelled else None
    names = tuple(n for p in parts for n in p.names)
    return Split(rows.joined([p.x for p in parts]), y, levels=parts[0].levels, names=names, mask=_masks(parts))


def _masks(parts: Sequence[Split]) -> Tensor | None:
    """The masks of several splits as one; True for a split that is complete."""
    if all(p.mask is None for p in parts):
        return None
    return torch.cat([torch.ones(p.x.shape, dtype=torch.bool) if p.mask is None else p.mask for p in parts])


def spread(split: Split, n: int) -> Split:
    """``n`` examples from all over a split: files often come class by class."""
    return split.take(positions(len(split), n))


def positions(total: int, n: int) -> Tensor:
    """``(n,)`` places in so many, evenly spread; all of them where there are fewer.

    Example:
        >>> positions(10, 4), positions(2, 4)
        (tensor([0, 2, 5, 7]), tensor([0, 1]))
    """
    n = min(n, total)
    return torch.arange(n) * total // max(1, n)


def own_codes(trained: Trained) -> Tensor | None:
    """``(N, latent_dim)`` codes of the run's own test examples; None without a run, or a model that does not encode."""
    if trained.run is None or "encode" not in trained.model.provides:
        return None
    from sandglass.reports.latent import encode

    data = api.run_data(trained.run)
    return encode(trained.model, data.splits.get("test") or data.splits["train"])


def natural_key(name: str) -> list[int | str]:
    """Sorts run-2 before run-10."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]
