"""Discrete codes and their prior against closed forms: what is nearest, what an average is, what sums to one."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from helpers import fresh, make_loop, pictures
from sandglass import registry, rng
from sandglass.core import Batch, Clock, Model, Spec
from sandglass.engine.options import Training
from sandglass.engine.step import Stepper
from sandglass.errors import ConfigError
from sandglass.models._code_map import CodeMap
from sandglass.nets.conv import Conv
from sandglass.nets.mlp import MLP
from sandglass.nets.vit import ViT
from sandglass.quantisers.codebook import Codebook, sampled
from sandglass.quantisers.finite_scalar import FiniteScalar, levels_for
from sandglass.quantisers.quantiser import usage

SMALL = {"codebook_size": 6, "code_dim": 3, "prior_width": 8, "prior_depth": 1, "prior_heads": 2}


class Largest(TorchDispatchMode):
    """How many elements the largest tensor has that is made."""

    size = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        self.size = max(self.size, found.numel())
        return found


def book(size: int = 3, dim: int = 2, **options: float) -> Codebook:
    with rng.forked("cpu", 0, "book"):
        return Codebook(size, dim, **{"decay": 0.9, "revive": 0.0, **options}).double()


def follow(made: Codebook, h: Tensor, codes: Tensor, shards: int = 1) -> None:
    """An update by the statistics of a batch that was cut into shards."""
    found = [made.statistics(*pair) for pair in zip(h.tensor_split(shards), codes.tensor_split(shards), strict=True)]
    made.follow({name: torch.stack([each[name] for each in found]) for name in found[0]})


def test_the_update_of_the_codebook_is_that_of_the_paper() -> None:
    """Two steps with a fixed assignment: N = g N + (1 - g) n, m = g m + (1 - g) s, e = m / N."""
    made = book()
    start_n, start_m = made.counts.clone(), made.sums.clone()
    h = torch.randn(7, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    codes = torch.tensor([0, 0, 0, 2, 2, 0, 2])
    n, s = torch.tensor([4.0, 0.0, 3.0]).double(), torch.stack([h[codes == i].sum(0) for i in range(3)])
    follow(made, h, codes)
    follow(made, h, codes, shards=3)
    counts = 0.81 * start_n + 0.19 * n
    sums = 0.81 * start_m + 0.19 * s
    assert torch.allclose(made.counts, counts, atol=1e-12) and torch.allclose(made.sums, sums, atol=1e-12)
    assert torch.allclose(made.vectors, sums / counts[:, None], atol=1e-12)


def test_many_steps_bring_a_code_to_the_mean_of_its_vectors() -> None:
    made = book(decay=0.5)
    h = torch.tensor([[1.0, 0.0], [3.0, 2.0], [-5.0, -5.0]]).double()
    for _ in range(60):
        follow(made, h, torch.tensor([0, 0, 1]))
    assert torch.allclose(made.vectors[:2], torch.tensor([[2.0, 1.0], [-5.0, -5.0]]).double())


def test_a_code_without_use_stays_and_is_finite() -> None:
    made = book(decay=0.1)
    before = made.vectors[2].clone()
    for _ in range(400):  # its count is far below the smallest double
        follow(made, torch.zeros(2, 2).double(), torch.tensor([0, 1]))
    assert torch.isfinite(made.vectors).all() and torch.allclose(made.vectors[2], before, rtol=1e-6)


def test_a_code_below_its_share_takes_the_place_of_a_vector_and_the_others_do_not() -> None:
    made, plain = book(revive=0.5), book()
    h = torch.arange(8.0).view(4, 2).double()
    codes = torch.tensor([0, 0, 1, 1])
    for _ in range(12):
        follow(plain, h, codes)
    with rng.forked("cpu", 1):
        for _ in range(12):
            follow(made, h, codes)
    assert float(plain.counts[2]) < 0.5 * float(plain.counts.mean()), "no code lost its use: this shows nothing"
    assert any(torch.equal(made.vectors[2], row) for row in h)
    assert torch.allclose(made.vectors[:2], plain.vectors[:2], atol=1e-12)


def test_what_is_quantised_goes_to_the_nearest_code() -> None:
    made = book(9, 4).eval()
    h = torch.randn(5, 6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    found = made(h)
    distances = (h[:, :, None] - made.vectors).square().sum(-1)
    assert torch.equal(found.codes, distances.argmin(-1))
    assert torch.allclose(found.commitment, distances.amin(-1).sum(1))
    assert torch.allclose(found.values, made.vectors[found.codes], atol=1e-12)
    assert torch.equal(made.nearest(made.lookup(torch.arange(9))), torch.arange(9))


@pytest.mark.parametrize("kind", ["ema", "fsq"])
def test_the_gradient_goes_straight_through(kind: str) -> None:
    """Of the values with respect to the vectors it is the identity; of fsq, with respect to the bounded ones."""
    made = book(9, 2).eval() if kind == "ema" else FiniteScalar(levels=(5, 4)).eval()
    h = torch.randn(3, 4, 2, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, 4, 2, dtype=torch.float64)
    (made(h).values * weight).sum().backward()
    expected = weight
    if isinstance(made, FiniteScalar):
        leaf = h.detach().requires_grad_()
        (expected,) = torch.autograd.grad((made.bound(leaf) / torch.tensor([2.0, 2.0]) * weight).sum(), leaf)
    assert torch.allclose(h.grad, expected, atol=1e-12)


@pytest.mark.parametrize("levels", [(2,), (3, 3), (8, 5, 5), (7, 2, 6), (4, 4)])
def test_finite_scalar_codes_and_vectors_are_one_to_one(levels: tuple[int, ...]) -> None:
    made = FiniteScalar(levels=levels).double()
    codes = torch.arange(made.size)
    vectors = made.lookup(codes).double()
    assert made.size == math.prod(levels) and len({tuple(v) for v in vectors.tolist()}) == made.size
    assert torch.equal(made.nearest(vectors), codes)
    half = torch.tensor([n // 2 for n in levels])
    assert vectors.min() >= -1 and torch.allclose((vectors * half).round(), vectors * half)


@pytest.mark.parametrize("levels", [(2,), (5, 4), (8, 3)])
def test_every_code_is_reached_and_none_beyond(levels: tuple[int, ...]) -> None:
    """However far out the encoder's numbers are."""
    made = FiniteScalar(levels=levels).double()
    grids = [torch.cat([torch.linspace(-4, 4, 101), torch.tensor([-1e6, 1e6])]).double() for _ in levels]
    h = torch.cartesian_prod(*grids).view(1, -1, len(levels))
    found = made(h)
    assert torch.equal(found.codes.unique(), torch.arange(made.size))
    assert torch.allclose(found.values, made.lookup(found.codes).double(), atol=1e-12)
    assert torch.equal(made.encode(h), found.codes)


