"""The classifier two-sample test: by chance on real data, certain on what differs, and with honest errors."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from helpers import Draws
from sandglass.core import Spec
from sandglass.data.dataset import Split
from sandglass.data.load import load_data
from sandglass.errors import ConfigError
from sandglass.metrics import two_sample
from sandglass.metrics.evaluation import UnsuitableError
from sandglass.metrics.measure import measure
from sandglass.runs.result import Result


def figures(
    real: Tensor, fake: Tensor, spec: Spec, seed: int = 0, quick: bool = True, **options: int
) -> dict[str, Result]:
    model = Draws(spec, in_turn(fake))
    found = measure(model, Split(real), names=["two_sample"], seed=seed, quick=quick, two_sample=options)
    return {r.name: r for r in found}


def in_turn(fake: Tensor):  # type: ignore[no-untyped-def]
    """A function that draws the rows of ``fake`` one after another."""
    given = [0]

    def draw(n: int) -> Tensor:
        given[0] += n
        return fake[torch.arange(given[0] - n, given[0]) % len(fake)]

    return draw


def test_the_area_in_closed_form() -> None:
    """Of normals one deviation apart it is Phi(1 / sqrt 2); its error is the spread over repetitions."""
    generator = torch.Generator().manual_seed(0)
    pairs = [
        two_sample.area(*(torch.randn(2, 100, generator=generator) + torch.tensor([[0.0], [1.0]]))) for _ in range(400)
    ]
    values, errors = torch.tensor(pairs).T
    assert float(values.mean()) == pytest.approx(0.5 * (1 + math.erf(0.5)), abs=4 * float(values.std()) / 20)
    assert float(errors.mean()) == pytest.approx(float(values.std()), rel=0.1)
    assert two_sample.area(torch.zeros(50), torch.ones(50))[1] > 0.02, "50 of 50 are not certainty"


def test_rows_of_one_distribution_are_told_apart_by_chance() -> None:
    """Over 40 seeds, beyond two errors as rarely as normals are (5 %: seven or more have a chance of 1 in 300)."""
    beyond, values = 0, []
    for seed in range(40):
        x = torch.randn(400, 3, generator=torch.Generator().manual_seed(seed))
        found = figures(x[:200], x[200:], Spec((3,)), seed)["two_sample_auc"]
        assert found.stderr is not None
        beyond += abs(found.value - 0.5) > 2 * found.stderr
        values.append(found.value)
    assert beyond <= 6
    assert abs(sum(values) / 40 - 0.5) < 4 * 0.041 / 40**0.5


def test_images_without_neighbours_are_left_out() -> None:
    """Two rows of pixels have no inner ones; by default the metric is then left out, by name it is refused."""
    x = torch.rand(200, 1, 2, 30)
    with pytest.raises(UnsuitableError, match="3 pixels a side"):
        figures(x[:100], x[100:], Spec((1, 2, 30), "unit"))
    found = measure(Draws(Spec((1, 2, 30), "unit"), in_turn(x)), Split(x[:100]))
    assert "two_sample_auc" not in {r.name for r in found}


@pytest.mark.slow
@pytest.mark.parametrize("folds", [1, 4])
def test_real_images_are_told_apart_by_chance(folds: int) -> None:
    """Over 12 seeds and splits of the digits, beyond two errors at most three times (more: a chance of 1 in 400)."""
    data = load_data("digits")
    x = torch.cat([data.splits[name].batch(slice(None)).x for name in data.splits])
    beyond = 0
    for seed in range(12):
        some = x[torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))]
        found = figures(some[:400], some[400:800], data.spec, seed, folds=folds)["two_sample_auc"]
        assert found.stderr is not None
        beyond += abs(found.value - 0.5) > 2 * found.stderr
    assert beyond <= 3


def test_real_digits_are_by_chance_and_noisy_ones_are_not() -> None:
    data = load_data("digits")
    x = data.train.batch(slice(0, 600)).x
    real = figures(x[:300], x[300:], data.spec)
    assert abs(real["two_sample_auc"].value - 0.5) < 3 * (real["two_sample_auc"].stderr or 0)
    noise = 0.3 * torch.randn(300, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    other = figures(x[:300], x[300:] + noise, data.spec)
    assert other["two_sample_auc"].value > 0.9 and other["two_sample_accuracy"].value > 0.8
    assert figures(x[:300], x[300:] + noise, data.spec) == other, "it repeats"


def test_the_last_digits_of_floats_do_not_count() -> None:
    """The same images with less than half a level added: without rounding every one of them is told apart."""
    data = load_data("digits")
    x = data.train.batch(slice(0, 600)).x
    fine = x[300:] * (1 - 1e-3) + 5e-4
    assert figures(x[:300], fine, data.spec) == figures(x[:300], x[300:], data.spec)


def test_rows_that_differ_in_what_moments_do_not_show() -> None:
    generator = torch.Generator().manual_seed(0)
    real = torch.randn(400, 2, generator=generator)
    ring = torch.nn.functional.normalize(torch.randn(400, 2, generator=generator), dim=1) * 2**0.5
    assert figures(real, ring, Spec((2,)))["two_sample_auc"].value > 0.9, "mean 0 and variance 1, as the examples have"


def test_every_part_is_tested_once_by_cross_validation() -> None:
    x = torch.randn(200, 3, generator=torch.Generator().manual_seed(0))
    one, all_of_them = (figures(x[:100], x[100:], Spec((3,)), folds=folds) for folds in (1, 5))
    assert one["two_sample_auc"].n == 100 and all_of_them["two_sample_auc"].n == 200
    assert "5-fold" in all_of_them["two_sample_auc"].note
    assert figures(x[:100], x[100:], Spec((3,)), quick=False) == all_of_them, "it is the default where time allows"
    assert figures(x[:100], x[100:], Spec((3,))) == one
    with pytest.raises(ConfigError, match="20 samples"):
        figures(x, x, Spec((3,)), samples=5)


def test_large_images_are_seen_as_a_crop_and_whole() -> None:
    x = torch.rand(2, 3, 100, 60)
    seen = two_sample.small(x)
    assert seen.shape == (2, 6, 48, 48)
    assert torch.equal(seen[:, :3], x[:, :, 26:74, 6:54])
    assert float((seen[:, 3:].mean((2, 3)) - x.mean((2, 3))).abs().max()) < 0.05
