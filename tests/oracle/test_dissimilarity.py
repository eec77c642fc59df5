"""MS-SSIM as a cost: the figure of the metric, its gradient, gaps, and no figure that is called a bound."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from helpers import fresh, pictures
from sandglass import registry
from sandglass.core import Spec
from sandglass.distributions.observed import log_prob
from sandglass.distributions.similarity import multiscale, scales
from sandglass.errors import ConfigError, DataError
from sandglass.metrics.bound import kind_of_bound
from sandglass.metrics.evaluation import UnsuitableError
from sandglass.metrics.measure import measure

SHAPES = [(1, 28, 28), (3, 12, 17), (2, 50, 44), (1, 4, 6), (5, 1, 3), (3, 1, 1)]


def likelihood(shape: tuple[int, ...], **options: Any) -> Any:
    return registry.resolve("likelihood", {"name": "ms-ssim", **options}, Spec(shape, "unit"))


def drawn(shape: tuple[int, ...], n: int = 3) -> tuple[Tensor, Tensor]:
    """Outputs of a decoder and images that are like them."""
    g = torch.Generator().manual_seed(0)
    h = torch.randn(n, *shape, generator=g, dtype=torch.float64)
    noise = torch.rand(n, *shape, generator=g, dtype=torch.float64)
    return h.requires_grad_(), (0.7 * h.sigmoid() + 0.3 * noise).detach()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_cost_is_of_the_metric_s_similarity(shape: tuple[int, ...]) -> None:
    """In float32, for every size and number of channels; the metric computes in float64."""
    h, x = drawn(shape)
    p = likelihood(shape, weight=2.0, l1=0.25)
    image, n = h.sigmoid().detach(), x[0].numel()
    similar = multiscale(x, image, scales(Spec(shape, "unit"), p.window), p.window).mean(1)
    apart = (x - image).abs().flatten(1).mean(1)
    expected = -2.0 * n * (0.75 * (1 - similar) + 0.25 * apart)
    assert torch.allclose(p(h).log_prob(x).detach(), expected, rtol=1e-9, atol=1e-12)
    assert torch.allclose(p(h.float()).log_prob(x.float()).detach().double(), expected, rtol=1e-3, atol=1e-4)
    assert torch.equal(p(h).log_prob(image), torch.zeros(3, dtype=torch.float64))
    assert torch.equal(p(h).mean, h.sigmoid()) and torch.equal(p(h).sample(), image)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_gradients_are_those_of_finite_differences(shape: tuple[int, ...]) -> None:
    h, x = drawn(shape, 1)
    p = likelihood(shape, l1=0.0)
    if x.numel() <= 50:
        assert torch.autograd.gradcheck(lambda h: p(h).log_prob(x), (h,))
    (slope,) = torch.autograd.grad(p(h).log_prob(x).sum(), h)
    g = torch.Generator().manual_seed(1)
    for _ in range(3):
        d = torch.randn(h.shape, generator=g, dtype=torch.float64)
        up, down = (p(h.detach() + step * d).log_prob(x) for step in (1e-5, -1e-5))
        assert float((slope * d).sum()) == pytest.approx(float(up - down) / 2e-5, rel=1e-5, abs=1e-8)


def test_what_is_not_alike_at_all_has_a_finite_gradient() -> None:
    """And with absolute errors one that is not 0."""
    h, _ = drawn((1, 28, 28))
    for l1 in (0.0, 0.16):
        p = likelihood((1, 28, 28), l1=l1)
        (slope,) = torch.autograd.grad(p(h).log_prob(1 - h.sigmoid().detach()).sum(), h)
        assert torch.isfinite(slope).all() and (slope.abs().sum() > 0 or not l1)


def test_autocast_does_not_lower_it() -> None:
    h, x = (t.detach().float() for t in drawn((1, 28, 28)))
    p = likelihood((1, 28, 28))
    with torch.autocast("cpu", torch.bfloat16):
        low = p(h).log_prob(x)
    assert torch.equal(low, p(h).log_prob(x))


def test_missing_values_count_as_equal() -> None:
    h, x = drawn((1, 28, 28))
    p, mask = likelihood((1, 28, 28)), torch.ones(x.shape, dtype=torch.bool)
    mask[..., :10, :] = False
    found = log_prob(p(h), torch.where(mask, x, 1e30), mask)
    assert torch.equal(found, p(h).log_prob(torch.where(mask, x, h.sigmoid())))
    assert (found > p(h).log_prob(x)).all()
    assert torch.equal(log_prob(p(h), x, torch.zeros_like(mask)), torch.zeros(3, dtype=torch.float64))


def test_no_figure_is_called_a_bound() -> None:
    """A rate and a distortion, comparable at the same weight; figures in nats of log p(x) are refused by name."""
    data = pictures(40)
    model: Any = fresh("ms-ssim-vae", data, latent_dim=2, net={"name": "mlp", "widths": [8]})
    assert model.kind == "cost" and "no likelihood" in kind_of_bound(model)
    found = {r.name: r for r in measure(model, data.train, names=["bound"])}
    assert set(found) == {"rate", "distortion"} and "no likelihood" in found["distortion"].note
    assert {"elbo", "log_prob", "ais"}.isdisjoint({r.name for r in measure(model, data.train)})
    for name in ("log_prob", "ais"):
        with pytest.raises(UnsuitableError, match=f"'{name}' needs a likelihood"):
            measure(model, data.train, names=[name])


@pytest.mark.parametrize(
    ("spec", "options", "message"),
    [
        (Spec((6,)), {}, "compares images with values in"),
        (Spec((1, 8, 8)), {}, "compares images with values in"),
        (Spec((1, 8, 8), "unit"), {"weight": 0.0}, "weight of ms-ssim must be a positive number, not 0.0"),
        (Spec((1, 8, 8), "unit"), {"l1": 1.0}, "at least 0 and below 1, not 1.0"),
        (Spec((1, 8, 8), "unit"), {"window": 4}, "odd window, not 4"),
    ],
)
def test_what_cannot_be_is_refused(spec: Spec, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        registry.resolve("likelihood", {"name": "ms-ssim", **options}, spec)


def test_a_table_is_refused_by_the_model() -> None:
    with pytest.raises((ConfigError, DataError), match="compares images"):
        registry.build("ms-ssim-vae", Spec((6,)))
