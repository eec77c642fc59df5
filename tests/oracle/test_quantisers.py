"""Residual and lookup-free quantisation, and two levels of codes, against what they are by definition."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn

from sandglass import registry, rng
from sandglass.core import Batch, Model, Spec
from sandglass.errors import ConfigError
from sandglass.quantisers.lookup_free import LookupFree
from sandglass.quantisers.residual import Residual

SMALL = {"codebook_size": 3, "code_dim": 2, "prior_width": 8, "prior_depth": 1, "prior_heads": 2}


def residual(*, shared: bool, depth: int = 3, revive: float = 0.0) -> Residual:
    with rng.forked("cpu", 0, "book"):
        return Residual(5, 2, depth=depth, shared=shared, decay=0.9, revive=revive).double()


def vectors(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shared", [False, True])
def test_each_code_is_the_nearest_to_what_is_left_over(shared: bool) -> None:
    """Values, commitment and gradient follow from the codes; a depth leaves no more over than the one before."""
    made, h = residual(shared=shared).eval(), vectors(4, 3, 2).requires_grad_()
    rest, total, expected = h.detach(), torch.zeros(4).double(), []
    for d in range(3):
        book = made.books[0 if shared else d].vectors
        code = (rest[:, :, None] - book).square().sum(-1).argmin(-1)
        rest = rest - book[code]
        total += rest.square().sum((1, 2))
        expected.append(code)
    found = made(h)
    assert torch.equal(found.codes.view(4, 3, 3), torch.stack(expected, -1))
    assert torch.allclose(found.values, h - rest, atol=1e-12) and torch.allclose(found.commitment, total)
    assert torch.allclose(made.lookup(made.encode(h)), found.values, atol=1e-12)
    (gradient,) = torch.autograd.grad(found.values.sum(), h, retain_graph=True)
    assert torch.equal(gradient, torch.ones_like(h))
    (pull,) = torch.autograd.grad(found.commitment.sum(), h)  # that of |h - the sum of vectors|^2, for each depth
    sums = [h.detach() - r for r in made._down(h.detach())[1][1:]]
    assert torch.allclose(pull, 2 * sum(h.detach() - s for s in sums), atol=1e-12)


@pytest.mark.parametrize("shared", [False, True])
def test_codebooks_follow_in_shards_as_they_do_at_once(shared: bool) -> None:
    """And each follows the mean of what the depths before leave over for it."""
    h, once, parts = vectors(6, 4, 2), residual(shared=shared).train(), residual(shared=shared).train()
    before = [book.counts.clone() for book in once.books]
    once.follow({k: v[None] for k, v in once(h).statistics.items()})
    halves = [parts(half).statistics for half in h.chunk(2)]
    parts.follow({k: torch.stack([half[k] for half in halves]) for k in halves[0]})
    for a, b, counts in zip(once.books, parts.books, before, strict=True):
        assert torch.allclose(a.vectors, b.vectors, atol=1e-12) and not torch.equal(a.counts, counts)
        assert float(a.counts.sum() - 0.9 * counts.sum()) == pytest.approx(0.1 * 24 * (3 if shared else 1))


@pytest.mark.parametrize("shared", [False, True])
def test_the_fit_leaves_less_over_with_each_depth(shared: bool) -> None:
    h = vectors(40, 10, 2)
    with rng.forked("cpu", 2):
        errors = [residual(shared=shared, depth=depth).fit([h])["distance"] for depth in (1, 2, 3)]
    assert errors[1] < 0.7 * errors[0] and errors[2] < 0.9 * errors[1]


def test_signs_are_one_to_one_with_codes() -> None:
    made = LookupFree(17).double()
    codes = torch.arange(16)
    assert made.size == 16 and made.dim == 4 and torch.equal(made.nearest(made.lookup(codes)), codes)
    assert made.lookup(codes).unique(dim=0).shape == (16, 4)
    h = vectors(3, 5, 4).requires_grad_()
    found = made(h)
    assert torch.equal(found.values.sign(), h.detach().sign()) and torch.equal(made.encode(h), found.codes)
    assert torch.equal(torch.autograd.grad(found.values.sum(), h)[0], torch.ones_like(h))
    assert torch.allclose(found.commitment, (h.abs() - 1).square().sum((1, 2)))
    assert made.fit(vectors(40, 5, 4).split(7))["vectors"] == 200
    assert torch.equal(made.encode(h), made.nearest(h - vectors(40, 5, 4).mean((0, 1))))
    assert torch.equal(made(h).codes, made.encode(h))


def test_the_entropies_are_those_of_all_codes_counted_one_by_one() -> None:
    """q is the softmax of minus the squared distances over the temperature; beyond 8 bits it is a sum over groups."""
    made, h = LookupFree(16, entropy=0.3, diversity=0.7, temperature=1.7).double(), vectors(3, 5, 4)
    distance = (h[:, :, None] - made.lookup(torch.arange(16)).double()).square().sum(-1)
    q = (-distance / 1.7).softmax(-1)
    single = torch.special.entr(q).sum(-1).sum(1)
    spread = torch.special.entr(q.mean((0, 1))).sum()
    assert torch.allclose(made.penalty(h), 0.3 * (single - 0.7 * 5 * spread), atol=1e-12)
    assert torch.autograd.gradcheck(lambda t: made.penalty(t).sum(), h.requires_grad_())
    far = (1e3 * vectors(3, 5, 10)).requires_grad_()
    (gradient,) = torch.autograd.grad(LookupFree(1024).double().penalty(far).sum(), far)
    assert torch.isfinite(gradient).all()


def two_levels() -> Model:
    with rng.forked("cpu", 0, "weights"):
        small = {**SMALL, "codes": 2, "net": "linear", "likelihood": "bernoulli"}
        model = registry.build("vq-vae-2", Spec((3,), "binary"), **small).double().eval()
        for p in model.parameters():
            nn.init.normal_(p, std=0.4)
    return model


def test_a_penalty_over_the_batch_needs_two_examples_a_shard() -> None:
    lfq = {"name": "lfq", "diversity": 0.5}
    for name in ("vq-vae", "vq-vae-2"):
        for quantiser, least in ((lfq, 2), ({**lfq, "diversity": 0.0}, 1), ("ema", 1)):
            model = registry.build(name, Spec((1, 8, 8), "unit"), quantiser=quantiser)
            assert [stage.least for stage in model.stages()] == [least, 1]


@pytest.mark.parametrize(("options", "message"), [({"maps": 5}, "can be 2 maps"), ({"codes": 1}, "can be 1 maps")])
def test_maps_that_cannot_be_halved_are_refused(options: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        registry.build("vq-vae-2", Spec((1, 8, 8), "unit"), **options)


def test_the_bound_of_two_levels_is_below_the_evidence() -> None:
    """Of all 27 codes of a map of one and a map of two; their probabilities sum to one, and samples are of them."""
    model = two_levels()
    assert [(k.name, k.shape) for k in model.latents] == [("top", (1,)), ("bottom", (2,))]
    x = torch.tensor([[0.0, 1, 1], [1, 0, 0]]).double()
    codes = torch.tensor(list(itertools.product(range(3), repeat=3)))
    with torch.no_grad():
        log_k = -sum(model.rates(codes, None).values())
        log_x = torch.stack([model.observation(codes, None).log_prob(row.expand(27, -1)) for row in x])
        evidence, bound = (log_x + log_k).logsumexp(1), model.bound(Batch(x))
        place = (model.encode(x) * torch.tensor([9, 3, 1])).sum(1)
        with rng.forked("cpu", 1):
            drawn = (model.draw(20_000) * torch.tensor([9, 3, 1])).sum(1)
    p = log_k.exp()
    assert float(p.sum()) == pytest.approx(1, abs=1e-10) and float(p.max()) > 2 * float(p.min())
    assert (bound.elbo < evidence).all()
    assert torch.allclose(bound.elbo, torch.stack([(log_x + log_k)[i, int(k)] for i, k in enumerate(place)]))
    share = drawn.bincount(minlength=27) / 20_000
    assert ((share - p).abs() < 5 * (p * (1 - p) / 20_000).sqrt()).all()  # 27 times 6e-7


def test_what_is_below_reads_what_is_above() -> None:
    """The vectors of the bottom map, and its prior, change with the codes of the top."""
    model, x = two_levels(), torch.tensor([[0.0, 1, 1]]).double()
    found = []
    for k in (0, 1):
        going = model.levels(Batch(x))
        next(going)
        value = model.quantiser[0].lookup(torch.tensor([[k]]))
        found.append((going.send(value), model.pk[1](torch.tensor([[k]])).log_prob(torch.tensor([[1, 2]]))))
    assert all(float((a - b).detach().abs().max()) > 1e-3 for a, b in zip(*found, strict=True))


def test_options_of_before_are_those_of_the_quantiser() -> None:
    """Configurations that were saved with them build what they did; a change that would do nothing is refused."""
    spec = Spec((1, 8, 8), "unit")
    old = {"quantiser": "ema", "decay": 0.5, "revive": 0.0, "levels": []}
    model = registry.build("vq-vae", spec, **SMALL, **old)
    assert (model.quantiser.decay, model.quantiser.revive) == (0.5, 0.0)
    assert registry.build("vq-vae", spec, **model.config["options"]).config == model.config
    fsq = registry.build("vq-vae", spec, quantiser="fsq", decay=0.95, revive=0.05, levels=[5, 4])
    assert fsq.quantiser.size == 20
    with pytest.raises(ConfigError, match="'fsq' has no option 'decay'"):
        registry.build("fsq-vae", spec, decay=0.5)
    both = {"name": "ema", "decay": 0.9}
    assert registry.build("vq-vae", spec, quantiser=both, decay=0.9).quantiser.decay == 0.9
    for quantiser, option, message in (
        (both, {"decay": 0.5}, "leave out decay, its old name"),
        (LookupFree(8), {"decay": 0.5}, "leave out decay"),
        ({"levels": [3, 3]}, {"levels": [5, 5]}, "needs a 'name'"),
    ):
        with pytest.raises(ConfigError, match=message):
            registry.build("vq-vae", spec, quantiser=quantiser, **option)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"quantiser": {"name": "residual", "depth": 0}}, "depth >= 1"),
        ({"quantiser": {"name": "lfq", "temperature": 0.0}}, "temperature"),
        ({"quantiser": {"name": "lfq", "entropy": -1.0}}, "entropy"),
        ({"quantiser": "lfq", "codebook_size": 1}, "codebook_size >= 2"),
        ({"prior_net": "rnn"}, "transformer, pixelcnn"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        registry.build("vq-vae", Spec((1, 8, 8), "unit"), **{**SMALL, **options})
