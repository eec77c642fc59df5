"""Bootstrap standard errors, the standard error of a median, and a random split into two halves."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from sandglass import rng

TIMES = 100
"""Bootstrap resamples; the standard error itself then has a relative error of about 7 %."""


def bootstrap(
    f: Callable[[np.ndarray], np.ndarray], n: int, *key: int | str, times: int = TIMES
) -> tuple[np.ndarray, np.ndarray]:
    """Statistics of n examples and their bootstrap standard errors.

    Efron 1979, "Bootstrap Methods: Another Look at the Jackknife".

    Args:
        f: maps weights ``(n,)``, the number of times each example was drawn, to statistics ``(k,)``.
        n: number of examples.
        key: random key of the resamples.
        times: number of resamples.

    Returns:
        ``(k,)`` statistics with every weight 1, and ``(k,)`` standard errors.

    Example:
        >>> x = np.random.default_rng(0).normal(size=10_000)
        >>> _, error = bootstrap(lambda w: np.array([np.average(x, weights=w)]), len(x), 0)
        >>> abs(float(error[0]) - 0.01) < 0.003
        True
    """
    generator = rng.generator(*key, "bootstrap")
    draws = [f(_resample(n, generator)) for _ in range(times)]
    values, errors = f(np.ones(n)), np.std(draws, axis=0, ddof=1)
    return values, np.where(errors > 1e-12 * np.abs(values), errors, 0.0)  # below this it is only rounding error


def _resample(n: int, generator: torch.Generator) -> np.ndarray:
    drawn = torch.randint(n, (n,), generator=generator)
    return torch.bincount(drawn, minlength=n).double().numpy()


def median(values: Tensor) -> tuple[float, float]:
    """The median, and its standard error from the order statistics one binomial standard deviation to either side.

    Example:
        >>> [round(v, 3) for v in median(torch.arange(101).double())]
        [50.0, 4.975]
    """
    half = 0.5 / len(values) ** 0.5
    low, mid, high = values.quantile(torch.tensor([max(0.5 - half, 0), 0.5, min(0.5 + half, 1)]).to(values)).tolist()
    return mid, (high - low) / 2


def halves(n: int, *key: int | str) -> tuple[np.ndarray, np.ndarray]:
    """Indices of two random halves of n examples: one to fit on, one to test on.

    Example:
        >>> fit, test = halves(5, 0, "a")
        >>> len(fit), sorted([*fit.tolist(), *test.tolist()])
        (2, [0, 1, 2, 3, 4])
    """
    order = rng.permutation(n, *key, "halves").numpy()
    return order[: n // 2], order[n // 2 :]


def sklearn_seed(*key: int | str) -> int:
    """A seed in the 32-bit range that scikit-learn accepts."""
    return rng.key(*key) % 2**32
