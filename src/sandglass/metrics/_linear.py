"""A linear classifier on standardised numbers."""

from __future__ import annotations

import warnings

import numpy as np

_ITERATIONS = 1000


class Linear:
    """Multinomial logistic regression with a penalty of half the squared weights, on standardised columns.

    Args:
        x: ``(N, D)`` to fit to.
        y: ``(N,)`` classes from 0; they may all be one.
        classes: how many there are.

    Attributes:
        converged: whether the fit came to its end.

    Example:
        >>> x = np.linspace(-1, 1, 50)[:, None]
        >>> Linear(x, (x[:, 0] > 0).astype(int), 2).probabilities(np.array([[-0.5], [0.5]])).argmax(1).tolist()
        [0, 1]
    """

    def __init__(self, x: np.ndarray, y: np.ndarray, classes: int) -> None:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression

        self.classes, self.there = classes, np.unique(y)
        self.mean, scale = x.mean(0), x.std(0)
        self.scale = np.where(scale > 1e-12 * (1 + abs(self.mean)), scale, 1)
        self.model = LogisticRegression(C=1.0, max_iter=_ITERATIONS)
        self.converged = True
        if len(self.there) > 1:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)  # said by `converged`
                self.model.fit((x - self.mean) / self.scale, y)
            self.converged = int(self.model.n_iter_.max()) < _ITERATIONS

    def probabilities(self, x: np.ndarray) -> np.ndarray:
        """``(N, classes)`` probability of each class, 0 of one that was never seen."""
        found = np.zeros((len(x), self.classes))
        one = len(self.there) == 1
        found[:, self.there] = 1.0 if one else self.model.predict_proba((x - self.mean) / self.scale)
        return found
