"""Codes and known generative factors, prepared for the disentanglement metrics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sandglass.core import Model
from sandglass.metrics._information import contingency, entropy, mutual_information
from sandglass.metrics.evaluation import Evaluation, UnsuitableError
from sandglass.metrics.latent import ACTIVE, codes_of

_LEAST = 20  # minimum number of examples
_FEW = 20  # the note warns about factor values with fewer examples


@dataclass(frozen=True)
class Factored:
    """Codes and factors of the same N examples.

    Args:
        codes: ``(N, D)`` active dimensions; one column of zeros where none is active.
        factors: ``(N, F)`` factors that vary, the values of each numbered consecutively from 0.
        names: of these factors.
        values: number of values of each.
        notes: what was excluded, and warnings.
    """

    codes: np.ndarray
    factors: np.ndarray
    names: tuple[str, ...]
    values: tuple[int, ...]
    notes: tuple[str, ...]

    def note(self, *more: str) -> str:
        """The given parts and the notes on one line."""
        return "; ".join(part for part in (*more, *self.notes) if part)

    def each(self, figures: np.ndarray) -> str:
        """The figure of every factor with its name, as text."""
        return ", ".join(f"{name} {figure:.2f}" for name, figure in zip(self.names, figures, strict=True))


def factored(model: Model, evaluation: Evaluation, measure: str, least: int = 1) -> Factored:
    """The codes of the active dimensions and the factors that vary.

    For a model with a posterior a dimension is active as in `active_units`; for other models, when it varies at all.

    Args:
        model: a model with an encoder.
        evaluation: the examples, with their factors.
        measure: name of the metric, for messages.
        least: minimum number of factors that vary.

    Raises:
        DataError: too few examples, or too few factors that vary.
    """
    assert evaluation.split.factors is not None
    factors = evaluation.split.factors.cpu().numpy()
    if len(factors) < _LEAST:
        raise UnsuitableError(f"The metric '{measure}' needs at least {_LEAST} examples, and there are {len(factors)}.")
    names = evaluation.factors or tuple(f"factor {k + 1}" for k in range(factors.shape[1]))
    numbers, varying, values = numbered(factors, names)
    if len(varying) < least:
        of = "two factors that vary" if least > 1 else "a factor that varies"
        raise UnsuitableError(f"The metric '{measure}' needs {of}; varying here: {', '.join(varying) or 'none'}.")
    codes, notes = _active(model, codes_of(model, evaluation).numpy())
    notes += [f"factor '{name}' is constant and excluded" for name in names if name not in varying]
    fewest, where = min((int(np.bincount(column).min()), name) for column, name in zip(numbers.T, varying, strict=True))
    if fewest < _FEW:
        notes.append(f"few examples: a value of '{where}' has {fewest}")
    if len(varying) == 1:
        notes.append("only one factor varies, so there is no other factor to be entangled with it")
    return Factored(codes, numbers, varying, values, tuple(notes))


def numbered(factors: np.ndarray, names: Sequence[str]) -> tuple[np.ndarray, tuple[str, ...], tuple[int, ...]]:
    """The factors that vary: ``(N, F)`` values numbered consecutively from 0, their names, and their value counts.

    Example:
        >>> numbered(np.array([[7, 1, 0], [7, 5, 1]]), ("a", "b", "c"))
        (array([[0, 0],
               [1, 1]]), ('b', 'c'), (2, 2))
    """
    columns = [np.unique(column, return_inverse=True)[1] for column in factors.T]
    kept = [k for k, column in enumerate(columns) if column.max(initial=0) > 0]
    numbers = np.stack([columns[k] for k in kept], 1) if kept else np.empty((len(factors), 0), np.int64)
    return numbers, tuple(names[k] for k in kept), tuple(int(columns[k].max()) + 1 for k in kept)


def _active(model: Model, codes: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """The active dimensions, and notes on the others."""
    variance = codes.var(0)
    rounding = 1e-12 * (1 + codes.mean(0) ** 2)
    kind = "posterior means" if "posterior" in model.provides else "codes"
    active = variance > (ACTIVE if "posterior" in model.provides else rounding)
    if not active.any():
        return np.zeros((len(codes), 1)), [kind, f"none of {len(active)} dimensions is active"]
    return codes[:, active], [kind] + [f"{active.sum()} of {len(active)} dimensions are active"] * (not active.all())


def binned(codes: np.ndarray, bins: int) -> np.ndarray:
    """``(N, D)`` indices of equal-width bins between the minimum and the maximum of each dimension.

    Example:
        >>> binned(np.array([[-1.0], [0.1], [1.0]]), 2).tolist()
        [[0], [1], [1]]
    """
    low, high = codes.min(0), codes.max(0)
    place = (codes - low) / np.where(high > low, high - low, 1)
    return np.minimum((place * bins).astype(np.int64), bins - 1)


def information(cells: np.ndarray, bins: int, data: Factored, weights: np.ndarray | None = None) -> np.ndarray:
    """``(D, F)`` mutual information of binned dimensions and factors in nats."""
    d = cells.shape[1]
    rows = np.arange(d) * bins + cells  # stacks the contingency tables of all dimensions
    spread = None if weights is None else np.repeat(weights, d)
    tables = (
        contingency(rows.ravel(), np.repeat(data.factors[:, k], d), (d * bins, values), spread).reshape(d, bins, values)
        for k, values in enumerate(data.values)
    )
    return np.stack([mutual_information(table) for table in tables], 1)


def entropies(data: Factored, weights: np.ndarray | None = None) -> np.ndarray:
    """``(F,)`` entropies of the factors in nats."""
    counts = (np.bincount(data.factors[:, k], weights, values) for k, values in enumerate(data.values))
    return np.array([entropy(count) for count in counts])


def by_chance(cells: np.ndarray, data: Factored) -> str:
    """A warning where the plug-in estimate is well above 0 even for independent variables.

    Its expectation is then (A - 1)(B - 1) / 2N nats for A occupied bins and B values (Miller 1955).
    """
    occupied = max(len(np.unique(column)) for column in cells.T)
    bias = (occupied - 1) * (max(data.values) - 1) / (2 * len(cells))
    return f"few examples: chance alone gives up to {bias:.2f} nats" if bias > 0.1 * entropies(data).min() else ""


def gap(scores: np.ndarray, nothing: np.ndarray | float = 0.0) -> np.ndarray:
    """Gap ``(F,)`` between the best and the second-best dimension of ``(D, F)`` scores.

    Args:
        scores: of every dimension for every factor.
        nothing: the score of an uninformative dimension, used as the second-best where there is only one dimension.

    Example:
        >>> gap(np.array([[0.75, 0.5], [0.5, 0.0]])).tolist(), gap(np.array([[0.75]])).tolist()
        ([0.25, 0.5], [0.75])
    """
    first, second = np.sort(np.vstack([scores, np.broadcast_to(nothing, scores.shape[1:])]), axis=0)[-1:-3:-1]
    return first - second


def balanced(correct: np.ndarray, y: np.ndarray, values: int, weights: np.ndarray) -> np.ndarray:
    """Balanced accuracy ``(D,)`` of ``(N, D)`` correct predictions: the mean accuracy over the values of ``y``.

    Example:
        >>> balanced(np.array([[1.0], [0.0], [1.0]]), np.array([0, 0, 1]), 2, np.ones(3)).tolist()
        [0.75]
    """
    of = np.eye(values)[y] * weights[:, None]
    present = of.sum(0) > 0
    return ((of.T @ correct)[present] / of.sum(0)[present, None]).mean(0)