def test_vectors_are_in_the_type_of_the_model() -> None:
    found = FiniteScalar(levels=(7, 4)).double().lookup(torch.tensor([2]))
    assert torch.equal(found, torch.tensor([[-1 / 3, -1.0]], dtype=torch.float64))


def test_zero_is_the_middle_level() -> None:
    made = FiniteScalar(levels=(5, 4)).double()
    assert made(torch.zeros(1, 1, 2).double()).values.tolist() == [[[0.0, 0.0]]]


@pytest.mark.parametrize("size", [2, 3, 7, 12, 24, 25, 32, 64, 100, 240, 256, 1000, 4096, 2**14, 2**16])
def test_levels_make_nearly_so_many_codes(size: int) -> None:
    levels = levels_for(size)
    assert 0.75 * size <= math.prod(levels) <= size
    assert len(levels) >= 3 or size < 64
    assert min(levels) >= 5 or (size not in (7, 25, 32) and size < 240), "from 240 on the paper has 5 or more"


def test_usage_is_the_exponential_of_the_entropy() -> None:
    codes = torch.tensor([[0, 0, 0, 1], [2, 2, 0, 1]])
    entropy = -sum(p * math.log(p) for p in (0.5, 0.25, 0.25))
    found = usage(codes, 8)
    assert float(found["used"]) == 3 / 8 and float(found["perplexity"]) == pytest.approx(math.exp(entropy))


