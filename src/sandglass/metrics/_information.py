"""Entropy and mutual information of counts, in nats."""

from __future__ import annotations

import numpy as np


def entropy(counts: np.ndarray) -> np.ndarray:
    """Entropy ``(...)`` of the distribution given by ``(..., K)`` counts or weights; 0 where all counts are 0.

    Example:
        >>> round(float(entropy(np.array([3, 3, 0]))), 6)
        0.693147
    """
    p = _share(counts.sum(-1, keepdims=True), counts)
    return -(p * np.log(np.where(p > 0, p, 1))).sum(-1)


def mutual_information(table: np.ndarray) -> np.ndarray:
    """Plug-in mutual information ``(...)`` of ``(..., A, B)`` contingency tables.

    Example:
        >>> round(float(mutual_information(np.eye(4))), 6), float(mutual_information(np.ones((3, 2))))
        (1.386294, 0.0)
    """
    p = _share(table.sum((-2, -1), keepdims=True), table)
    independent = p.sum(-1, keepdims=True) * p.sum(-2, keepdims=True)
    ratio = np.divide(p, independent, out=np.ones_like(p), where=p > 0)
    return np.maximum((p * np.log(ratio)).sum((-2, -1)), 0)  # rounding can leave -1e-17


def contingency(a: np.ndarray, b: np.ndarray, shape: tuple[int, int], weights: np.ndarray | None = None) -> np.ndarray:
    """Contingency table of this shape from two ``(N,)`` arrays of indices, optionally weighted.

    Example:
        >>> contingency(np.array([0, 1, 1]), np.array([0, 0, 2]), (2, 3)).tolist()
        [[1.0, 0.0, 0.0], [1.0, 0.0, 1.0]]
    """
    counts = np.bincount(a * shape[1] + b, weights, shape[0] * shape[1])
    return counts.astype(np.float64).reshape(shape)


def _share(total: np.ndarray, counts: np.ndarray) -> np.ndarray:
    return np.divide(counts, total, out=np.zeros_like(counts, dtype=np.float64), where=total > 0)
