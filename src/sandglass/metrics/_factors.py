"""Codes beside the factors that their examples were made from: what every measure of disentanglement looks at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sandglass.core import Model
from sandglass.metrics._information import contingency, entropy, mutual_information
from sandglass.metrics.evaluation import Evaluation, UnsuitableError
from sandglass.metrics.latent import ACTIVE, codes_of

_LEAST = 20  # examples without which nothing is said at all
_FEW = 20  # examples of a value under which the note warns


@dataclass(frozen=True)
class Known:
    """Codes and factors of the same N examples.

    Args:
        codes: ``(N, D)`` of the active dimensions; one column of zeros where none is.
        factors: ``(N, F)`` those that vary, the values of each numbered from 0 without gaps.
        names: of these factors.
        values: how many values each takes.
        notes: what was left out, and warnings.
    """

    codes: np.ndarray
    factors: np.ndarray
    names: tuple[str, ...]
    values: tuple[int, ...]
    notes: tuple[str, ...]

    def note(self, *more: str) -> str:
        """One line for the reader."""
        return "; ".join(part for part in (*more, *self.notes) if part)

    def each(self, figures: np.ndarray) -> str:
        """A figure for every factor, by name."""
        return ", ".join(f"{name} {figure:.2f}" for name, figure in zip(self.names, figures, strict=True))


def known(model: Model, evaluation: Evaluation, measure: str, least: int = 1) -> Known:
    """The codes of the active dimensions and the factors that vary.

    A dimension of a model with a posterior is active as `active_units` counts it; another model's when it varies.

    Args:
        model: it encodes.
        evaluation: the examples, with their factors.
        measure: its name, for messages.
        least: factors that must vary.

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
        raise UnsuitableError(f"The metric '{measure}' needs {of}; here {', '.join(varying) or 'none'} does.")
    codes, notes = _active(model, codes_of(model, evaluation).numpy())
    notes += [f"factor '{name}' is constant and left out" for name in names if name not in varying]
    fewest, where = min((int(np.bincount(column).min()), name) for column, name in zip(numbers.T, varying, strict=True))
    if fewest < _FEW:
        notes.append(f"few examples: a value of '{where}' has {fewest}")
    if len(varying) == 1:
        notes.append("only one factor varies, so that nothing could be entangled with it")
    return Known(codes, numbers, varying, values, tuple(notes))


def numbered(factors: np.ndarray, names: Sequence[str]) -> tuple[np.ndarray, tuple[str, ...], tuple[int, ...]]:
    """The factors that vary: ``(N, F)`` values numbered from 0 without gaps, their names, and how many values each has.

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
    """The dimensions that carry anything, and what is to be said of the others."""
    variance = codes.var(0)
    rounding = 1e-12 * (1 + codes.mean(0) ** 2)
    kind = "posterior means" if "posterior" in model.provides else "codes"
    active = variance > (ACTIVE if "posterior" in model.provides else rounding)
    if not active.any():
        return np.zeros((len(codes), 1)), [kind, f"none of {len(active)} dimensions is active"]
    return codes[:, active], [kind] + [f"{active.sum()} of {len(active)} dimensions are active"] * (not active.all())


def binned(codes: np.ndarray, bins: int) -> np.ndarray:
    """``(N, D)`` numbers of equally wide bins between the least and the greatest value of each dimension.

    Example:
        >>> binned(np.array([[-1.0], [0.1], [1.0]]), 2).tolist()
        [[0], [1], [1]]
    """
    low, high = codes.min(0), codes.max(0)
    place = (codes - low) / np.where(high > low, high - low, 1)
    return np.minimum((place * bins).astype(np.int64), bins - 1)


def information(cells: np.ndarray, bins: int, seen: Known, weights: np.ndarray | None = None) -> np.ndarray:
    """``(D, F)`` mutual information of binned dimensions and factors in nats."""
    d = cells.shape[1]
    rows = np.arange(d) * bins + cells  # the tables of all dimensions, one under another
    spread = None if weights is None else np.repeat(weights, d)
    tables = (
        contingency(rows.ravel(), np.repeat(seen.factors[:, k], d), (d * bins, values), spread).reshape(d, bins, values)
        for k, values in enumerate(seen.values)
    )
    return np.stack([mutual_information(table) for table in tables], 1)


def entropies(seen: Known, weights: np.ndarray | None = None) -> np.ndarray:
    """``(F,)`` entropies of the factors in nats."""
    counts = (np.bincount(seen.factors[:, k], weights, values) for k, values in enumerate(seen.values))
    return np.array([entropy(count) for count in counts])


def by_chance(cells: np.ndarray, seen: Known) -> str:
    """A warning where the plug-in estimate of a dimension that knows nothing is well above 0.

    Its expectation is (A - 1)(B - 1) / 2N nats for A occupied bins and B values (Miller 1955).
    """
    occupied = max(len(np.unique(column)) for column in cells.T)
    bias = (occupied - 1) * (max(seen.values) - 1) / (2 * len(cells))
    return f"few examples: chance alone gives up to {bias:.2f} nats" if bias > 0.1 * entropies(seen).min() else ""


def gap(scores: np.ndarray, nothing: np.ndarray | float = 0.0) -> np.ndarray:
    """``(D, F)`` scores to the gap ``(F,)`` between the best and the second-best dimension.

    Args:
        scores: of every dimension for every factor.
        nothing: the score of a dimension that knows nothing, which is the second-best of one dimension.

    Example:
        >>> gap(np.array([[0.75, 0.5], [0.5, 0.0]])).tolist(), gap(np.array([[0.75]])).tolist()
        ([0.25, 0.5], [0.75])
    """
    first, second = np.sort(np.vstack([scores, np.broadcast_to(nothing, scores.shape[1:])]), axis=0)[-1:-3:-1]
    return first - second


def balanced(correct: np.ndarray, y: np.ndarray, values: int, weights: np.ndarray) -> np.ndarray:
    """``(N, D)`` whether each answer is right to the balanced accuracy ``(D,)``: the mean over values of ``y``.

    Example:
        >>> balanced(np.array([[1.0], [0.0], [1.0]]), np.array([0, 0, 1]), 2, np.ones(3)).tolist()
        [0.75]
    """
    of = np.eye(values)[y] * weights[:, None]
    there = of.sum(0) > 0
    return ((of.T @ correct)[there] / of.sum(0)[there, None]).mean(0)
