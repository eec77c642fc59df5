"""A linear classifier on standardised inputs."""

from __future__ import annotations

import warnings

import numpy as np

_ITERATIONS = 1000


class Linear:
    """Multinomial logistic regression with an L2 penalty (C = 1), on standardised columns.

    Args:
        x: ``(N, D)`` inputs to fit to.
        y: ``(N,)`` class labels from 0; a single class is allowed.
        classes: number of classes.

    Attributes:
        converged: whether the fit converged.

    Example:
        >>> x = np.linspace(-1, 1, 50)[:, None]
        >>> Linear(x, (x[:, 0] > 0).astype(int), 2).probabilities(np.array([[-0.5], [0.5]])).argmax(1).tolist()
        [0, 1]
    """

    def __init__(self, x: np.ndarray, y: np.ndarray, classes: int) -> None:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression

        self.classes, self.present = classes, np.unique(y)
        self.mean, scale = x.mean(0), x.std(0)
        self.scale = np.where(scale > 1e-12 * (1 + abs(self.mean)), scale, 1)
        self.model = LogisticRegression(C=1.0, max_iter=_ITERATIONS)
        self.converged = True
        if len(self.present) > 1:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)  # reported in `converged`
                self.model.fit((x - self.mean) / self.scale, y)
            self.converged = int(self.model.n_iter_.max()) < _ITERATIONS

    def probabilities(self, x: np.ndarray) -> np.ndarray:
        """``(N, classes)`` probability of each class, 0 for a class absent from the fit."""
        found = np.zeros((len(x), self.classes))
        one = len(self.present) == 1
        found[:, self.present] = 1.0 if one else self.model.predict_proba((x - self.mean) / self.scale)
        return found
