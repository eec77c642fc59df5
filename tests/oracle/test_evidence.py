"""The importance-weighted bound: the same draws and the same figure in any pieces, in memory that k does not move."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from sandglass import registry
from sandglass.core import Batch, Spec
from sandglass.data.dataset import Split
from sandglass.distributions import evidence
from sandglass.distributions.observed import log_prob
from sandglass.metrics.measure import measure
from sandglass.models.vae import VAE

LIKELIHOODS = ["bernoulli", "categorical", {"name": "gaussian", "learn": "pixel"}, "logistic-mixture"]


def make(likelihood: Any = "bernoulli", spec: Spec | None = None, latent_dim: int = 3) -> VAE:
    torch.manual_seed(0)
    spec = spec or Spec((2, 3, 5), "unit", levels=4)
    net = {"name": "mlp", "widths": [8]}
    model: VAE = registry.build("vae", spec, latent_dim=latent_dim, net=net, likelihood=likelihood)  # type: ignore[assignment]
    return model.eval()


def one_by_one(model: VAE, x: Tensor, k: int, mask: Tensor | None) -> Tensor:
    """The formula, draw by draw."""
    q, p = model.posterior(x if mask is None else x.masked_fill(~mask, 0)), model.prior()
    weights = [log_prob(model.p(z), x, mask) + p.log_prob(z) - q.log_prob(z) for z in q.rsample(torch.Size([k]))]
    return torch.stack(weights).exp().mean(0).log()


@torch.no_grad()
@pytest.mark.parametrize("likelihood", LIKELIHOODS, ids=str)
@pytest.mark.parametrize("gaps", [False, True])
@pytest.mark.parametrize("limit", [1, 70, 2000, 2**24])  # a row, some examples of one draw, draws of some, everything
def test_any_pieces_are_the_formula(likelihood: Any, gaps: bool, limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make(likelihood).double()
    x = torch.randint(0, 4, (7, 2, 3, 5)).double() / 3
    mask = torch.rand(7, 2, 3, 5) > 0.4 if gaps else None
    torch.manual_seed(1)
    expected = one_by_one(model, x, 11, mask)
    after = torch.get_rng_state()
    monkeypatch.setattr(evidence, "_IN_CACHE", limit)
    torch.manual_seed(1)
    assert torch.allclose(model.log_prob(Batch(x, mask=mask), 11), expected, rtol=1e-12, atol=0)
    assert torch.equal(after, torch.get_rng_state())


@torch.no_grad()
def test_blocks_of_draws_join(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = make().double(), torch.rand(8, 2, 3, 5).double()
    calls: list[Tensor] = []
    monkeypatch.setattr(evidence, "_LATENTS", 8 * 3 * 4)  # four draws at once: 4 + 4 + 3
    real = evidence.log_prob
    monkeypatch.setattr(evidence, "log_prob", lambda *a: calls.append(real(*a)) or calls[-1])
    found = model.log_prob(x, 11)
    assert [len(c) for c in calls] == [32, 32, 24]
    torch.manual_seed(1)
    a, b = model.log_prob(x, 11), model.log_prob(x, 11)
    assert not torch.equal(a, b) and found.shape == (8,)
    # log((1/k) sum exp) of blocks, from what they were made of: constant weights are unmoved however they are cut
    monkeypatch.setattr(evidence, "log_prob", lambda p, x, mask: torch.full((len(x),), -1000.0).double())
    with torch.no_grad():
        for p in model.q.parameters():
            p.zero_()  # q(z|x) is the prior
    assert torch.allclose(model.log_prob(x, 11), torch.tensor(-1000.0).double(), rtol=1e-13)


class Largest(TorchDispatchMode):
    """Keeps the numbers in the largest tensor that anything made."""

    size = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for t in made if isinstance(made, tuple | list) else [made]:
            if isinstance(t, Tensor) and t.untyped_storage().nbytes():
                self.size = max(self.size, t.untyped_storage().nbytes() // t.element_size())
        return made


@torch.no_grad()
@pytest.mark.parametrize(("likelihood", "draws"), [("bernoulli", (1000, 5000)), ("categorical", (100, 300))])
def test_memory_does_not_grow_with_the_draws(likelihood: str, draws: tuple[int, ...]) -> None:
    """12 pictures: all draws decoded at once would be 47 million numbers, and 45 million with 16 levels a pixel."""
    model, x = make(likelihood, Spec((1, 28, 28), "unit", levels=16)), torch.rand(12, 1, 28, 28)
    for k in draws:
        with Largest() as largest:
            model.log_prob(x, k)
        assert largest.size <= 2**20, k


@torch.no_grad()
def test_an_example_is_encoded_once_and_draws_are_not_made_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = make(), torch.rand(6, 2, 3, 5)
    seen: list[int] = []
    model.q.trunk.register_forward_hook(lambda module, args, out: seen.append(len(args[0])))
    monkeypatch.setattr(evidence, "_LATENTS", 500)
    monkeypatch.setattr(evidence, "_IN_CACHE", 3000)
    with Largest() as largest:
        model.log_prob(x, 5000)
    assert seen == [6] and largest.size <= 3000


def test_it_has_a_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = make().double(), torch.rand(4, 2, 3, 5).double()
    gradients = []
    for limit in (100, 2**20):
        monkeypatch.setattr(evidence, "_IN_CACHE", limit)
        torch.manual_seed(2)
        model.zero_grad()
        model.log_prob(x, 5).sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    assert torch.allclose(*gradients, rtol=1e-10) and gradients[0].abs().max() > 0


@pytest.mark.parametrize("gaps", [False, True])
def test_bits_are_of_the_seen_numbers_of_discrete_data(gaps: bool) -> None:
    x = (torch.rand(40, 6) > 0.5).float()
    mask = torch.rand(40, 6) > 0.3 if gaps else None
    model = make("bernoulli", Spec((6,), "binary"))
    found = {r.name: r for r in measure(model, Split(x, mask=mask), names=["bound", "log_prob"])}
    seen = 240 if mask is None else int(mask.sum())
    for nats, bits in (("elbo", "bits_per_dim"), ("log_prob", "log_prob_bits_per_dim")):
        assert found[bits].value == pytest.approx(-found[nats].value * 40 / (seen * math.log(2)), rel=1e-6)
        assert found[bits].unit == "bits/dim" and ("observed" in found[bits].note) == gaps
    density = measure(make("gaussian"), Split(torch.rand(5, 2, 3, 5)), names=["log_prob"])
    assert [r.name for r in density] == ["log_prob"]


def test_a_fair_coin_is_one_bit() -> None:
    model = make("bernoulli", Spec((6,), "binary"))
    with torch.no_grad():
        for layer in model.p.trunk.module:
            if isinstance(layer, nn.Linear):
                layer.weight.zero_()
                layer.bias.zero_()
        for p in model.q.parameters():
            p.zero_()
    (bits,) = measure(model, Split((torch.rand(9, 6) > 0.5).float()), names=["log_prob_bits_per_dim"])
    assert bits.value == pytest.approx(1, abs=1e-6)
