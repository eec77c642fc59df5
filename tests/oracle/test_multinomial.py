"""Counts of one total: against SciPy's multinomial and negative binomial, and without the columns that are missing."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor

from sandglass import registry, rng
from sandglass.core import Column, Spec
from sandglass.distributions.multinomial import Counts
from sandglass.distributions.observed import log_prob
from sandglass.errors import ConfigError

MEAN, R = 3.0, 2.0


def distribution(d: int = 3) -> Counts:
    """Of columns with other shifts and scales."""
    with rng.forked("cpu", 0):
        logits = torch.randn(1, d).double()
    shift, scale = torch.arange(d).double(), 2.0 ** torch.arange(d).double()
    return Counts(logits, torch.tensor(MEAN).double(), torch.tensor(R).double(), shift, scale)


def all_counts(d: int, top: int) -> Tensor:
    """Every vector of counts up to ``top``, ``(N, d)``."""
    return torch.tensor(list(itertools.product(range(top + 1), repeat=d))).double()


def encoded(p: Counts, counts: Tensor) -> Tensor:
    return (counts - p.shift) / p.scale


def test_it_is_the_multinomial_of_scipy_times_the_negative_binomial_of_the_total() -> None:
    p, counts = distribution(), all_counts(3, 6)
    total, share = counts.sum(1).numpy(), p.log_share[0].exp().numpy()
    wanted = scipy.stats.multinomial.logpmf(counts.numpy(), total, share)
    wanted += scipy.stats.nbinom.logpmf(total, R, R / (R + MEAN))
    found = p.log_prob(encoded(p, counts))
    assert np.allclose(found.numpy(), wanted, atol=1e-10)
    assert 0.998 < float(p.log_prob(encoded(p, all_counts(3, 40))).exp().sum()) < 1 + 1e-10


def test_missing_columns_are_summed_out() -> None:
    """The probability of the rest is the sum over all counts of the missing ones, up to 200, within 1e-10."""
    p, mask = distribution(), torch.tensor([[True, False, True]])
    for a, c in ((0, 0), (2, 1), (1, 4)):
        every = torch.tensor([[a, b, c] for b in range(200)]).double()
        whole = p.log_prob(encoded(p, every)).logsumexp(0)
        seen = encoded(p, torch.tensor([[a, 99, c]]).double())
        assert torch.allclose(log_prob(p, seen, mask), whole, atol=1e-10)
    assert abs(float(log_prob(p, seen, torch.zeros_like(mask)))) < 1e-9


def test_missing_counts_follow_the_total_of_the_observed_ones() -> None:
    """Their mean is that over all their values, weighted by the probability of the row; as are the draws, 5 errors."""
    p, mask = distribution(), torch.tensor([[True, False, True]])
    every = torch.tensor([[5, b, 4] for b in range(200)]).double()
    weights = p.log_prob(encoded(p, every)).softmax(0)
    wanted = float((weights * every[:, 1]).sum())
    rest = p.given(encoded(p, every[:1]), mask)
    assert float(rest.mean[0, 1] * p.scale[1] + p.shift[1]) == pytest.approx(wanted, rel=1e-9)
    assert wanted > 2 * float(p.mean[0, 1] * p.scale[1] + p.shift[1]), "a long document has more of every word"
    with rng.forked("cpu", 2):
        drawn = rest.sample((20_000,))[:, 0, 1] * p.scale[1] + p.shift[1]
    assert abs(float(drawn.mean()) - wanted) < 5 * float(drawn.std()) / 20_000**0.5


def test_draws_have_the_mean_and_the_spread_of_their_total() -> None:
    """Of 20,000 draws, within 5 standard errors."""
    p, n = distribution(), 20_000
    with rng.forked("cpu", 1):
        x = p.sample((n,))[:, 0]
    counts = x * p.scale + p.shift
    assert torch.equal(counts, counts.round()) and counts.min() == 0
    assert torch.all((x.mean(0) - p.mean[0]).abs() < 5 * x.std(0) / n**0.5)
    total = counts.sum(1)
    square = (total - MEAN).square()
    assert abs(float(square.mean()) - (MEAN + MEAN**2 / R)) < 5 * float(square.std()) / n**0.5


def test_a_table_of_counts_has_it_and_others_are_refused() -> None:
    columns = tuple(Column(f"word {i}", "count", mean=1.0) for i in range(4))
    model = registry.build("vae", Spec((4,), columns=columns), likelihood="multinomial", latent_dim=2)
    assert model.bound(torch.zeros(5, 4)).elbo.isfinite().all()
    other = (*columns[:3], Column("price"))
    with pytest.raises(ConfigError, match="all of whose columns are counts, and price is not"):
        registry.build("vae", Spec((4,), columns=other), likelihood="multinomial")
    with pytest.raises(ConfigError, match=r"all of whose columns are counts\."):
        registry.build("vae", Spec((4,)), likelihood="multinomial")
