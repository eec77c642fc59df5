"""Missing values: a mask makes a likelihood the marginal of what was observed, and nothing else changes a bit."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Independent, MultivariateNormal, Normal

from helpers import fit, fresh, rows
from sandglass import registry, rng
from sandglass.core import Batch, Clock, Model, Spec
from sandglass.data.dataset import Dataset, Split
from sandglass.data.fingerprint import fingerprint
from sandglass.data.loading import Loader, in_order
from sandglass.data.transform import ArrayTransform
from sandglass.distributions.conditional import Network
from sandglass.distributions.observed import fill, log_prob
from sandglass.errors import CapabilityError
from sandglass.metrics.measure import measure
from sandglass.models.joint_vae import JointVAE

ABLE = [name for name in registry.names("model") if set(registry.declared(name).needs) <= {"labels"}]
"""Models that leave missing values out."""

LIKELIHOODS: list[Any] = ["bernoulli", *({"name": "gaussian", "learn": how} for how in ("none", "shared", "pixel"))]


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def make(name: str, likelihood: Any = "gaussian", spec: Spec | None = None) -> Model:
    options = {
        "latent_dim": 3 if name == "dirichlet-vae" else 2,
        "net": {"name": "mlp", "widths": [16]},
        "likelihood": likelihood,
    }
    known = [option.name for option in registry.schema("model", name)]
    spec = spec or Spec((5,), "unit" if likelihood == "bernoulli" else "real", classes=3)
    with rng.forked("cpu", 0, "weights"):
        return registry.build(name, spec, **{k: v for k, v in options.items() if k in known})


def classes(n: int) -> Tensor:
    """``(n,)`` for models that need labels."""
    return torch.arange(n) % 3


def terms_of(model: Model, batch: Batch) -> dict[str, Tensor]:
    """Every loss and part, and every gradient."""
    found, model = {}, copy.deepcopy(model)  # a loss in train mode may move running statistics
    for phase in (phase for stage in model.stages() for phase in stage.phases):
        model.zero_grad(set_to_none=True)
        with rng.forked("cpu", 7):
            terms = phase.loss(batch, Clock())
        terms.loss.backward()
        found |= {f"{phase.name} loss": terms.loss.detach()}
        found |= {f"{phase.name} {k}": v for k, v in terms.parts.items()}
        found |= {k: p.grad.clone() for k, p in model.named_parameters() if p.grad is not None}
    return found


def figures(model: Model, split: Split) -> dict[str, float]:
    names = [
        "reconstruction",
        *(["bound", "log_prob", "active_units"] if {"bound", "posterior"} <= {*model.provides} else []),
    ]
    options = {"log_prob": {"k": 3}} if "log_prob" in model.provides else {}
    return {r.name: r.value for r in measure(model, split, names=names, **options)}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(v, b[k]) for k, v in a.items())


JOINT = {name for name in ABLE if isinstance(registry.declared(name), JointVAE)}
"""Models whose sums go another way round."""


@pytest.mark.parametrize("name", sorted({*ABLE} - JOINT))
@pytest.mark.parametrize("likelihood", LIKELIHOODS, ids=str)
def test_a_mask_of_everything_changes_no_bit(name: str, likelihood: Any) -> None:
    model, x = make(name, likelihood), random(600, 5)
    everything = torch.ones_like(x, dtype=torch.bool)
    y = classes(600)
    assert same(terms_of(model, Batch(x, y)), terms_of(model, Batch(x, y, mask=everything)))
    assert figures(model, Split(x, y)) == figures(model, Split(x, y, mask=everything))


@pytest.mark.parametrize("name", ABLE)
@pytest.mark.parametrize("likelihood", LIKELIHOODS, ids=str)
def test_what_was_not_observed_changes_no_bit(name: str, likelihood: Any) -> None:
    model, x, mask = make(name, likelihood), random(40, 5), random(40, 5, seed=1) > 0.3
    mask[0] = False  # an example of which nothing is known
    wild = x.masked_fill(~mask, 1e30)
    zeros = x.masked_fill(~mask, 0.0)
    y = classes(40)
    expected = terms_of(model, Batch(zeros, y, mask=mask))
    assert all(torch.isfinite(v).all() for v in expected.values())
    assert same(expected, terms_of(model, Batch(wild, y, mask=mask)))
    assert figures(model, Split(zeros, y, mask=mask)) == figures(model, Split(wild, y, mask=mask))
    assert not same(expected, terms_of(model, Batch(zeros, y)))  # and the mask does something


def test_a_product_with_the_mask_would_not_do() -> None:
    """The control: multiplying by zero lets a wild value into the gradient of the scale."""
    x, mask = torch.tensor([[1.0, 1e30]]), torch.tensor([[True, False]])
    gradients = []
    for how in (lambda p: (p.base_dist.log_prob(x) * mask).sum(-1), lambda p: log_prob(p, x, mask)):
        scale = torch.ones(1, 2, requires_grad=True)
        how(Independent(Normal(torch.zeros(1, 2), scale), 1)).sum().backward()
        gradients.append(scale.grad)
    assert gradients[0] is not None and gradients[0].isnan().any()
    assert gradients[1] is not None and torch.equal(gradients[1], torch.zeros(1, 2))


def test_the_likelihood_of_what_was_observed_is_its_marginal() -> None:
    x, mask = random(50, 6, dtype=torch.float64), random(50, 6, seed=1) > 0.4
    mean, scale = random(50, 6, seed=2, dtype=torch.float64), 0.5 + random(50, 6, seed=3, dtype=torch.float64)
    found = log_prob(Independent(Normal(mean, scale), 1), x, mask)
    for i in range(50):
        seen = mask[i]
        own = Normal(mean[i, seen], scale[i, seen]).log_prob(x[i, seen]).sum()
        assert float(found[i]) == pytest.approx(float(own), abs=1e-12)


def test_the_bound_of_what_was_observed_is_exact_with_the_exact_posterior() -> None:
    """Linear-Gaussian: x = W z + b + s e. With p(z | x_observed) one draw gives log p(x_observed)."""
    w, b, s = random(6, 2, seed=4, dtype=torch.float64), random(6, seed=5, dtype=torch.float64), 0.3
    x, mask = random(20, 6, seed=6, dtype=torch.float64) * 3, random(20, 6, seed=7) > 0.4
    mask[:, 0] = True
    prior = MultivariateNormal(torch.zeros(2, dtype=torch.float64), torch.eye(2, dtype=torch.float64))
    for i in range(20):
        seen = mask[i]
        w_o, x_o = w[seen], x[i, seen]
        n = len(w_o)
        truth = MultivariateNormal(b[seen], w_o @ w_o.T + s**2 * torch.eye(n, dtype=torch.float64)).log_prob(x_o)
        precision = torch.eye(2, dtype=torch.float64) + w_o.T @ w_o / s**2
        mean = torch.linalg.solve(precision, w_o.T @ (x_o - b[seen]) / s**2)
        q = MultivariateNormal(mean, precision_matrix=precision)
        z = q.sample()
        p = Independent(Normal((w @ z + b)[None], torch.full((1, 6), s, dtype=torch.float64)), 1)
        bound = log_prob(p, x[i : i + 1], mask[i : i + 1])[0] + prior.log_prob(z) - q.log_prob(z)
        assert float(bound) == pytest.approx(float(truth), abs=1e-10)


def test_importance_weights_reach_the_marginal() -> None:
    model = make("vae", {"name": "gaussian", "learn": "none", "scale": 1.0}).double()
    with rng.forked("cpu", 1):
        linear = torch.nn.Sequential(torch.nn.Linear(2, 5), torch.nn.Unflatten(-1, (5,))).double()
    model.p.trunk = Network(linear)  # type: ignore[union-attr, assignment]
    x, mask = random(4, 5, dtype=torch.float64) * 2, random(4, 5, seed=1) > 0.4
    with torch.no_grad(), rng.forked("cpu", 0):
        found = model.log_prob(Batch(x, mask=mask), 50000)
        whole = model.log_prob(fill(x, mask), 1000)
        weight, bias = linear[0].weight.detach(), linear[0].bias.detach()
    for i in range(4):
        w, seen = weight[mask[i]], mask[i]
        truth = MultivariateNormal(bias[seen], w @ w.T + torch.eye(len(w), dtype=torch.float64)).log_prob(x[i, seen])
        assert float(found[i]) == pytest.approx(float(truth), abs=0.03)
        assert seen.all() or abs(float(whole[i] - truth)) > 0.3  # what a gap filled with zeros would give


def test_errors_are_means_over_observed_elements() -> None:
    model, x, mask = make("ae"), random(30, 5), random(30, 5, seed=1) > 0.5
    mask[3] = False
    results = {r.name: r for r in measure(model, Split(x, mask=mask), names=["reconstruction"])}
    with torch.no_grad():
        rebuilt = model.eval().reconstruct(fill(x, mask))
    own = [float((rebuilt - x)[i, mask[i]].square().mean()) for i in range(30) if mask[i].any()]
    assert results["mse"].n == len(own) == 30 - int((~mask.any(1)).sum())
    assert results["mse"].value == pytest.approx(math.fsum(own) / len(own), rel=1e-6)
    assert "observed" in results["mse"].note


def test_the_mask_goes_where_its_examples_go() -> None:
    x, mask = random(10, 3), random(10, 3, seed=1) > 0.5
    split = Split(x, torch.arange(10), names=tuple(map(str, range(10))), mask=mask)
    index = torch.tensor([7, 1, 4])
    assert torch.equal(split.take(index).mask, mask[index])
    assert torch.equal(split.to("cpu").mask, mask)
    for batch in (split.batch(index), split.take(index).batch(slice(0, 3))):
        assert torch.equal(batch.mask, mask[index])
        assert torch.equal(batch.x, x[index] * mask[index])
    loader = Loader(split, 4, seed=0)
    for step in range(6):
        assert torch.equal(loader.batch(step).mask, mask[loader.indices(step)])
    assert torch.equal(torch.cat([make().mask for make in in_order(split, 4)]), mask)
    assert split.batch(index).map(lambda t: t[:2]).mask.shape == (2, 3)
    prints = {fingerprint(Spec((3,)), {"train": replace(split, mask=m)}) for m in (mask, ~mask, None)}
    assert len(prints) == 3


def test_a_model_learns_around_the_gaps() -> None:
    """Two columns that are one: the model fills a gap in the second from the first."""
    z = torch.randn(800, 1, generator=torch.Generator().manual_seed(0))
    mask = torch.cat([torch.ones(800, 1), random(800, 1)], 1) > 0.3
    data = rows(z.repeat(1, 2))
    data = Dataset("gaps", data.spec, ArrayTransform((2,)), {"train": Split(z.repeat(1, 2), mask=mask)})
    model = fresh("ae", data, latent_dim=1, net={"name": "mlp", "widths": [32]})
    fit(model, data, epochs=12, lr=1e-2, batch_size=50)
    gap = ~mask[:, 1]
    with torch.no_grad():
        filled = model.eval().reconstruct(fill(z.repeat(1, 2), mask))[gap, 1]
    assert float((filled - z[gap, 0]).square().mean()) < 0.2  # answering the mean gives 1


def test_dependent_elements_are_refused() -> None:
    p = MultivariateNormal(torch.zeros(2), torch.eye(2))
    with pytest.raises(CapabilityError, match="does not support missing values"):
        log_prob(p, torch.zeros(1, 2), torch.tensor([[True, False]]))
