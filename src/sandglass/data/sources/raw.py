"""What a reader hands to :func:`sandglass.data.load.load_data`: named parts of a source, before they are split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sandglass.data.rows import take
from sandglass.data.transform import Transform
from sandglass.errors import DataError


@dataclass(frozen=True)
class Part:
    """One split of a source.

    Args:
        x: a tensor, array or rows of a file ``(N, ...)``, or a DataFrame of N rows.
        y: ``(N,)`` int64 class numbers, or None.
        names: where each example comes from; may be empty.
    """

    x: Any
    y: Tensor | None = None
    names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.x)

    def take(self, index: Tensor) -> Part:
        """The examples at ``index``, in that order."""
        x = self.x.iloc[index.numpy()] if hasattr(self.x, "iloc") else take(self.x, index)
        names = tuple(self.names[i] for i in index.tolist()) if self.names else ()
        return Part(x, None if self.y is None else self.y[index], names)


@dataclass(frozen=True)
class Raw:
    """A source that has been read but not split.

    Args:
        parts: ``train`` always; ``validation`` and ``test`` where the source has them.
        transform: what ``parts`` have been through already, None where it is still to be fitted to the train split.
        classes: class names, in the order of their numbers.
        notes: what was done on the way.
    """

    parts: Mapping[str, Part]
    transform: Transform | None = None
    classes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def noted(self, *notes: str) -> Raw:
        """With more notes."""
        return replace(self, notes=(*self.notes, *notes))


def number_classes(
    labels: Mapping[str, Any], classes: Sequence[str] = ()
) -> tuple[dict[str, Tensor | None], tuple[str, ...]]:
    """Labels of any kind to class numbers, counted over all splits together.

    Args:
        labels: for each split ``(N,)`` integers, booleans, texts or whole floats, or None.
        classes: names in order, where they are known.

    Returns:
        For each split ``(N,)`` int64 or None, and the class names.

    Raises:
        DataError: labels that are no classes.

    Example:
        >>> number_classes({"train": ["dog", "cat", "dog"], "test": None})
        ({'train': tensor([1, 0, 1]), 'test': None}, ('cat', 'dog'))
    """
    given = {split: _flat(y, split) for split, y in labels.items() if y is not None}
    if not given:
        return dict.fromkeys(labels), ()
    values = sorted({v for y in given.values() for v in y}, key=lambda v: (isinstance(v, str), v))
    total = sum(len(y) for y in given.values())
    if len(values) > max(1000, total // 2) and len(values) > 50:
        raise DataError(f"{len(values)} different labels for {total} examples are no classes; leave the labels out.")
    if classes and [str(v) for v in values] != list(classes):
        values = list(classes)
    number = {v: i for i, v in enumerate(values)}
    numbered: dict[str, Tensor | None] = dict.fromkeys(labels)
    for split, y in given.items():
        numbered[split] = torch.tensor([number[v] for v in y], dtype=torch.int64)
    return numbered, tuple(str(v) for v in values)


def _flat(y: Any, split: str) -> list[Any]:
    """``(N,)`` or ``(N, 1)`` labels as Python integers or texts."""
    y = np.asarray(y.detach().cpu() if isinstance(y, Tensor) else y)
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim != 1:
        raise DataError(f"The labels of '{split}' have shape {y.shape}; give one class an example, (N,).")
    if y.dtype.kind == "f":
        if not np.array_equal(y, np.round(y)):
            raise DataError(f"The labels of '{split}' are not whole numbers; give classes, or leave the labels out.")
        y = y.astype(np.int64)
    if y.dtype.kind in "biu":
        return [int(v) for v in y.tolist()]
    if any(v is None or v != v for v in y.tolist()):
        raise DataError(f"The labels of '{split}' have missing values; remove those examples or leave the labels out.")
    return [str(v) for v in y.tolist()]
