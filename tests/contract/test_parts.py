"""What every registered likelihood, prior, data set and metric owes; tests/contract/test_nets.py is of the nets."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributions import Independent, Normal

from helpers import QUICK, fresh, pictures
from made import NETS, dataset, kinds, small, spec_for, suits, with_prior
from sandglass import registry, rng
from sandglass.core import Column, Spec
from sandglass.data.dataset import Mixture
from sandglass.distributions.likelihood import Likelihood
from sandglass.errors import ConfigError, DataError, MissingPackageError
from sandglass.metrics.evaluation import FEW, Evaluation, UnsuitableError
from sandglass.metrics.measure import measure


def fitting(name: str, shape: tuple[int, ...]) -> tuple[Spec, Likelihood]:
    """A likelihood on data of a kind that it takes; what it does not take it refuses by its own error."""
    table = (Column("a", "categorical", math.prod(shape) - 2, ("x",)), Column("b", "count"), Column("c"))
    counts = tuple(Column(f"word {i}", "count") for i in range(math.prod(shape)))
    for support, columns in (("real", ()), ("binary", ()), ("unit", ()), ("real", table), ("real", counts)):
        spec = Spec(shape, support, levels=2 if support == "binary" else 9, columns=columns)
        try:
            return spec, registry.resolve("likelihood", name, spec)
        except ConfigError:
            continue
    raise AssertionError(f"{name} takes no data at all")


@pytest.mark.parametrize("name", registry.names("likelihood"))
@pytest.mark.parametrize("shape", [(1, 4, 6), (3, 5, 5), (7,)], ids=str)
def test_a_likelihood_is_a_distribution_over_whole_examples(name: str, shape: tuple[int, ...]) -> None:
    needs = {"mixed": (len(shape) > 1, "tables"), "multinomial": (len(shape) > 1, "tables")}
    unfit, why = {**needs, "ms-ssim": (len(shape) == 1, "images")}.get(name, (False, ""))
    if unfit:
        with pytest.raises(ConfigError, match=why):
            registry.resolve("likelihood", name, Spec(shape, "unit" if name == "ms-ssim" else "real"))
        return
    spec, likelihood = fitting(name, shape)
    h = torch.randn(4, likelihood.channels(spec), *shape[1:], dtype=torch.float64, requires_grad=True)
    p = likelihood.double()(h)
    x = p.sample()
    assert x.shape == (4, *shape) and p.mean.shape == (4, *shape)
    assert p.log_prob(x).shape == (4,)
    assert torch.autograd.gradcheck(lambda h: likelihood(h).log_prob(x), (h,))


def test_bernoulli_sums_to_one() -> None:
    spec = Spec((3,), "binary")
    p = registry.resolve("likelihood", "bernoulli", spec)(torch.randn(1, 3).double())
    every = torch.tensor([[i >> b & 1 for b in range(3)] for i in range(8)]).double()
    assert float(p.log_prob(every).exp().sum()) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("learn", ["none", "shared", "pixel"])
def test_gaussian_integrates_to_one(learn: str) -> None:
    spec = Spec((1,))
    likelihood = registry.resolve("likelihood", {"name": "gaussian", "scale": 0.7, "learn": learn}, spec).double()
    h = torch.tensor([[0.3] * likelihood.channels(spec)]).double()
    grid = torch.linspace(-20, 20, 40001).double()
    density = likelihood(h).log_prob(grid[:, None]).exp()
    assert float(torch.trapezoid(density, grid).detach()) == pytest.approx(1, abs=1e-9)


def test_a_learned_scale_finds_the_spread_of_the_data() -> None:
    torch.manual_seed(0)
    x = 0.3 * torch.randn(5000, 2)
    likelihood = registry.resolve("likelihood", "gaussian", Spec((2,)))
    optimizer = torch.optim.Adam(likelihood.parameters(), lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        (-likelihood(torch.zeros(5000, 2)).log_prob(x).mean()).backward()
        optimizer.step()
    assert float(likelihood.log_scale.detach().exp()) == pytest.approx(float(x.square().mean().sqrt()), rel=1e-3)


def test_an_absurd_log_scale_stays_finite() -> None:
    """RELIABILITY: exp(200) would overflow float32 at 89."""
    from sandglass.distributions.conditional import DiagonalGaussian

    for value in (200.0, -200.0):
        h = torch.full((2, 4), value, requires_grad=True)
        q = DiagonalGaussian(torch.nn.Identity())(h)
        loss = torch.distributions.kl_divergence(q, registry.resolve("prior", "standard", 2)()).sum()
        loss.backward()
        assert math.isfinite(float(loss.detach())) and torch.isfinite(h.grad).all()


@pytest.mark.parametrize("name", registry.names("prior"))
@torch.no_grad()
def test_a_prior_scores_what_it_draws(name: str) -> None:
    """The mean of r / p over draws from p is 1 for any density r: here a narrower one. To five standard errors."""
    with rng.forked("cpu", 0):
        p = with_prior(name, 3).prior()
        z = p.sample((20_000,))
        assert z.shape == (20_000, 3) and p.log_prob(z).shape == (20_000,)
        if getattr(registry.entry("prior", name).make, "support", "real") != "real":
            return  # tests/oracle/test_posteriors.py has their densities
        r = Independent(Normal(z.mean(0), 0.7 * z.std(0)), 1)
        ratio = (r.log_prob(z) - p.log_prob(z)).exp()
    assert abs(float(ratio.mean()) - 1) < 5 * float(ratio.std()) / 20_000**0.5


FEW_MODELS = ("vae", "gan", "joint-vae", "vq-vae", "pix2pix")
"""With and without a code, a bound, conditions and companions; codes that are real numbers or indices."""
OTHERS = [name for name in kinds() if name not in FEW_MODELS]
"""One model of each class and set of needs: other presets are measured as that one is."""


@pytest.mark.parametrize("name", registry.names("metric"))
@pytest.mark.parametrize("kind", ["row", "image"])
@pytest.mark.parametrize("models", [FEW_MODELS, pytest.param(OTHERS, marks=pytest.mark.slow)], ids=["few", "others"])
def test_a_metric_states_n_unit_and_error_and_repeats(name: str, kind: str, models: Sequence[str]) -> None:
    make = registry.entry("metric", name).make
    nets = "conv" if kind == "image" else "mlp"
    for model_name in (n for n in models if suits(n, "grey" if kind == "image" else "row")):
        data = dataset(spec_for(model_name, "grey" if kind == "image" else "row"))
        labels = torch.arange(len(data.train)) % 2
        split = dataclasses.replace(data.train, factors=torch.arange(2 * len(data.train)).view(-1, 2) % 3, y=labels)
        train = dataclasses.replace(data.train, x=data.train.x.flip(1), y=labels)  # others than those measured
        beside: dict[str, Any] = {"train": train, "factors": ("first", "second")}
        beside |= {"mixture": Mixture(torch.eye(6), 1.0)} if kind == "row" else {}
        own = {o.name: {"name": nets, **NETS[nets]} for o in registry.schema("model", model_name) if o.kind == "net"}
        model = fresh(model_name, data, **small(model_name), **own)
        if not all(registry.can(model, need) for need in make.needs):
            continue
        if "encode" in make.needs and model.evaluations > 1:  # codes as large as the example
            continue
        if name == "class_shares" and "labels" in model.needs:  # it asks for the classes of its samples
            continue
        evaluation = Evaluation(split=split, spec=model.spec, **beside)
        if lacking := [ask for ask in getattr(make, "requires", ()) if not evaluation.has(ask)]:
            with pytest.raises(DataError, match=name):
                measure(model, split, names=[name], **beside)
            assert (lacking, kind) in ((["images"], "row"), (["mixture"], "image"))
            continue
        options = QUICK.get(name, {})
        state = torch.get_rng_state()
        try:
            first = measure(model, split, names=[name], **beside, **options)
        except MissingPackageError as error:  # a test of its own holds it, with something in the package's place
            assert "pip install 'sandglass-ml[" in str(error)
            continue
        except UnsuitableError as error:
            assert name == "aggregate" and "whose density is known" in str(error)
            continue
        assert torch.equal(state, torch.get_rng_state())
        same = getattr(make, "repeats", True)
        assert not same or first == measure(model, split, names=[name], **beside, **options)
        assert {r.name for r in first} <= set(make.figures)
        for result in first:
            assert 0 < result.n and result.unit and math.isfinite(result.value)
            assert result.stderr is not None and result.stderr >= 0
            assert result.n >= FEW or "few" in result.note
            again = measure(model, split, names=[result.name], **beside, **options)
            assert again == [result] if same else [r.name for r in again] == [result.name]
        model.eval()
        with torch.no_grad():
            every = registry.resolve("metric", {"name": name, **options.get(name, {})})(model, evaluation)
        assert [r.name for r in every] == [r.name for r in first], "a figure that is not declared is never shown"


@pytest.mark.parametrize("n", [1, 2, 3, 10, 31])
def test_examples_however_few_are_measured(n: int) -> None:
    """Nobody named a measure, so none may refuse."""
    data = pictures()
    made = torch.arange(2 * n).view(-1, 2) % 3
    split = dataclasses.replace(data.train.take(torch.arange(n)), factors=made, y=torch.arange(n) % 2)
    for name in ("vae", "ae", "gan"):
        model = fresh(name, data, latent_dim=3, net={"name": "mlp", "widths": [8]})
        for result in measure(model, split, train=data.train, factors=("first", "second")):
            assert result.n > 0 and not math.isnan(result.value), result
            assert result.n >= FEW or "few" in result.note, result


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind in ("metric", "likelihood") for name in registry.names(kind)]
)
def test_a_metric_and_a_likelihood_have_a_page(kind: str, name: str) -> None:
    root = Path(__file__).resolve().parents[2]
    make = registry.entry(kind, name).make
    same = [n for n in registry.names(kind) if registry.entry(kind, n).make is make]
    pages = [page for n in same if (page := root / "docs" / f"{kind}s" / f"{n}.md").is_file()]
    assert len(pages) == 1, f"docs/{kind}s/ has one page of {' or '.join(same)}"
    text = pages[0].read_text()
    for heading in ("## What it is", "## When it misleads", "## How it is checked"):
        assert heading in text, heading
    figures = getattr(make, "figures", same)
    assert [figure for figure in figures if f"`{figure}`" not in text] == []
    named = re.findall(r"`(tests/[\w/]+\.py)`", text)
    assert named and all((root / path).is_file() for path in named), "the page names the test that checks it"


def test_errors_of_the_mean_shrink_as_they_should() -> None:
    from sandglass.metrics.measure import mean_result

    values = torch.randn(10_000, generator=torch.Generator().manual_seed(0)).double()
    result = mean_result("x", values, "1")
    assert result.stderr == pytest.approx(0.01, rel=0.05)
    assert abs(result.value) < 5 * result.stderr


@pytest.mark.parametrize("name", registry.names("dataset"))
def test_a_data_set_says_where_it_is_from(name: str) -> None:
    entry = registry.entry("dataset", name)
    for key in ("size", "shape", "licence", "origin"):
        assert getattr(entry.make, key), key
    assert entry.summary


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_shorter_bernoulli_is_torch_s_to_the_last_digits(dtype: torch.dtype) -> None:
    from torch.distributions import Bernoulli

    from sandglass.distributions.bernoulli import LogitBernoulli

    extremes = torch.tensor([-1e4, -100.0, -30.0, 0.0, 30.0, 100.0, 1e4])
    logits = torch.cat([extremes, 10 * torch.randn(1000)]).to(dtype).requires_grad_()
    value = torch.rand(len(logits)).to(dtype).requires_grad_()
    ours = LogitBernoulli(logits=logits, validate_args=False).log_prob(value)
    theirs = Bernoulli(logits=logits, validate_args=False).log_prob(value)
    bar = 1e-12 if dtype == torch.float64 else 1e-5
    assert torch.allclose(ours, theirs, rtol=bar, atol=bar)
    for a, b in zip(*(torch.autograd.grad(p.sum(), (logits, value)) for p in (ours, theirs)), strict=True):
        assert torch.allclose(a, b, rtol=bar, atol=bar)
    few = logits.detach()[7:20].double().requires_grad_()
    other = value.detach()[7:20].double().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda h, x: LogitBernoulli(logits=h, validate_args=False).log_prob(x), (few, other)
    )
    assert torch.autograd.gradgradcheck(
        lambda h, x: LogitBernoulli(logits=h, validate_args=False).log_prob(x), (few, other)
    )
