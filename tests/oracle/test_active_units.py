"""Active units of encoders whose means have a variance that is known."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sandglass import registry
from sandglass.core import Model, Spec
from sandglass.data.dataset import Split
from sandglass.metrics.measure import measure
from sandglass.runs.result import Result


def coded(spreads: Tensor, log_variance: float = 0.0) -> Model:
    """A VAE in float64 whose posterior means are ``spreads`` times x, shifted far from 0."""
    n = len(spreads)
    model = registry.build("vae", Spec((n,)), net="linear", latent_dim=n).double()
    with torch.no_grad():
        layer = model.q.trunk.module[1]
        layer.weight.copy_(torch.cat([spreads.diag(), torch.zeros(n, n)]))
        layer.bias.copy_(torch.tensor([100.0] * n + [log_variance] * n))
    return model


def count(model: Model, x: Tensor) -> Result:
    (result,) = measure(model, Split(x), names=["active_units"])
    return result


def signs(n: int, dim: int) -> Tensor:
    """Half -1, half 1: mean 0 and variance 1 over the examples, exactly."""
    return torch.where(torch.arange(n) % 2 == 0, -1.0, 1.0).double()[:, None].expand(n, dim)


def test_the_means_that_vary_by_more_than_a_hundredth_are_counted() -> None:
    """Variances to either side of 0.01; of 4 examples the variance with n - 1 would pass all but the first two."""
    variances = torch.tensor([0.0, 1e-6, 0.0099, 0.00999, 0.01001, 0.0101, 0.5, 30.0]).double()
    for n in (4, 700):  # within a batch, and over two of them
        result = count(coded(variances.sqrt()), signs(n, 8))
        assert (result.value, result.n, result.unit) == (4, n, "of 8 dimensions")


def test_it_is_of_the_posterior_s_mean_and_not_of_its_draws() -> None:
    """Draws of standard deviation 10 vary by 100; means of 0 variance are not active whatever the posterior's is."""
    collapsed = count(coded(torch.zeros(3).double(), 2 * math.log(10)), signs(100, 3))
    assert collapsed.value == 0 and "posterior collapse" in collapsed.note
    one = count(coded(torch.ones(3).double()), signs(1, 3))
    assert (one.value, one.note) == (0, "few examples"), "of one example no code can vary"
    assert count(coded(torch.ones(3).double(), -18.0), signs(100, 3)).value == 3


def test_variance_between_batches_counts() -> None:
    """Examples in the order of their value: each batch of 512 varies by 0.0025 around a mean of its own."""
    x = torch.cat([-torch.ones(512, 1), torch.ones(512, 1)]).double() * 0.2 + 0.05 * signs(1024, 1)
    assert count(coded(torch.ones(1).double()), x).value == 1
    assert count(coded(torch.ones(1).double()), x[:512]).value == 0
