"""Selects splits of a dataset and joins them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from sandglass.data import rows
from sandglass.data.dataset import Dataset, Split
from sandglass.errors import DataError


def held_out(splits: Mapping[str, Any]) -> str:
    """The first of test, validation and train that there is.

    Example:
        >>> held_out({"train": 1, "validation": 2})
        'validation'
    """
    return next((s for s in ("test", "validation") if s in splits), "train")


def chosen(data: Dataset, split: str | None, default: str = "all") -> dict[str, Split]:
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
