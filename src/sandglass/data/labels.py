"""Hides the labels of most training examples, for semi-supervised learning."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from sandglass.data.sources.raw import Raw
from sandglass.errors import ConfigError
from sandglass.rng import permutation


def keep_labels(raw: Raw, count: int, seed: int) -> Raw:
    """A source whose labels are known for ``count`` training examples only, and hidden (-1) for the others.

    Labels of the validation split are hidden as well, so that nothing is chosen by more labels than are said to be
    known; those of the test split stay, to measure by.

    Args:
        raw: the source, split.
        count: how many labels to keep.
        seed: of the choice.

    Raises:
        ConfigError: the training examples have no labels, or there are fewer to keep than classes.
    """
    y = raw.parts["train"].y
    if y is None or not raw.classes:
        raise ConfigError(
            f"labelled={count} keeps the labels of {count} examples, but the data has none; name their column with "
            "labels, or leave labelled out."
        )
    if count < len(raw.classes):
        raise ConfigError(
            f"labelled={count} would leave some of the {len(raw.classes)} classes without an example; give "
            f"{len(raw.classes)} or more."
        )
    known = int((y >= 0).sum())
    kept = evenly(y, count, seed)
    hidden = torch.full_like(y, -1)
    parts = {**raw.parts, "train": replace(raw.parts["train"], y=hidden.index_copy(0, kept, y[kept]))}
    validation = raw.parts.get("validation")
    if validation is not None and validation.y is not None:
        parts["validation"] = replace(validation, y=torch.full_like(validation.y, -1))
    said = f"labels of {len(kept):,} of the {len(y):,} training examples were kept"
    said += f", which are all {known:,}" if count > known else ""
    return replace(raw, parts=parts).noted(f"{said}; all others are hidden, but for those of test examples")


def evenly(y: Tensor, count: int, seed: int) -> Tensor:
    """Positions of ``count`` examples with a label, in ascending order, as many of each class as can be.

    Args:
        y: ``(N,)`` class numbers, -1 where unknown.
        count: how many.
        seed: of the choice.

    Example:
        >>> y = torch.tensor([0] * 50 + [1] * 40 + [2] * 3 + [-1] * 7)
        >>> kept = evenly(y, 11, seed=0)
        >>> y[kept].bincount().tolist(), len(evenly(y, 1000, seed=0))
        ([4, 4, 3], 93)
    """
    order = permutation(len(y), seed, "labelled")
    order = order[y[order] >= 0]
    classes = y[order]
    rank = torch.zeros_like(classes)  # of an example within its class, in random order
    for k in classes.unique():
        rank[classes == k] = torch.arange(int((classes == k).sum()))
    first = (rank * (int(y.max()) + 1) + classes).argsort()[:count]
    return order[first].sort().values