def test_usage_makes_no_matrix_of_all_codes() -> None:
    largest = Largest()
    with largest:
        usage(torch.arange(300)[None], 400)
    assert 300 <= largest.size <= 400


def test_k_means_finds_separate_groups() -> None:
    with rng.forked("cpu", 3):
        centres = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0], [10.0, 10.0]]).double()
        points = centres[torch.arange(400) % 4] + 0.1 * torch.randn(400, 2).double()
        made = book(8)
        figures = made.fit([points.view(10, 40, 2)])
    assert figures["vectors"] == 400 and figures["used"] == 1
    nearest = torch.cdist(centres, made.vectors).min(1).values
    assert float(nearest.max()) < 0.5 and figures["distance"] < 0.03
    assert torch.allclose(made.sums, made.vectors * made.counts[:, None]) and float(made.counts.mean()) == 1


def test_k_means_sees_every_vector_with_the_same_chance() -> None:
    """Of 40 vectors in batches 10 are kept; each a quarter of the time, within four standard errors."""
    batches = torch.arange(40.0).view(4, 10, 1)
    n = 2000
    with rng.forked("cpu", 4):
        kept = torch.cat([sampled(iter(batches), 10) for _ in range(n)]).long().flatten()
    share = kept.bincount(minlength=40) / n
    assert len(kept) == 10 * n
    assert float((share - 0.25).abs().max()) < 4 * math.sqrt(0.25 * 0.75 / n)  # 40 times 6e-5: once in 400 seeds


def test_before_training_all_codes_are_equally_likely() -> None:
    model = fresh("vq-vae", pictures(), **SMALL).eval()
    assert torch.allclose(
        model.bound(pictures().train.batch(slice(0, 4))).rates["codes"], torch.tensor(4 * math.log(6))
    )


def test_the_bound_is_below_the_evidence() -> None:
    """Of a model whose likelihood is over binary rows, log p(x) is the sum over all codes."""
    spec = Spec((3,), "binary")
    with rng.forked("cpu", 0, "weights"):
        model: Model = registry.build("vq-vae", spec, codes=2, net="linear", **SMALL).double().eval()
        for p in model.pk.parameters():
            nn.init.normal_(p, std=0.5)
    x = torch.tensor([[0.0, 1, 1], [1, 0, 0]]).double()
    codes = torch.cartesian_prod(*2 * [torch.arange(6)])
    with torch.no_grad():
        log_k = model.pk().log_prob(codes)
        log_x = torch.stack([model.observation(codes, None).log_prob(row.expand(36, -1)) for row in x])
        evidence = (log_x + log_k).logsumexp(1)
        reached = model.log_prob(x)
        own = [int((codes == k).all(1).nonzero()) for k in model.encode(x)]
    assert (reached < evidence).all()
    assert torch.allclose(reached, torch.stack([(log_x + log_k)[i, j] for i, j in enumerate(own)]), atol=1e-12)
    assert torch.allclose(model.score(x), -reached)


def test_the_objective_is_distortion_and_commitment() -> None:
    model = fresh("vq-vae", pictures(), **SMALL, commitment=0.5).eval()
    batch = pictures().train.batch(slice(0, 8))
    terms = model.reconstruction(batch, Clock())
    codes = model.encode(batch)
    distance = (model.vectors(batch) - model.quantiser.vectors[codes]).square().sum((1, 2))
    distortion = model.bound(batch).distortions["x"]
    assert torch.allclose(terms.loss, (distortion + 0.5 * distance).mean())
    assert torch.allclose(terms.parts["commitment"], distance) and torch.allclose(terms.parts["distortion"], distortion)


