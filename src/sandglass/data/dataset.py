"""What every source becomes: named splits of tensors, the :class:`Spec` they obey, and how they were made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from sandglass.core import Batch, Spec
from sandglass.data.rows import Rows, take
from sandglass.data.transform import Transform


@dataclass(frozen=True)
class Split:
    """Examples as they are kept: bytes for images, floats for rows; in memory, on a device or in a file.

    Args:
        x: ``(N, *spec.shape)``, uint8 levels or floats; :class:`~sandglass.data.rows.Rows` are read as batches ask.
        y: ``(N,)`` int64 class numbers, or None.
        levels: for uint8, the values run from 0 to ``levels - 1`` and reach a loss divided by that.
        names: where each example comes from (a file name), for messages; may be empty.
    """

    x: Tensor | Rows
    y: Tensor | None = None
    levels: int = 256
    names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.x)

    def to(self, device: torch.device | str) -> Split:
        """The split on another device."""
        y = None if self.y is None else self.y.to(device)
        return Split(self.x.to(device), y, self.levels, self.names)

    def take(self, index: Tensor) -> Split:
        """The examples at ``index``, in that order; of a file a view."""
        names = tuple(self.names[i] for i in index.tolist()) if self.names else ()
        return Split(take(self.x, index), None if self.y is None else self.y[index], self.levels, names)

    def batch(self, index: Tensor | slice) -> Batch:
        """The examples at ``index`` as a loss wants them: floats, images in [0, 1]."""
        if isinstance(index, slice) or isinstance(self.x, Rows):
            x = self.x[index]
        else:  # index_select moves whole rows; plain indexing takes three times as long
            x = self.x.flatten(1).index_select(0, index).view(-1, *self.x.shape[1:])
        x = torch.div(x, self.levels - 1) if x.dtype == torch.uint8 else x  # true division: float32, in one pass
        if isinstance(index, slice):
            index = torch.arange(*index.indices(len(self)), device=x.device)
        return Batch(x, None if self.y is None else self.y[index], index=index)


@dataclass(frozen=True)
class Dataset:
    """A source that has been read.

    Args:
        name: short name, for folders and titles.
        spec: what one example looks like.
        transform: how a raw picture or row became an example, and the way back; stored with the model.
        splits: ``train`` always; ``validation`` and ``test`` where there are such.
        classes: class names, in the order of their numbers; empty without labels.
        source: plain values from which :func:`sandglass.load_data` makes the same data again, None for data that was
            handed over in Python.
        fingerprint: SHA-256 over the examples, labels and splits.
        notes: what was done to the data that a reader of the report should know.
    """

    name: str
    spec: Spec
    transform: Transform
    splits: Mapping[str, Split]
    classes: tuple[str, ...] = ()
    source: Mapping[str, Any] | None = None
    fingerprint: str = ""
    notes: tuple[str, ...] = field(default=())

    @property
    def train(self) -> Split:
        """The examples to learn from."""
        return self.splits["train"]
