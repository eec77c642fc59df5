"""The data that readers return to :func:`sandglass.data.load.load_data`, before splitting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sandglass.data.dataset import Mixture
from sandglass.data.distinct import INSTEAD, MOST, NAMED, OUT, are_no_classes, better, insist, mostly_different
from sandglass.data.rows import take
from sandglass.data.sources import images
from sandglass.data.sources.axes import Form
from sandglass.data.transform import Transform
from sandglass.errors import DataError

SPLITS = {"train": "train", "val": "validation", "valid": "validation", "validation": "validation", "test": "test"}
"""Accepted names of splits, with the standard name of each."""

Pairs = dict[str, tuple[Any, Any]]
"""Examples and labels (or None) of each split."""
_GAPS = "The labels of '{}' have missing values; remove those examples or leave the labels out."


class UnknownClassError(DataError):
    """A class that a trained model does not know."""


@dataclass(frozen=True)
class Part:
    """One split of a source.

    Args:
        x: a tensor, array or rows of a file ``(N, ...)``, or a DataFrame of N rows.
        y: ``(N,)`` int64 class indices, or None.
        names: the origin of each example; may be empty.
        factors: ``(N, F)`` int64, the known generative factors of each example, or None.
        mask: ``(N, ...)`` booleans, True where observed, or None. That of a table is computed with its transform.
        groups: ``(N,)`` group numbers; examples of a group stay in one split. None without groups.
        given: companions by name, in the format of ``x``.
        absent: ``(N,)`` booleans by name, for every companion, True where an example lacks it.
    """

    x: Any
    y: Tensor | None = None
    _: KW_ONLY
    names: tuple[str, ...] = ()
    factors: Tensor | None = None
    mask: Tensor | None = None
    groups: Tensor | None = None
    given: Mapping[str, Any] = field(default_factory=dict)
    absent: Mapping[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.x)

    def take(self, index: Tensor) -> Part:
        """The examples at ``index``, in that order."""
        x, given = _rows(self.x, index), {name: _rows(t, index) for name, t in self.given.items()}
        absent = {name: t[index] for name, t in self.absent.items()}
        names = tuple(self.names[i] for i in index.tolist()) if self.names else ()
        y, factors, mask, groups = (
            None if t is None else t[index] for t in (self.y, self.factors, self.mask, self.groups)
        )
        return Part(x, y, names=names, factors=factors, mask=mask, groups=groups, given=given, absent=absent)


def _rows(x: Any, index: Tensor) -> Any:
    return x.iloc[index.numpy()] if hasattr(x, "iloc") else take(x, index)


@dataclass(frozen=True)
class Raw:
    """A source that has been read but not split.

    Args:
        parts: ``train`` always; ``validation`` and ``test`` if the source has them.
        transform: the transform already applied to ``parts``, None if it is still to be fitted to the training set.
        classes: class names in the order of their indices.
        notes: remarks on how it was read.
        factors: names of the generative factors, the columns of the parts' ``factors``.
        bad: name and reason of each file that was left out.
        mixture: the data distribution, if it is known.
        given: the transforms already applied to companions, by name; None for one that is still to be fitted.
        made: derivations of derived companions, by name.
        forms: layout and type of arrays as they were handed in, by name of the companion; ``""`` for
            the examples.
        labels: the value of the option ``labels`` to read its classes again, empty if it is the one that was given.
    """

    parts: Mapping[str, Part]
    transform: Transform | None = None
    _: KW_ONLY
    classes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    factors: tuple[str, ...] = ()
    bad: tuple[tuple[str, str], ...] = ()
    mixture: Mixture | None = None
    given: Mapping[str, Transform | None] = field(default_factory=dict)
    made: Mapping[str, str] = field(default_factory=dict)
    forms: Mapping[str, Form] = field(default_factory=dict)
    labels: str = ""

    def noted(self, *notes: str) -> Raw:
        """A copy with more notes."""
        return replace(self, notes=(*self.notes, *notes))


def as_known(raw: Raw, known: Sequence[str], option: str = "") -> Raw:
    """Re-encodes labels with the class indices of a trained model.

    Args:
        raw: the source, with its own class indices.
        known: the model's class names in order; if empty, ``raw`` is returned unchanged.
        option: as for :func:`check_classes`.

    Raises:
        UnknownClassError: a class that the model was not trained on.

    Example:
        >>> raw = Raw({"train": Part(torch.zeros(2, 1), torch.tensor([0, 1]))}, classes=("cat", "dog"))
        >>> as_known(raw, ("dog", "cat")).parts["train"].y
        tensor([1, 0])
    """
    if not known or not raw.classes:
        return raw
    strange = [name for name in raw.classes if name not in known]
    if strange:
        none = "leave labels_from_names out" if _from_names(option) else f"read no labels: {OUT}"
        raise UnknownClassError(
            f"The model has no class {_some(strange)}. It has: {_some(known)}; rename the classes, or {none}."
        )
    number = torch.tensor([list(known).index(name) for name in raw.classes])
    parts = {s: p if p.y is None else replace(p, y=number[p.y]) for s, p in raw.parts.items()}
    return replace(raw, parts=parts, classes=tuple(known))


def check_classes(raw: Raw, option: str) -> Raw:
    """Refuses numbers that are different for most examples, such as a measurement, and more than a thousand such texts.

    Fewer texts are only noted.

    Args:
        raw: the source.
        option: the option that names its labels, as a person wrote it; empty for labels that it has by itself, such as
            class folders or the second array of a pair, of which numbers, too, are noted up to a thousand.

    Raises:
        DataError: the labels are no classes.
    """
    total, count = sum(len(part) for part in raw.parts.values() if part.y is not None), len(raw.classes)
    if not mostly_different(count, total):
        return raw
    found = f"{count:,} different labels for {total:,} examples, such as {_some(raw.classes[:3])}"
    if (option or count > MOST) and are_no_classes(raw.classes, total):
        instead = NAMED if _from_names(option) else f"{better(raw.classes)}, or leave the labels out: {OUT}"
        named = insist(raw.classes, f"name them in Python: classes=[{_some(raw.classes[:1])}, ...]")
        raise DataError(f"{option}{': ' if option else ''}{found}, are not classes; {instead}. {named}")
    return raw.noted(f"{found}; if they are not classes: {NAMED if _from_names(option) else OUT}")


def _from_names(option: str) -> bool:
    return option.startswith("labels_from_names")


def name_classes(raw: Raw, names: Sequence[str]) -> Raw:
    """A source whose classes are numbers, with the names of those numbers; without names it is unchanged.

    Raises:
        DataError: a class that is not the number of a name.

    Example:
        >>> name_classes(Raw({}, classes=("0", "2")), ("zebra", "cow", "ant")).classes
        ('zebra', 'ant')
    """
    if not names:
        return raw
    known = {str(i): name for i, name in enumerate(names)}
    strange = next((c for c in raw.classes if c not in known), None)
    if strange is not None:
        raise DataError(
            f"The dataset has the label {strange} and names of {len(names)} classes, 0 to {len(names) - 1}: "
            f"{_some(names)}; correct the label or the names."
        )
    return replace(raw, classes=tuple(known[c] for c in raw.classes))


def number_classes(labels: Mapping[str, Any]) -> tuple[dict[str, Tensor | None], tuple[str, ...]]:
    """Encodes labels as class indices, over all splits together.

    Args:
        labels: ``(N,)`` integers, booleans, strings or whole floats for each split, or None.

    Returns:
        ``(N,)`` int64 or None for each split, and the class names.

    Raises:
        DataError: labels that are not classes.

    Example:
        >>> number_classes({"train": ["dog", "cat", "dog"], "test": None})
        ({'train': tensor([1, 0, 1]), 'test': None}, ('cat', 'dog'))
    """
    given = {split: _flat(y, split) for split, y in labels.items() if y is not None}
    if not given:
        return dict.fromkeys(labels), ()
    values = sorted({v for y in given.values() for v in y}, key=lambda v: (isinstance(v, str), v))
    number = {v: i for i, v in enumerate(values)}
    numbered: dict[str, Tensor | None] = dict.fromkeys(labels)
    for split, y in given.items():
        numbered[split] = torch.tensor([number[v] for v in y], dtype=torch.int64)
    return numbered, tuple(str(v) for v in values)


def _flat(y: Any, split: str) -> list[Any]:
    """``(N,)``, ``(N, 1)`` or one-hot ``(N, K)`` labels as Python integers or strings."""
    try:
        y = np.asarray(y.detach().cpu() if isinstance(y, Tensor) else y)
    except ValueError as error:  # lists of different lengths
        raise DataError(f"The labels of '{split}' are not one class per example, (N,).") from error
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim == 2 and np.isin(y, (0, 1)).all() and (y.sum(axis=1) == 1).all():
        return [int(k) for k in y.argmax(axis=1)]  # one-hot
    if y.ndim != 1:
        raise DataError(f"The labels of '{split}' have shape {y.shape}; give one class per example, (N,).")
    if y.dtype.kind == "f":
        if np.isnan(y).any():
            raise DataError(_GAPS.format(split))
        if not np.array_equal(y, np.round(y)):
            odd = y[y != np.round(y)][0]
            raise DataError(f"The labels of '{split}' are not whole numbers, such as {odd:.6g}; {INSTEAD}.")
        y = y.astype(np.int64)
    if y.dtype.kind in "biu":
        return [int(v) for v in y.tolist()]
    if any(v is None or v != v for v in y.tolist()):
        raise DataError(_GAPS.format(split))
    return [str(v) for v in y.tolist()]


def _some(names: Sequence[str]) -> str:
    short = (images.shown(n if len(n) <= 100 else f"{n[:97]}...") for n in names[:10])
    return ", ".join(f"'{n}'" for n in short) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