@pytest.mark.parametrize("name", ["vq-vae", "fsq-vae"])
def test_a_line_between_codes_ends_in_them(name: str) -> None:
    data = pictures()
    model = fresh(name, data, **SMALL).eval()
    a, b = (data.train.batch(s) for s in (slice(0, 3), slice(3, 6)))
    with torch.no_grad():
        last = model.encoder.module.head[-1]
        last.weight *= 50  # so that codes differ before any training
        last.bias -= model.vectors(a).mean((0, 1))
        assert not torch.equal(model.encode(a), model.encode(b))
        way = model.interpolate(a, b, 5)
        ends = torch.stack([model.reconstruct(a), model.reconstruct(b)], 1)
    assert not torch.allclose(ends[:, 0], ends[:, 1], atol=1e-4)
    assert torch.allclose(way[:, [0, -1]], ends, atol=1e-6)


@pytest.mark.parametrize(
    ("shape", "codes", "size"),
    [
        ((1, 28, 28), None, (4, 4)),
        ((1, 28, 28), 49, (7, 7)),
        ((3, 32, 32), None, (8, 8)),
        ((1, 28, 28), 200, (14, 14)),
        ((1, 28, 28), 5, (2, 2)),
        ((1, 28, 28), 1, (1, 1)),
        ((1, 8, 8), None, (2, 2)),
        ((1, 9, 7), None, (2, 1)),
        ((1, 9, 7), 20, (5, 4)),
    ],
)
def test_the_map_is_the_largest_that_is_allowed(
    shape: tuple[int, ...], codes: int | None, size: tuple[int, ...]
) -> None:
    made = CodeMap(Conv(width=4), shape, codes, 3)
    n = math.prod(size) * 3
    assert made.size == size
    assert made.encoder(shape, n)(torch.zeros(2, *shape)).shape == (2, n)
    assert made.decoder(n, shape)(torch.zeros(2, n)).shape == (2, *shape)


def test_other_families_make_a_map_or_a_row() -> None:
    assert CodeMap(ViT(width=8, depth=1, heads=2), (1, 28, 28), None, 3).size == (4, 4)
    assert CodeMap(MLP(widths=(8,)), (1, 28, 28), None, 3).size == (8,)
    assert CodeMap(MLP(widths=(8,)), (5,), 3, 3).size == (3,)


def test_a_code_on_a_map_is_of_a_place() -> None:
    """Changing the lower right corner of a picture moves the vector there, and none at the upper left."""
    net = CodeMap(Conv(width=4), (1, 64, 64), 256, 3)
    encoder = net.encoder((1, 64, 64), 16 * 16 * 3)
    x = torch.zeros(1, 1, 64, 64)
    changed = x.clone()
    changed[..., 60:, 60:] = 1
    moved = (encoder(changed) - encoder(x)).view(16, 16, 3).abs().sum(-1).detach()
    assert net.size == (16, 16) and float(moved[15, 15]) > 0 and float(moved[:8, :8].max()) == 0


def test_an_update_moves_the_codebook_and_nothing_else_does() -> None:
    data = pictures()
    batch = data.train.batch(slice(0, 16))
    model = fresh("vq-vae", data, **SMALL)
    before = model.quantiser.vectors.clone()
    model.train().encode(batch)
    model.bound(batch)
    model.eval().reconstruction(batch, Clock())
    model.train().reconstruction(batch, Clock())
    assert torch.equal(model.quantiser.vectors, before)
    stepper = Stepper(model, model.stages()[0], Training(device="cpu"))
    stepper.train()
    stepper(batch, Clock(), 1.0)
    assert not torch.equal(model.quantiser.vectors, before)


