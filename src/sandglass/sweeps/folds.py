"""The data of a sweep: one data set, or one for every fold of a cross-validation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sandglass.data.dataset import Dataset
from sandglass.data.load import load_data
from sandglass.data.trained_on import as_dataset
from sandglass.errors import ConfigError


def folds_of(data: Any, options: Mapping[str, Any] | None, folds: int) -> list[Dataset]:
    """The data of each fold.

    Args:
        data: as for :func:`sandglass.train`.
        options: of :func:`load_data`.
        folds: number of folds; 0 for the data as it is split.

    Returns:
        One data set, or ``folds`` that differ in which training examples are held out for validation.

    Raises:
        ConfigError: a single fold, or data that cannot be split anew.

    Example:
        >>> [len(fold.splits["validation"]) for fold in folds_of("digits", None, 3)]
        [479, 480, 479]
    """
    if not folds:
        return [as_dataset(data, options)]
    if folds < 2:
        raise ConfigError(f"A cross-validation needs at least 2 folds, not {folds}.")
    if isinstance(data, Dataset):
        if not data.source:
            raise ConfigError("Folds are made when data is read: pass the array, table or path instead of a Dataset.")
        options = dict(data.source)
        data = options.pop("source")
    if options and options.get("fold") is not None:
        raise ConfigError("fold chooses one of the folds, but a cross-validation uses all of them; leave it out.")
    return [_fold(data, {**(options or {}), "fold": f"{number}/{folds}"}) for number in range(1, folds + 1)]


def again(source: Mapping[str, Any], folds: int) -> list[Dataset]:
    """The data of each fold, from what a sweep folder says of its source."""
    given = dict(source)
    return folds_of(given.pop("source"), given, folds)


def _fold(data: Any, options: Mapping[str, Any]) -> Dataset:
    found = load_data(data, **options)
    if "validation" not in found.splits:
        raise ConfigError(f"There are too few examples for fold {options['fold']}; use fewer folds.")
    return found


def spread(figures: Sequence[float]) -> float:
    """The standard error of the mean over folds.

    The folds share most of their training examples, so it is somewhat too small: Bengio and Grandvalet 2004, "No
    Unbiased Estimator of the Variance of K-Fold Cross-Validation" (JMLR 5).

    Example:
        >>> round(spread([1.0, 2.0, 3.0]), 6)
        0.57735
    """
    mean = sum(figures) / len(figures)
    return float((sum((f - mean) ** 2 for f in figures) / (len(figures) - 1) / len(figures)) ** 0.5)
