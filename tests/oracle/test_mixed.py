"""The likelihood of a mixed table: every part against its closed form, masks, draws, and rows that can be."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch
from torch import Tensor

from sandglass import registry
from sandglass.core import Column, Spec
from sandglass.data.dataset import Split
from sandglass.data.transform import TableTransform
from sandglass.distributions.mixed import cumulative_logits
from sandglass.distributions.observed import log_prob
from sandglass.errors import ConfigError
from sandglass.metrics.measure import measure

COLUMNS: tuple[dict[str, Any], ...] = (
    {"name": "town", "kind": "categorical", "categories": ["Bern", "Graz", "Ulm"], "dtype": "str"},
    {"name": "age", "kind": "numeric", "mean": 40.0, "scale": 10.0, "dtype": "int64"},
    {"name": "visits", "kind": "count", "mean": 3.0, "scale": 4.0, "dtype": "int64"},
    {"name": "income", "kind": "positive", "mean": 10.0, "scale": 0.5, "dtype": "int64"},
    {"name": "grade", "kind": "ordinal", "categories": list("1234"), "mean": 1.5, "scale": 0.8, "dtype": "int64"},
    {"name": "signal", "kind": "sequence", "shape": [2], "mean": 1.0, "scale": 2.0, "dtype": "float64"},
    {"name": "born", "kind": "date", "mean": 1e9, "scale": 1e8, "dtype": "date"},
    {"name": "calls", "kind": "count", "mean": 0.0, "scale": 0.25, "dtype": "int64"},
    {"name": "member", "kind": "categorical", "categories": ["False", "True"], "dtype": "bool"},
)
TABLE = TableTransform(COLUMNS, frame=True)
LEARN = ["column", "cell"]
P = 1e-6
"""Tests of draws fail by chance so often."""


def place(name: str) -> slice:
    """Where a column stands in the encoded row."""
    start = 0
    for column in TABLE.spec().columns:
        if column.name == name:
            return slice(start, start + column.width)
        start += column.width
    raise KeyError(name)


def make(learn: str, spec: Spec | None = None, seed: int = 0) -> tuple[Any, Tensor]:
    """A likelihood with random parameters in float64, and outputs of a decoder for one row."""
    spec = spec or TABLE.spec()
    likelihood = registry.resolve("likelihood", {"name": "mixed", "learn": learn}, spec).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in likelihood.parameters():
            p += 0.4 * torch.randn(p.shape, generator=generator, dtype=torch.float64)
    h = torch.randn(1, likelihood.channels(spec), generator=generator, dtype=torch.float64)
    return likelihood, h


def alone(p: Any, name: str, codes: Tensor) -> Tensor:
    """``(N,)`` log-probabilities of the codes ``(N, width)`` of one column, the others masked."""
    x = torch.full((len(codes), TABLE.spec().size), 1e30, dtype=torch.float64)
    mask = torch.zeros(x.shape, dtype=torch.bool)
    x[:, place(name)], mask[:, place(name)] = codes, True
    return log_prob(p, x, mask).detach()


def codes(name: str, n: int = 0) -> Tensor:
    """Every code of a discrete column, of a count the first n."""
    column = next(c for c in TABLE.spec().columns if c.name == name)
    if column.kind == "categorical":
        return torch.eye(column.width, dtype=torch.float64)
    k = torch.arange(n or len(column.categories), dtype=torch.float64)
    return ((k - column.mean) / column.scale)[:, None]


@pytest.mark.parametrize("learn", LEARN)
@pytest.mark.parametrize("seed", range(5))
def test_every_part_normalises(learn: str, seed: int) -> None:
    likelihood, h = make(learn, seed=seed)
    p = likelihood(h)
    for name, n, bar in (("town", 0, 1e-12), ("member", 0, 1e-12), ("grade", 0, 1e-12),
                         ("visits", 100_000, 1e-8), ("calls", 100_000, 1e-8)):  # fmt: skip
        assert float(alone(p, name, codes(name, n)).exp().sum()) == pytest.approx(1, abs=bar), name
    grid = torch.linspace(-60, 60, 240_001, dtype=torch.float64)
    for name in ("age", "income", "born"):
        density = alone(p, name, grid[:, None]).exp()
        assert float(torch.trapezoid(density, grid)) == pytest.approx(1, abs=1e-9), name


@pytest.mark.parametrize("learn", LEARN)
def test_a_row_is_the_sum_of_its_columns_and_a_mask_leaves_one_alone(learn: str) -> None:
    likelihood, h = make(learn)
    p = likelihood(h.expand(6, -1))
    x = p.sample()
    names = [c.name for c in TABLE.spec().columns]
    parts = torch.stack([alone(p, name, x[:, place(name)]) for name in names])
    assert torch.allclose(parts.sum(0), p.log_prob(x).detach(), atol=1e-12, rtol=0)
    mask = torch.rand(6, len(names), generator=torch.Generator().manual_seed(1)) > 0.4
    wide = torch.cat([mask[:, i : i + 1].expand(-1, c.width) for i, c in enumerate(TABLE.spec().columns)], 1)
    expected = (parts.T * mask).sum(1)
    assert torch.allclose(log_prob(p, x, wide).detach(), expected, atol=1e-12, rtol=0)
    # And each is what a table of that column alone would give.
    state = likelihood.state_dict()
    ends = {"numbers": ["age", "income", "signal", "born"], "counts": ["visits", "calls"]}
    for name, column in zip(names, TABLE.spec().columns, strict=True):
        single = Spec((column.width,), columns=(column,))
        one, _ = make(learn, single)
        own = torch.cat([h[:, place(name)], *spreads(h, name)], 1) if learn == "cell" else h[:, place(name)]
        for key in one.state_dict():
            part, what = key.removeprefix("parts.").split(".")
            if part in ends:
                one.state_dict()[key].copy_(state[f"parts.{part}.{what}"][ends[part].index(name)])
            else:
                one.state_dict()[key].copy_(state[f"parts.ranks-{place(name).start}.{what}"])
        found = one(own.expand(6, -1)).log_prob(x[:, place(name)]).detach()
        assert torch.allclose(found, parts[names.index(name)], atol=1e-12, rtol=0), name


def spreads(h: Tensor, name: str) -> list[Tensor]:
    """What the decoder puts out for the spread of a column: behind the row those of numbers, counts, ranks."""
    order = ["age", "income", "signal", "born", "visits", "calls", "grade"]
    start = TABLE.spec().size
    for other in order:
        width = place(other).stop - place(other).start
        if other == name:
            return [h[:, start : start + width]]
        start += width
    return []


@pytest.mark.parametrize("learn", LEARN)
def test_against_scipy(learn: str) -> None:
    likelihood, h = make(learn)
    p, parts = likelihood(h), likelihood.parts
    number = {"age": 0, "income": 1, "born": 3}
    count = {"visits": 0, "calls": 1}

    def spread(name: str) -> float:
        if learn == "cell":
            return float(spreads(h, name)[0])
        which = parts["numbers"].spread[number[name]] if name in number else parts["counts"].spread[count[name]]
        return float(which.detach())

    def at(name: str) -> float:
        return float(h[0, place(name)])

    x = torch.linspace(-4, 4, 17, dtype=torch.float64)
    for name in ("age", "born"):
        theirs = scipy.stats.norm.logpdf(x, at(name), math.exp(spread(name)))
        assert alone(p, name, x[:, None]).numpy() == pytest.approx(theirs, abs=1e-12)
    # A positive number v has the code (log v - 10) / 0.5; its density per unit of v is smaller by 0.5 v.
    v = np.exp(x.numpy() * 0.5 + 10)
    theirs = scipy.stats.lognorm.logpdf(v, 0.5 * math.exp(spread("income")), scale=math.exp(0.5 * at("income") + 10))
    assert alone(p, "income", x[:, None]).numpy() - np.log(0.5 * v) == pytest.approx(theirs, abs=1e-12)
    for name, usual in (("visits", 3.0), ("calls", 0.125)):
        mean, r = usual * math.exp(at(name)), math.exp(-spread(name))
        theirs = scipy.stats.nbinom.logpmf(np.arange(50), r, r / (r + mean))
        assert alone(p, name, codes(name, 50)).numpy() == pytest.approx(theirs, abs=1e-10)
    for name in ("town", "member"):
        theirs = scipy.special.log_softmax(h[0, place(name)].numpy())
        assert alone(p, name, codes(name)).numpy() == pytest.approx(theirs, abs=1e-12)
    cuts = parts[f"ranks-{place('grade').start}"].cuts.detach().numpy()
    thresholds = np.cumsum([cuts[0], *np.exp(cuts[1:])])
    width = math.exp(spread("grade")) if learn == "cell" else 1.0
    below = [0.0, *scipy.stats.logistic.cdf(thresholds, at("grade"), width), 1.0]
    assert alone(p, "grade", codes("grade")).exp().numpy() == pytest.approx(np.diff(below), abs=1e-12)


@pytest.mark.parametrize("learn", LEARN)
@pytest.mark.parametrize("masked", [False, True])
def test_gradients_by_outputs_and_parameters(learn: str, masked: bool) -> None:
    likelihood, h = make(learn)
    h = torch.cat([h, -h, 0.3 * h])
    x = likelihood(h).sample()
    mask = None
    if masked:
        mask = torch.ones(x.shape, dtype=torch.bool)
        mask[0, place("town")] = mask[1, place("visits")] = mask[2, place("grade")] = False
    names = [name for name, _ in likelihood.named_parameters()]

    def f(h: Tensor, *values: Tensor) -> Tensor:
        p = torch.func.functional_call(likelihood, dict(zip(names, values, strict=True)), (h,))
        return log_prob(p, x, mask)

    values = [p.detach().clone().requires_grad_() for p in likelihood.parameters()]
    assert torch.autograd.gradcheck(f, (h.requires_grad_(), *values))


def chi_square(counts: Tensor, probabilities: Tensor) -> float:
    """p-value of the counts, cells of less than 10 expected joined to the last."""
    expected = probabilities * counts.sum()
    rare = expected < 10
    pooled = [torch.cat([t[~rare], t[rare].sum()[None]]) for t in (counts, expected)]
    seen, should = (t[: -1 if float(pooled[1][-1]) < 1 else None].numpy() for t in pooled)
    return float(scipy.stats.chisquare(seen, should * seen.sum() / should.sum()).pvalue)


@pytest.mark.parametrize("learn", LEARN)
def test_draws_follow_the_probabilities(learn: str) -> None:
    likelihood, h = make(learn, seed=2)
    p = likelihood(h)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        x = p.sample((40_000,))[:, 0]
    for name, n in (("town", 0), ("member", 0), ("grade", 0), ("visits", 400), ("calls", 400)):
        every = codes(name, n)
        equal = (x[:, None, place(name)] == every).all(-1)
        assert equal.any(1).double().mean() > 0.999, "draws are codes"
        assert chi_square(equal.sum(0).double(), alone(p, name, every).exp()) > P, name
    for name in ("age", "income", "born"):
        location = p.mean[0, place(name)].detach()
        draws = x[:, place(name)].flatten()
        scale = torch.exp(-alone(p, name, location[:, None]) - 0.5 * math.log(2 * math.pi))
        assert scipy.stats.kstest(((draws - location) / scale).numpy(), "norm").pvalue > P, name


@pytest.mark.parametrize("learn", LEARN)
def test_the_mean_is_the_mean_of_the_draws(learn: str) -> None:
    likelihood, h = make(learn, seed=3)
    p = likelihood(h)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        x = p.sample((100_000,))[:, 0]
    error = (x.mean(0) - p.mean[0].detach()).abs() / (x.std(0) / len(x) ** 0.5)
    assert float(error.max()) < 5.5


def test_a_table_of_one_kind_is_the_plain_likelihood() -> None:
    numbers = Spec((4,), columns=tuple(Column(n, "numeric") for n in "abcd"))
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for learn, plain in (("column", "shared"), ("cell", "pixel")):
        likelihood, h = make(learn, numbers)
        gaussian = registry.resolve("likelihood", {"name": "gaussian", "learn": plain}, numbers).double()
        if learn == "column":
            with torch.no_grad():
                likelihood.parts["numbers"].spread.fill_(0.3)
                gaussian.log_scale.fill_(0.3)
        assert torch.allclose(likelihood(h).log_prob(x), gaussian(h).log_prob(x), atol=1e-12, rtol=0)
        assert torch.equal(likelihood(h).mean, gaussian(h).mean)

    k = torch.tensor([[0.0, 3, 16], [1, 2, 40]], dtype=torch.float64)
    counts = Spec((3,), columns=tuple(Column(n, "count", mean=8.0, scale=4.0) for n in "abc"))
    likelihood, h = make("cell", counts)
    plain_counts = registry.resolve("likelihood", "negative-binomial", Spec((3,), "unit", 17)).double()  # around 8
    paired = torch.stack([h[:, :3], -h[:, 3:]], -1).flatten(1)
    theirs = plain_counts(paired).log_prob(k / 16)
    assert torch.allclose(likelihood(h).log_prob((k - 8) / 4), theirs, atol=1e-12, rtol=0)

    which = torch.tensor([[0, 4], [2, 1], [3, 3]])
    categories = Spec((10,), columns=tuple(Column(n, "categorical", 5, tuple("abcde")) for n in "xy"))
    likelihood, h = make("column", categories)
    plain_choice = registry.resolve("likelihood", "categorical", Spec((2,), "unit", 5)).double()
    hot = torch.nn.functional.one_hot(which, 5).flatten(1).double()
    assert torch.allclose(likelihood(h).log_prob(hot), plain_choice(h).log_prob(which / 4), atol=1e-12, rtol=0)

    pair = Spec((2,), columns=(Column("yes", "categorical", 2, ("False", "True")),))
    likelihood, h = make("column", pair)
    bernoulli = registry.resolve("likelihood", "bernoulli", Spec((1,), "binary", 2)).double()
    for yes, hot in ((0.0, [[1.0, 0]]), (1.0, [[0.0, 1]])):
        theirs = bernoulli(h[:, 1:] - h[:, :1]).log_prob(torch.tensor([[yes]]).double())
        assert torch.allclose(likelihood(h).log_prob(torch.tensor(hot).double()), theirs, atol=1e-12, rtol=0)

    two = Spec((1,), columns=(Column("rank", "ordinal", 1, ("a", "b")),))  # two ranks are a Bernoulli
    likelihood, h = make("column", two)
    cut = likelihood.parts["ranks-0"].cuts
    for rank in (0.0, 1.0):
        value = torch.tensor([[rank]]).double()
        assert torch.allclose(likelihood(h).log_prob(value), bernoulli(h - cut).log_prob(value), atol=1e-12, rtol=0)


def test_ranks_start_even_and_keep_their_order() -> None:
    for k in (1, 2, 3, 9):
        names = tuple(map(str, range(k)))
        spec = Spec((1,), columns=(Column("rank", "ordinal", 1, names),))
        likelihood = registry.resolve("likelihood", "mixed", spec).double()
        every = torch.arange(k, dtype=torch.float64)[:, None]
        even = likelihood(torch.zeros(1, 1).double()).log_prob(every).exp()
        assert torch.allclose(even, torch.full((k,), 1 / k).double(), atol=1e-6)  # parameters are made in float32
        drawn = likelihood(torch.full((50, 1), 2.0).double()).sample()
        assert set(drawn.flatten().tolist()) <= set(every.flatten().tolist())
    up = [cumulative_logits(torch.tensor(at), torch.tensor([-2.0, 4.0, 4.0])).argmax() for at in (-9.0, 0.0, 4.0, 9.0)]
    assert [int(k) for k in up] == [0, 1, 2, 3]
    narrow = cumulative_logits(torch.tensor(0.0), torch.tensor([30.0, 1e-6]))  # sigmoids that are both 1 in float32
    exact = math.log(scipy.stats.logistic.sf(30.0) - scipy.stats.logistic.sf(30.0 + 1e-6))
    assert float(narrow[1]) == pytest.approx(exact, abs=1e-4)


def test_counts_of_a_million_are_exact_in_single_precision() -> None:
    spec = Spec((1,), columns=(Column("calls", "count", mean=1e6, scale=2.0**18),))
    likelihood = registry.resolve("likelihood", "mixed", spec)
    k = np.array([0.0, 999_999, 1_000_000, 3_000_000])
    x = torch.tensor((k - 1e6) / 2**18, dtype=torch.float32)[:, None]
    with torch.no_grad():
        likelihood.parts["counts"].spread.fill_(-6.0)
        found = likelihood(torch.zeros(4, 1)).log_prob(x).numpy()
    r = math.exp(6.0)
    assert found == pytest.approx(scipy.stats.nbinom.logpmf(k, r, r / (r + 1e6)), rel=2e-6)
    p = likelihood(torch.zeros(2000, 1))
    drawn = p.sample() * 2**18 + 1e6
    assert drawn.dtype == torch.float32 and torch.equal(drawn, drawn.round()) and float(drawn.min()) >= 0


@pytest.mark.parametrize("learn", LEARN)
@pytest.mark.parametrize("size", [1.0, 30.0, 300.0, -300.0])
def test_rows_can_be_and_figures_are_finite_whatever_the_decoder_puts_out(learn: str, size: float) -> None:
    spec = TABLE.spec()
    likelihood = registry.resolve("likelihood", {"name": "mixed", "learn": learn}, spec)
    noise = torch.randn(64, likelihood.channels(spec), generator=torch.Generator().manual_seed(0))
    h = (size * (1 + 0.1 * noise)).requires_grad_()
    p = likelihood(h)
    sane = TABLE.apply(TABLE.inverse(likelihood(torch.zeros(64, likelihood.channels(spec))).sample()))
    figure = p.log_prob(sane)
    figure.sum().backward()
    assert torch.isfinite(figure).all() and h.grad is not None and torch.isfinite(h.grad).all()
    for x in (p.mean.detach(), p.sample()):
        assert torch.isfinite(x).all()
        if abs(size) < 30:
            again, mask = TABLE.observe(TABLE.inverse(x))  # raises where a cell is none of its column
            assert mask is None and again.shape == x.shape
        frame = TABLE.inverse(x)
        assert (frame["income"] > 0).all() and (frame["visits"] >= 0).all() and (frame["calls"] >= 0).all()
        assert frame["income"].dtype == frame["visits"].dtype == np.int64
        assert set(frame["town"]) <= {"Bern", "Graz", "Ulm"} and set(frame["grade"]) <= {1, 2, 3, 4}
        assert (p.mean[:, place("town")].sum(-1) - 1).abs().max() < 1e-5


def test_a_figure_is_a_density_where_any_column_is_one() -> None:
    kind = registry.entry("likelihood", "mixed").make.kind
    spec = TABLE.spec()
    assert kind(spec) == "density"
    discrete = [c for c in spec.columns if c.kind in ("categorical", "ordinal", "count")]
    masses = replace(spec, shape=(sum(c.width for c in discrete),), columns=tuple(discrete))
    assert kind(masses) == "mass"
    for real in (c for c in spec.columns if c not in discrete):
        both = (*discrete, real)
        assert kind(replace(spec, shape=(sum(c.width for c in both),), columns=both)) == "density"

    model = registry.build("vae", masses, latent_dim=2, net="mlp")
    assert model.config["options"]["likelihood"]["name"] == "mixed"
    x = model.sample(30, noise=True)
    figures = {r.name: r for r in measure(model, Split(x), names=["bound"])}
    nats = -figures["elbo"].value / math.log(2)
    assert figures["bits_per_dim"].value == pytest.approx(nats / len(discrete), rel=1e-12), "a category is one cell"
    model = registry.build("vae", spec, latent_dim=2, net="mlp")
    figures = {r.name: r for r in measure(model, Split(model.sample(30, noise=True)), names=["bound"])}
    assert "bits_per_dim" not in figures and figures["elbo"].note == "a log density, which can be positive"


def test_auto_is_mixed_for_what_has_not_numbers_alone() -> None:
    def auto(*kinds: str) -> str:
        columns = tuple(Column(k, k, 1, ("a",) if k in ("categorical", "ordinal") else ()) for k in kinds)
        model = registry.build("vae", Spec((len(kinds),), columns=columns), latent_dim=1, net="mlp")
        name: str = model.config["options"]["likelihood"]["name"]
        return name

    assert auto("numeric", "date", "sequence") == "gaussian"
    for kind in ("positive", "count", "categorical", "ordinal"):
        assert auto("numeric", kind) == "mixed", kind
    assert registry.settle("likelihood", {"name": "auto"}, Spec((3,)))["name"] == "gaussian"
    assert not registry.entry("likelihood", "gaussian").make.natural(TABLE.spec())  # in whichever order they register
    binary = Spec((1,), "binary", 2, columns=(Column("a"),))
    assert registry.settle("likelihood", {"name": "auto"}, binary)["name"] == "bernoulli"


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (Spec((3,)), "for tables"),
        (Spec((1, 2, 3), columns=(Column("a", width=6),)), "for tables"),
        (Spec((1,), "binary", 2, columns=(Column("a"),)), "for tables"),
        (Spec((3,), columns=(Column("a"),)), "do not match"),
        (Spec((2,), columns=(Column("a", width=2),)), "do not match"),
        (Spec((1,), columns=(Column("a"), Column("b", "categorical", 0))), "do not match"),
        (Spec((1,), columns=(Column("a", "ordinal"),)), "do not match"),
    ],
    ids=str,
)
def test_what_is_no_table_is_refused(spec: Spec, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        registry.resolve("likelihood", "mixed", spec)


def test_an_unknown_way_to_learn_is_refused() -> None:
    with pytest.raises(ConfigError, match="column or cell, not 'pixel'"):
        make("pixel")