def test_an_update_that_is_not_finite_leaves_the_codebook_as_it_was() -> None:
    data = pictures()
    model = fresh("vq-vae", data, **SMALL)
    stepper = Stepper(model, model.stages()[0], Training(device="cpu"))
    stepper.train()
    stepper(data.train.batch(slice(0, 16)), Clock(), 1.0)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    bad = data.train.batch(slice(16, 32))
    stepper(Batch(torch.where(torch.arange(16).view(-1, 1, 1, 1) == 3, math.nan, bad.x)), Clock(1), 1.0)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_the_prior_starts_from_the_best_codes_and_leaves_them_to_the_bit(tmp_path: Path) -> None:
    data = pictures(64)
    model = fresh("vq-vae", data, **SMALL, decay=0.5, net={"name": "conv", "width": 4, "norm": "batch"})
    later = {"epochs": 2, "lr": 0.01, "early_stopping": 0}
    options = {"epochs": 20, "batch_size": 16, "lr": 0.1, "keep": 20, "early_stopping": 1, "stage": {"prior": later}}
    loop, run = make_loop(model, data, tmp_path / "run", **options)
    loop.fit()
    measured = {r["step"]: r["value"] for r in run.metrics() if r["term"] == "objective" and r["stage"] == "codes"}
    best = min(measured, key=lambda step: measured[step])
    assert best != max(measured), "the last epoch is the best: this run shows nothing"
    kept = run.read_checkpoint(best).tensors["model"]
    own = {k: v for k, v in model.state_dict().items() if not k.startswith("pk.")}
    assert own.keys() >= {"quantiser.vectors", "quantiser.counts"}
    assert all(torch.equal(v, kept[k]) for k, v in own.items())
    assert not torch.equal(model.pk.head.weight, kept["pk.head.weight"])


def test_a_prior_of_a_picture_condition() -> None:
    """The grey copy conditions prior and decoder; encode needs it not."""
    grey = Spec((1, 8, 8), "unit")
    with rng.forked("cpu", 0, "weights"):
        model = registry.build("vq-vae", Spec((3, 8, 8), "unit", given={"grey": grey}), condition="grey", **SMALL)
    x = torch.rand(4, 3, 8, 8)
    given = Batch(None, given={"grey": x.mean(1, keepdim=True)})  # type: ignore[arg-type]
    assert model.eval().sample(4, given).shape == x.shape and model.encode(x).shape == (4, 4)
    with pytest.raises(ConfigError, match="grey"):
        model.sample(4)


@pytest.mark.parametrize("name", ["vq-vae", "fsq-vae", "rq-vae", "vq-vae-2", "categorical-vae"])
def test_a_walk_between_codes_changes_them_by_and_by(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is decoded at the inner steps are the codes at these fractions of the way, not those of an end."""
    options = {"latent_dim": 9} if name == "categorical-vae" else SMALL
    model, drawn = registry.build(name, Spec((1, 8, 8), "unit"), **options).eval(), []
    start, end = (torch.cat([torch.full((2, k.size), i * (k.levels - 1)) for k in model.latents], 1) for i in (0, 1))
    ends = iter((start, end))
    monkeypatch.setattr(model, "encode", lambda batch: next(ends))
    decode = model.decode
    monkeypatch.setattr(model, "decode", lambda z, given: decode(drawn.append(z) or z, given))
    model.interpolate(torch.zeros(2, 1, 8, 8), torch.zeros(2, 1, 8, 8), 11)
    way = model.between(start, end, torch.linspace(0, 1, 11)[None, :, None])
    assert drawn[0].dtype == torch.int64 and torch.equal(drawn[0].view(2, 11, -1), way)
    assert bool((way[:, 1:-1] != way[:, :1]).any()), "only the ends differ"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"quantiser": "vector"}, "ema, fsq, lfq, residual"),
        ({"codes": 0}, "codes >= 1"),
        ({"levels": [5, 5]}, "'ema' has no option 'levels'"),
        ({"quantiser": "fsq", "levels": [5, 1]}, "from 2 on"),
        ({"quantiser": {"name": "fsq", "levels": [4.7, 3]}}, "from 2 on"),
        ({"quantiser": {"name": "fsq", "levels": [5000, 5000]}}, "25,000,000 codes; at most"),
        ({"quantiser": None}, "not a NoneType"),
        ({"quantiser": 3}, "not an int"),
        ({"commitment": -1.0}, "commitment"),
        ({"decay": 1.0}, "decay"),
        ({"revive": 1.0}, "revive"),
        ({"codebook_size": 1}, "codebook_size"),
        ({"prior_heads": 3}, "prior_heads"),
        ({"prior_dropout": 1.0}, "prior_dropout"),
        ({"prior_depth": 0}, "prior_depth"),
    ],
)
def test_options_that_make_no_sense_are_refused_in_a_line(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        registry.build("vq-vae", Spec((1, 8, 8), "unit"), **options)
    assert "\n" not in str(caught.value)
