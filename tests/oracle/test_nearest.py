"""Copies of training examples, and the modes of a known mixture."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from helpers import Draws
from sandglass.core import Spec
from sandglass.data.dataset import Split
from sandglass.data.load import load_data
from sandglass.errors import ConfigError, DataError
from sandglass.metrics import modes, nearest
from sandglass.metrics.measure import measure
from sandglass.runs.result import Result


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def figures(draw: Any, x: Tensor, train: Tensor, **options: Any) -> dict[str, Result]:
    model = Draws(Spec(tuple(x.shape[1:])), draw)
    return {r.name: r for r in measure(model, Split(x), names=["nearest"], train=Split(train), nearest=options)}


def test_the_nearest_and_its_own_neighbour_are_the_definitions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nearest, "_ROWS", 7)
    x, train = normal(40, 3, seed=0).double(), normal(30, 3, seed=1).double()
    distance, authentic = nearest.closest(x, train)
    for i, point in enumerate(x):
        d = (train - point).norm(dim=1)
        hit = int(d.argmin())
        own = min(float((train[hit] - train[j]).norm()) for j in range(30) if j != hit)
        assert float(distance[i]) == pytest.approx(float(d.min()), abs=1e-12)
        assert bool(authentic[i]) == (float(d.min()) > own)


def test_a_model_that_copies_is_caught_and_one_that_does_not_is_not() -> None:
    x, train = normal(1000, 4, seed=0), normal(3000, 4, seed=1)
    place = torch.arange(10_000)

    def copy(n: int) -> Tensor:
        return train[place[torch.randint(len(train), (n,))]]

    def near(n: int) -> Tensor:
        return copy(n) + 0.01 * torch.randn(n, 4)

    def half(n: int) -> Tensor:
        return torch.where(torch.arange(n)[:, None] % 2 == 0, near(n), torch.randn(n, 4))

    own = figures(lambda n: torch.randn(n, 4), x, train)
    assert abs(own["copies"].value - 0.01) < 4 * own["copies"].stderr
    assert abs(own["nearest_ratio"].value - 1) < 4 * own["nearest_ratio"].stderr
    said = float(own["authenticity"].note.split()[-1])
    assert abs(own["authenticity"].value - said) < 4 * 2**0.5 * own["authenticity"].stderr
    for draw in (copy, near):
        found = figures(draw, x, train)
        assert found["copies"].value > 0.99 and found["authenticity"].value < 0.01
        assert found["nearest_ratio"].value < 0.1
    assert figures(half, x, train)["copies"].value == pytest.approx(0.505, abs=0.05)


def test_the_share_of_copies_is_what_it_says_of_any_distribution() -> None:
    """Among n unseen examples and m samples of one distribution the share is r / (n + 1) in expectation: 400 pairs,
    within 4 standard errors, of which the stated one is right within a third."""
    for n, m, expected in ((50, 80, 1 / 51), (400, 100, 4 / 401)):
        found = []
        for seed in range(400):
            distances = np.random.default_rng(seed).lognormal(size=n + m)
            found.append(nearest.copies(*map(torch.from_numpy, (distances[n:], distances[:n])), "{}"))
        values = np.array([r.value for r in found])
        assert float(found[0].note) == pytest.approx(expected)
        assert abs(values.mean() - expected) < 4 * values.std() / 20
        assert np.sqrt(np.mean([r.stderr**2 for r in found])) == pytest.approx(values.std(), rel=1 / 3)


def test_the_error_of_a_median_is_the_one_it_has() -> None:
    found = [nearest.median(normal(201, seed=s).double()) for s in range(300)]
    values, errors = np.array(found).T
    assert values.std() == pytest.approx(math.sqrt(math.pi / 2 / 201), rel=0.15), "the field's formula for normals"
    assert np.sqrt((errors**2).mean()) == pytest.approx(values.std(), rel=0.15)


def test_examples_that_are_all_in_the_training_set_have_no_ratio() -> None:
    x = normal(200, 2, seed=0)
    found = figures(lambda n: torch.randn(n, 2), x, x.clone())
    assert set(found) == {"copies", "authenticity"}, "unseen examples at distance 0 measure nothing"


def test_on_the_training_examples_it_is_refused() -> None:
    x = normal(200, 2, seed=0)
    with pytest.raises(DataError, match="choose another split"):
        figures(lambda n: torch.randn(n, 2), x, x)


# modes


def of_ring(draw: Any, name: str = "ring", **options: Any) -> dict[str, Result]:
    data = load_data(name)
    model = Draws(data.spec, draw)
    options = {"modes": options} if options else {}
    return {r.name: r for r in measure(model, data.splits["test"], mixture=data.mixture, names=["modes"], **options)}


@pytest.mark.parametrize(("name", "total"), [("ring", 8), ("grid", 25)])
def test_the_real_mixture_has_all_its_modes(name: str, total: int) -> None:
    x = load_data(name).train.x
    found = of_ring(lambda n: x[torch.randint(len(x), (n,))], name)
    assert found["modes_reached"].value == total and found["modes_reached"].n == 2_500
    inside = 1 - math.exp(-4.5)  # of a normal in the plane within three deviations
    assert abs(found["high_quality"].value - inside) < 4 * found["high_quality"].stderr
    assert f"{inside:.3f} at best" in found["high_quality"].note
    # 2 N times the divergence of N even draws is chi-squared with K - 1 degrees of freedom.
    assert 0 < 2 * 2_500 * found["modes_kl"].value < (total - 1) + 4 * math.sqrt(2 * (total - 1))


def test_modes_that_are_left_out_are_counted() -> None:
    centres = load_data("ring").mixture.centres

    def draw(n: int) -> Tensor:
        """Three modes, of which the last is met by poor samples alone."""
        mode = torch.arange(n) % 4 // 2 + torch.arange(n) % 4 // 3
        return (centres[mode] + torch.where(mode == 2, 0.1, 0.0)[:, None]).float()

    found = of_ring(draw, samples=256)
    assert found["modes_reached"].value == 2 and found["high_quality"].value == 0.75
    shares = np.array([0.5, 0.25, 0.25])
    assert found["modes_kl"].value == pytest.approx(float((shares * np.log(shares * 8)).sum()), abs=1e-12)
    assert "of 8" in found["modes_reached"].note and found["modes_reached"].stderr == 0


def test_the_error_of_the_divergence_is_the_one_it_has() -> None:
    shares = torch.tensor([0.5, 0.3, 0.15, 0.05]).double()
    found = []
    for seed in range(300):
        mode = torch.multinomial(shares, 500, replacement=True, generator=torch.Generator().manual_seed(seed))
        found.append(modes.reverse_kl(mode, 4))
    values, errors = np.array(found).T
    assert np.mean(errors) == pytest.approx(values.std(), rel=0.15)


def test_three_deviations_are_the_edge() -> None:
    centres = torch.tensor([[0.0, 0.0], [10.0, 0.0]]).double()
    x = torch.tensor([[0.2999, 0.0], [0.3001, 0.0], [10.0, -0.29], [math.nan, 0.0]]).double()
    mode, good = modes.assign(x, centres, 0.1)
    assert good.tolist() == [True, False, True, False] and mode[:3].tolist() == [0, 0, 1]


def test_only_of_a_mixture_and_in_its_own_coordinates() -> None:
    data = load_data("ring")
    assert data.mixture.deviation == 0.02 and load_data("digits").mixture is None
    with pytest.raises(ConfigError, match="at least 2"):
        of_ring(lambda n: torch.zeros(n, 2), samples=1)
    with pytest.raises(DataError, match="centres"):
        measure(Draws(Spec((2,)), lambda n: torch.zeros(n, 2)), Split(torch.zeros(3, 2)), names=["modes"])
    moved = load_data(data.train.x.numpy() * 3 + 1).transform
    assert load_data("ring", transform=data.transform).mixture is not None
    columns = tuple({**c, "scale": 2.0} for c in data.transform.columns)
    assert moved is not None and load_data("ring", transform=type(data.transform)(columns)).mixture is None
