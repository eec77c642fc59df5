"""What every source becomes: named splits of tensors, the :class:`Spec` they obey, and how they were made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from sandglass.core import Batch, Spec
from sandglass.data import derived
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
        given: companions of each example by name, ``(N, *spec.given[name].shape)``, kept as ``x`` is.
        given_levels: the levels of those companions that are uint8, where they are not 256.
        absent: ``(N,)`` booleans by name, True where an example lacks that companion; none lacks it when not there.
        made: companions that every batch derives from its examples, by name: how, see :mod:`sandglass.data.derived`.
        beside: the same split of other sets, by name, with examples of their own number.

    Example:
        >>> split = Split(torch.zeros(3, 3, 8, 8), made={"small": "small=2"}, given={"tag": torch.ones(3, 2)})
        >>> {name: tuple(t.shape) for name, t in split.batch(slice(0, 2)).given.items()}
        {'tag': (2, 2), 'small': (2, 3, 4, 4)}
    """

    x: Tensor | Rows
    y: Tensor | None = None
    _: KW_ONLY
    levels: int = 256
    names: tuple[str, ...] = ()
    factors: Tensor | None = None
    mask: Tensor | None = None
    given: Mapping[str, Tensor | Rows] = field(default_factory=dict)
    given_levels: Mapping[str, int] = field(default_factory=dict)
    absent: Mapping[str, Tensor] = field(default_factory=dict)
    made: Mapping[str, str] = field(default_factory=dict)
    beside: Mapping[str, Split] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.x)

    @property
    def nbytes(self) -> int:
        """Bytes of the examples and their companions."""
        return sum(t.nbytes for t in (self.x, *self.given.values()))

    def to(self, device: torch.device | str) -> Split:
        """The split, with what comes with it, on another device."""
        return replace(
            self._each(lambda t: t.to(device)),
            x=self.x.to(device),
            given={name: t.to(device) for name, t in self.given.items()},
            beside={name: split.to(device) for name, split in self.beside.items()},
        )

    def take(self, index: Tensor) -> Split:
        """The examples at ``index``, in that order; of a file a view. The sets beside stay whole."""
        return replace(
            self._each(lambda t: t[index]),
            x=take(self.x, index),
            names=tuple(self.names[i] for i in index.tolist()) if self.names else (),
            given={name: take(t, index) for name, t in self.given.items()},
        )

    def batch(self, index: Tensor | slice) -> Batch:
        """The examples at ``index`` as a loss wants them: floats, images in [0, 1], 0 where nothing was observed.

        What stands beside is not part of it, for its numbers are its own; the loader draws those.
        """
        x, mask = _unit(_rows(self.x, index), self.levels), None if self.mask is None else _rows(self.mask, index)
        if mask is not None:
            x = x.masked_fill(~mask, 0)
        absent = {name: t[index] for name, t in self.absent.items()}
        given = {name: _unit(_rows(t, index), self.given_levels.get(name, 256)) for name, t in self.given.items()}
        given |= {name: blank(given[name], gone) for name, gone in absent.items() if name in given}
        given |= {name: derived.make(how, x) for name, how in self.made.items()}
        if isinstance(index, slice):
            index = torch.arange(*index.indices(len(self)), device=x.device)
        return Batch(x, None if self.y is None else self.y[index], mask, index, given, absent)

    def _each(self, change: Callable[[Tensor], Tensor]) -> Split:
        """With every tensor changed that is small and no example."""
        y, factors, mask = (None if t is None else change(t) for t in (self.y, self.factors, self.mask))
        return replace(self, y=y, factors=factors, mask=mask, absent={n: change(t) for n, t in self.absent.items()})


def blank(t: Tensor, gone: Tensor) -> Tensor:
    """``(B, ...)`` with 0 where ``gone`` ``(B,)`` is True.

    Example:
        >>> blank(torch.ones(2, 2), torch.tensor([True, False])).tolist()
        [[0.0, 0.0], [1.0, 1.0]]
    """
    return t.masked_fill(gone.view(-1, *[1] * (t.dim() - 1)), 0)


def _unit(x: Tensor, levels: int) -> Tensor:
    return torch.div(x, levels - 1) if x.dtype == torch.uint8 else x  # true division: float32, in one pass


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
        transform: how a raw picture or row became an example, and the way back, with those of its companions
            (``transform.given[name]``) and of the sets beside (``transform.beside[name]``); stored with the model.
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
