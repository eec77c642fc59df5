"""Maximum mean discrepancy against its definition, its closed form and its null distribution."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from sandglass import registry
from sandglass.core import Model, Spec
from sandglass.data.dataset import Split
from sandglass.distributions.discrepancy import KERNELS, WIDTHS
from sandglass.errors import ConfigError
from sandglass.metrics.measure import measure
from sandglass.metrics.mmd import mmd_blocks
from sandglass.runs.result import Result


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def score(values: Tensor, expected: float = 0.0) -> float:
    return float((values.mean() - expected) / (values.std() / len(values) ** 0.5))


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_block_is_the_unbiased_statistic(kernel: str) -> None:
    x, y = normal(30, 2, seed=0), normal(30, 2, seed=1)

    def k(a: Tensor, b: Tensor) -> float:
        d = [float((a - b).square().sum()) / (3.0 * width) for width in WIDTHS]
        return sum(1 / (1 + v) if kernel == "imq" else math.exp(-v) for v in d) / len(WIDTHS)

    found = mmd_blocks(x, y, kernel, 3.0)
    assert len(found) == 6  # six blocks of five
    for block, value in enumerate(found):
        own = [(x[i], y[i]) for i in range(5 * block, 5 * block + 5)]
        pairs = [(a, b) for i, a in enumerate(own) for j, b in enumerate(own) if i != j]
        terms = [k(a[0], b[0]) + k(a[1], b[1]) - k(a[0], b[1]) - k(a[1], b[0]) for a, b in pairs]
        assert float(value) == pytest.approx(sum(terms) / 20, abs=1e-12)


def test_it_is_the_closed_form_of_two_normals() -> None:
    """E k(a, b) = (1 + 2 v / c)^(-D/2) exp(-m^2 / (c + 2 v)) for a - b ~ N(m, v I), k = exp(-d^2 / c).

    |z| < 5, a false alarm in 10^6; the biased statistic, off by 1/100 of a kernel, would be at z > 50.
    """
    dim, shift, spread, unit = 3, 0.7, 1.5, 6.0

    def expected(mean: float, variance: float) -> float:
        widths = [unit * width for width in WIDTHS]
        each = [(1 + 2 * variance / c) ** (-dim / 2) * math.exp(-(mean**2) / (c + 2 * variance)) for c in widths]
        return sum(each) / len(each)

    across = expected(shift * math.sqrt(dim), 1 + spread**2)
    exact = expected(0, 2) + expected(0, 2 * spread**2) - 2 * across
    values = mmd_blocks(normal(10_000, dim, seed=0), spread * normal(10_000, dim, seed=1) + shift, "rbf", unit)
    assert abs(score(values, exact)) < 5 and exact > 20 * float(values.std()) / 100**0.5


@pytest.mark.parametrize("kernel", KERNELS)
def test_its_null_distribution_is_centred_and_its_error_true(kernel: str) -> None:
    """300 repetitions of 900 draws. The mean of all: |z| < 5 (10^-6). Of the scores, t with 29 degrees, 5.97 % are
    beyond 1.96; of 300 under 9 or over 32 are so with a chance of about 1 %, and the seeds are fixed.
    """
    blocks = torch.stack(
        [mmd_blocks(normal(900, 4, seed=s), normal(900, 4, seed=s + 10**6), kernel, 8.0) for s in range(300)]
    )
    scores = torch.tensor([score(own) for own in blocks])
    assert abs(score(blocks.mean(1))) < 5
    assert 9 <= int((scores.abs() > 1.96).sum()) <= 32


def test_it_sees_a_shift_and_a_spread() -> None:
    x = normal(2500, 4, seed=0)
    for other in (x + 0.3, 1.3 * x, 0.7 * x, x * torch.tensor([1, 1, 1, 0.3]).double()):
        for kernel in KERNELS:
            assert score(mmd_blocks(other[torch.randperm(2500)], normal(2500, 4, seed=1), kernel, 8.0)) > 5


def coded(scale: float) -> Model:
    """A VAE whose q(z|x) is normal around x."""
    model = registry.build("vae", Spec((2,)), net="linear", latent_dim=2).double()
    with torch.no_grad():
        layer = model.q.trunk.module[1]
        layer.weight.copy_(torch.cat([torch.eye(2), torch.zeros(2, 2)]))
        layer.bias.copy_(torch.tensor([0.0, 0.0, *[2 * math.log(scale)] * 2]))
    return model


def found(model: Model, x: Tensor, **options: object) -> Result:
    (result,) = measure(model, Split(x), names=["mmd"], mmd=options)
    return result


@pytest.mark.parametrize("kernel", KERNELS)
def test_codes_that_are_the_prior_together_score_0_in_any_order(kernel: str) -> None:
    """x ~ N(0, I / 2), z = x + e / sqrt(2): q(z) is the prior. |z| < 4 with 50 blocks: 2 in 10^4."""
    x = math.sqrt(0.5) * normal(2500, 2, seed=0)
    for order in (torch.arange(2500), x[:, 0].argsort()):
        result = found(coded(0.5**0.5), x[order], kernel=kernel)
        assert abs(result.value) < 4 * float(result.stderr or 0) < 0.02
    assert result.n == 2500 and "50 blocks of 50" in result.note and "too few" not in result.note
    # the means alone are not the prior, so draws are what is compared
    narrow = found(coded(1e-4), x, kernel=kernel)
    assert narrow.value > 4 * float(narrow.stderr or 0)


def test_the_prior_s_own_spread_is_the_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []
    monkeypatch.setattr(
        "sandglass.metrics.mmd.mmd_blocks", lambda x, y, kernel, unit: seen.append(unit) or torch.zeros(3).double()
    )
    found(coded(0.4), normal(100, 2, seed=0))
    assert seen[0] == pytest.approx(4, rel=0.15)  # 2 x 2 dimensions of variance 1


def test_few_examples_are_said_or_refused() -> None:
    assert "too few" in found(coded(0.4), normal(100, 2, seed=0)).note
    assert found(coded(0.4), normal(100, 2, seed=0), examples=25).n == 25
    for n in (2, 3):
        assert found(coded(0.4), normal(n, 2, seed=0)).stderr is None
    assert measure(coded(0.4), Split(normal(1, 2, seed=0)), names=["mmd"]) == []
    for options in ({"examples": 1}, {"kernel": "linear"}):
        with pytest.raises(ConfigError, match="mmd"):
            found(coded(0.4), normal(50, 2, seed=0), **options)
