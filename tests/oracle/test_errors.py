"""Standard errors of figures that are no plain means, against the spread of the figure over repetitions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from helpers import Draws
from sandglass import registry
from sandglass.core import Spec
from sandglass.data.dataset import Mixture, Split
from sandglass.metrics._bootstrap import median
from sandglass.metrics.measure import measure, share_result
from sandglass.runs.result import Result

TIMES = 300
"""Repetitions, of which a spread is known to 4 %; the seeds are fixed."""


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def spread_and_errors(figure: Callable[[int], tuple[float, float | None]]) -> tuple[float, float]:
    """The standard deviation of a figure over seeds, and the mean of the errors that it states."""
    values, errors = np.array([figure(seed) for seed in range(TIMES)], float).T
    return float(values.std(ddof=1)), float(errors.mean())


@pytest.mark.parametrize("p", [0.5, 0.1])
def test_of_a_share(p: float) -> None:
    def figure(seed: int) -> tuple[float, float | None]:
        found = share_result("a", torch.rand(100, generator=torch.Generator().manual_seed(seed)) < p)
        return found.value, found.stderr

    spread, error = spread_and_errors(figure)
    assert error == pytest.approx(spread, rel=0.12)


def test_of_a_share_of_all_or_none_is_not_0() -> None:
    """Of n examples that all agree, the share may well be off by 3 / n: two errors reach about as far."""
    for n in (30, 100, 1000):
        for hit in (True, False):
            found = share_result("a", torch.full((n,), hit))
            assert found.value == hit and found.stderr is not None and 0.75 < 2 * found.stderr / (3 / n) < 1


def test_of_a_median() -> None:
    spread, error = spread_and_errors(lambda seed: median(normal(200, seed=seed)))
    assert error == pytest.approx(spread, rel=0.1)


def test_of_the_active_units() -> None:
    """Sixty units with variances about 0.01. A resample is about what was found and not about what is, so of units so
    near the edge it finds sqrt((1/6) / (1/4)) of the spread."""
    scales = torch.linspace(0.097, 0.103, 60).double()
    model = registry.build("vae", Spec((60,)), net="linear", latent_dim=60).double()
    with torch.no_grad():
        model.q.trunk.module[1].weight.copy_(torch.cat([scales.diag(), torch.zeros(60, 60)]))

    def figure(seed: int) -> tuple[float, float | None]:
        (found,) = measure(model, Split(normal(200, 60, seed=seed)), names=["active_units"], seed=seed)
        return found.value, found.stderr

    spread, error = spread_and_errors(figure)
    assert error == pytest.approx((4 / 6) ** 0.5 * spread, rel=0.15)


def test_of_the_modes_reached() -> None:
    """Thirty modes of which a third is met about once in so many samples: the jackknife bounds the spread."""
    centres = torch.arange(30).double()[:, None] * 10
    shares = torch.tensor([1.0] * 10 + [9.0] * 20)
    model = Draws(Spec((1,)), lambda n: centres[torch.multinomial(shares, n, replacement=True)].float())
    mixture = Mixture(centres, 1.0)

    def figure(seed: int) -> tuple[float, float | None]:
        found: list[Result] = measure(
            model, Split(torch.zeros(9, 1)), names=["modes_reached"], mixture=mixture, seed=seed, modes={"samples": 190}
        )
        return found[0].value, found[0].stderr

    spread, error = spread_and_errors(figure)
    assert spread < error < 1.3 * spread
