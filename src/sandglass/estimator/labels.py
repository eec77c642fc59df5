"""Classes of examples, for models that are conditional on labels."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sandglass import registry
from sandglass.data.distinct import are_no_classes, better, insist, mostly_different
from sandglass.errors import ConfigError, DataError

Array = np.ndarray[Any, Any]


def conditional(name: str) -> bool:
    """Whether a model needs labels; False for an unknown model.

    Example:
        >>> conditional("cvae"), conditional("vae")
        (True, False)
    """
    try:
        return "labels" in registry.declared(name).conditions
    except ConfigError:
        return False


def numbered(name: str, y: Any, n: int, classes: Array | None = None) -> tuple[Array, Array]:
    """The classes, sorted, and the ``(n,)`` numbers of the given ones in them.

    Args:
        name: of the model, for messages.
        y: ``(n,)`` classes, or one for all.
        n: number of examples.
        classes: the known classes; those in ``y`` when None.

    Raises:
        ConfigError: there is no ``y``.
        DataError: another number of classes, one that is missing or not known, or values that are no classes.

    Example:
        >>> numbered("cvae", ["b", "a", "b"], 3)
        (array(['a', 'b'], dtype='<U1'), array([1, 0, 1]))
    """
    if y is None:
        raise ConfigError(f"The model '{name}' is conditional on labels: give the class of every example as y=...")
    given = np.asarray(y)
    given = np.full(n, given) if given.ndim == 0 and classes is not None else given
    if given.shape != (n,):
        raise DataError(f"y has the shape {given.shape}; it must have a class for each of {n:,} examples.")
    missing = [_is_missing(value) for value in given.tolist()]
    if any(missing):
        raise DataError(
            f"{sum(missing)} of the {n:,} classes in y are missing, the first is number {missing.index(True)}; leave "
            "those examples out."
        )
    if classes is None:
        try:
            found, numbers = np.unique(given, return_inverse=True)
        except TypeError as error:
            raise DataError("y mixes classes of several types; give all as strings: [str(k) for k in y].") from error
        if are_no_classes(found, n):
            some = repr(str(found[0])[:60])
            named = insist(found, f"name them for sandglass.train: load_data((X, y), classes=[{some}, ...])")
            raise DataError(
                f"y has {len(found):,} different values for {n:,} examples, which are not classes; {better(found)}. "
                f"{named}"
            )
        if mostly_different(len(found), n):
            warnings.warn(f"y has {len(found):,} different classes for {n:,} examples.", UserWarning, stacklevel=3)
        return found, numbers
    if classes.dtype.kind in "US":
        given = given.astype(str)
    unknown = [str(k) for k in np.unique(given) if k not in classes]
    if unknown:
        listed = ", ".join(map(str, classes[:20])) + (", ..." if len(classes) > 20 else "")
        raise DataError(f"y has the class {unknown[0]}, which the model does not know; it knows {listed}.")
    order = classes.argsort()
    return classes, order[classes[order].searchsorted(given)]


def _is_missing(value: Any) -> bool:
    """Whether a class is None, NaN or pandas' NA."""
    try:
        return value is None or bool(value != value)
    except TypeError:  # NA is neither true nor false
        return True


def as_tensor(numbers: Array) -> Tensor:
    """``(n,)`` class numbers of a batch."""
    return torch.from_numpy(np.ascontiguousarray(numbers, dtype=np.int64))
