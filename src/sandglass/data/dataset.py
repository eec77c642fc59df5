"""Datasets: named splits of tensors with their :class:`Spec`, their transform and their origin."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from sandglass.core import Batch, Spec
from sandglass.data import derived
from sandglass.data.rows import Rows, take
from sandglass.data.transform import Transform

_SHOWN = 20  # classes in a notebook


@dataclass(frozen=True)
class Split:
    """The stored examples of a split: bytes for images, floats for rows; in memory, on a device or in a file.

    Args:
        x: ``(N, *spec.shape)``, uint8 levels or floats; :class:`~sandglass.data.rows.Rows` are read from a file batch
            by batch.
        y: ``(N,)`` int64 class indices, or None.
        levels: for uint8, the number of levels; a batch has them divided by ``levels - 1``.
        names: the file name or other origin of each example, for messages; may be empty.
        factors: ``(N, F)`` int64, the known generative factors of each example, or None.
        mask: ``(N, *spec.shape)`` booleans, True where observed; None if nothing is missing.
        given: companions by name, ``(N, *spec.given[name].shape)``, stored like ``x``.
        given_levels: number of levels of uint8 companions, by name, if it is not 256.
        absent: ``(N,)`` booleans by companion, True where an example lacks it; no entry if no example does.
        made: derivations of companions that are computed for each batch, by name; see :mod:`sandglass.data.derived`.
        beside: the same split of the unpaired sets, by name; their lengths may differ.

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

    def __repr__(self) -> str:
        kinds = {"labels": self.y, "factors": self.factors, "gaps": self.mask}
        more = [name for name, value in kinds.items() if value is not None] + [*self.given, *self.made]
        shape = "x".join(map(str, self.x.shape[1:]))
        return f"Split({len(self):,} examples of {shape}{''.join(f', {name}' for name in more)})"

    @property
    def nbytes(self) -> int:
        """Size of the examples and their companions in bytes."""
        return sum(t.nbytes for t in (self.x, *self.given.values()))

    def to(self, device: torch.device | str) -> Split:
        """The split, its companions and its unpaired sets on another device."""
        return replace(
            self._each(lambda t: t.to(device)),
            x=self.x.to(device),
            given={name: t.to(device) for name, t in self.given.items()},
            beside={name: split.to(device) for name, split in self.beside.items()},
        )

    def take(self, index: Tensor) -> Split:
        """The examples at ``index``, in that order; a view if they are in a file. Unpaired sets are not indexed."""
        return replace(
            self._each(lambda t: t[index]),
            x=take(self.x, index),
            names=tuple(self.names[i] for i in index.tolist()) if self.names else (),
            given={name: take(t, index) for name, t in self.given.items()},
        )

    def batch(self, index: Tensor | slice) -> Batch:
        """The examples at ``index`` as model input: floats, images in [0, 1], missing values set to 0.

        Unpaired sets are not part of it; the loader draws from them.
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
        """The split with ``change`` applied to labels, factors, masks and absence flags."""
        y, factors, mask = (None if t is None else change(t) for t in (self.y, self.factors, self.mask))
        return replace(self, y=y, factors=factors, mask=mask, absent={n: change(t) for n, t in self.absent.items()})


def blank(t: Tensor, gone: Tensor) -> Tensor:
    """``(B, ...)`` with the examples where ``gone`` ``(B,)`` is True set to 0.

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
    # index_select copies whole rows and is three times as fast as plain indexing
    return x.flatten(1).index_select(0, index).view(-1, *x.shape[1:])


@dataclass(frozen=True)
class Mixture:
    """A known data distribution: a mixture of K isotropic Gaussians with equal weights and variances.

    Args:
        centres: ``(K, *spec.shape)`` means.
        deviation: standard deviation of each component.
    """

    centres: Tensor
    deviation: float


@dataclass(frozen=True)
class Dataset:
    """A dataset: a source that has been read, split and transformed.

    Args:
        name: short name, for folders and titles.
        spec: shape and value range of an example.
        transform: maps raw pictures or rows to examples and back, with the transforms of companions
            (``transform.given[name]``) and of unpaired sets (``transform.beside[name]``); stored with the model.
        splits: ``train`` always; ``validation`` and ``test`` if there are any.
        classes: class names in the order of their indices; empty without labels.
        source: plain values from which :func:`sandglass.load_data` reads the same data again, None for data passed as
            Python objects.
        fingerprint: SHA-256 over the examples, labels and splits.
        notes: remarks on how the data was read, for the report.
        factors: names of the generative factors, the columns of the splits' ``factors``; empty if not known.
        bad: name and reason of each file that could not be read and was left out.
        mixture: the data distribution, None if it is not known.
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

    def __repr__(self) -> str:
        return f"Dataset({self.about})"

    def _repr_html_(self) -> str:
        """What a notebook shows: the number of examples of every split, and of each class where there are few."""
        classes = self.classes if 0 < len(self.classes) <= _SHOWN else ()
        rows = [["split", "examples", *classes]]
        for name, split in self.splits.items():
            counts = [] if split.y is None else [f"{int((split.y == k).sum()):,}" for k in range(len(classes))]
            rows.append([name, f"{len(split):,}", *counts])
        cells = ["".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in rows]
        body = "".join(f"<tr>{row}</tr>" for row in cells)
        return f"<p><b>{html.escape(self.name)}</b>: {html.escape(repr(self.spec))}</p><table>{body}</table>"

    @property
    def about(self) -> str:
        """Name, number of examples of every split and their shape, in a line.

        Example:
            >>> from sandglass.data.load import load_data
            >>> load_data("digits").about
            'digits: 1,294 train, 144 validation, 359 test examples of 1x8x8'
        """
        splits = ", ".join(f"{len(split):,} {name}" for name, split in self.splits.items())
        shape = "x".join(map(str, self.spec.shape))
        shape += "" if self.spec.is_image else " number" if self.spec.size == 1 else " numbers"
        return f"{self.name}: {splits} examples of {shape}"

    @property
    def train(self) -> Split:
        """The training set."""
        return self.splits["train"]
