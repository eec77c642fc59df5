"""What every source becomes: named splits of tensors, the :class:`Spec` they obey, and how they were made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field, replace
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
        factors: ``(N, F)`` int64, what each example was made from, for sets where that is known.
        mask: ``(N, *spec.shape)`` booleans, True where observed; None where everything is.
    """

    x: Tensor | Rows
    y: Tensor | None = None
    _: KW_ONLY
    levels: int = 256
    names: tuple[str, ...] = ()
    factors: Tensor | None = None
    mask: Tensor | None = None

    def __len__(self) -> int:
        return len(self.x)

    def to(self, device: torch.device | str) -> Split:
        """The split on another device."""
        y, factors, mask = (None if t is None else t.to(device) for t in (self.y, self.factors, self.mask))
        return replace(self, x=self.x.to(device), y=y, factors=factors, mask=mask)

    def take(self, index: Tensor) -> Split:
        """The examples at ``index``, in that order; of a file a view."""
        names = tuple(self.names[i] for i in index.tolist()) if self.names else ()
        y, factors, mask = (None if t is None else t[index] for t in (self.y, self.factors, self.mask))
        return replace(self, x=take(self.x, index), y=y, names=names, factors=factors, mask=mask)

    def batch(self, index: Tensor | slice) -> Batch:
        """The examples at ``index`` as a loss wants them: floats, images in [0, 1], 0 where nothing was observed."""
        x, mask = _rows(self.x, index), None if self.mask is None else _rows(self.mask, index)
        x = torch.div(x, self.levels - 1) if x.dtype == torch.uint8 else x  # true division: float32, in one pass
        if mask is not None:
            x = x.masked_fill(~mask, 0)
        if isinstance(index, slice):
            index = torch.arange(*index.indices(len(self)), device=x.device)
        return Batch(x, None if self.y is None else self.y[index], mask, index)


def _rows(x: Tensor | Rows, index: Tensor | slice) -> Tensor:
    if isinstance(index, slice) or isinstance(x, Rows):
        return x[index]
    # index_select moves whole rows; plain indexing takes three times as long
    return x.flatten(1).index_select(0, index).view(-1, *x.shape[1:])


@dataclass(frozen=True)
class Mixture:
    """What examples were drawn from, where that is known: centres, all as likely, with normal noise around them.

    Args:
        centres: ``(K, *spec.shape)``.
        deviation: standard deviation of the noise, in every direction.
    """

    centres: Tensor
    deviation: float


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
        factors: names of the columns of the splits' ``factors``; empty where those are not known.
        bad: name of and reason for each file that could not be read and was left out.
        mixture: what the examples were drawn from, None where that is not known.
    """

    name: str
    spec: Spec
    transform: Transform
    splits: Mapping[str, Split]
    _: KW_ONLY
    classes: tuple[str, ...] = ()
    source: Mapping[str, Any] | None = None
    fingerprint: str = ""
    notes: tuple[str, ...] = field(default=())
    factors: tuple[str, ...] = ()
    bad: tuple[tuple[str, str], ...] = ()
    mixture: Mixture | None = None

    @property
    def train(self) -> Split:
        """The examples to learn from."""
        return self.splits["train"]
