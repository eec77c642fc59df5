"""What classes are to codes (probes, clusters) and how straight the ways between examples are: known answers."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
from torch import Tensor

from helpers import fresh, rows
from sandglass import registry
from sandglass.core import Batch, Latent, Model, Phase, Spec
from sandglass.data.dataset import Split
from sandglass.errors import ConfigError, DataError
from sandglass.metrics import _subset
from sandglass.metrics._information import contingency
from sandglass.metrics._linear import Linear
from sandglass.metrics.clustering import accuracy, adjusted_rand, normalised_information
from sandglass.metrics.measure import measure
from sandglass.metrics.probe import linear, nearest
from sandglass.runs.result import Result


class Through(Model):
    """A code and a way between examples that are handed over."""

    provides = ("encode", "interpolate")

    def __init__(self, encode: Callable[[Tensor], Tensor] = lambda x: x, dim: int = 2, way: Any = None) -> None:
        super().__init__()
        self.spec, self.f, self.way = Spec((dim,)), encode, way
        self.latents = (Latent("z", (dim,)),)
        self.weight = torch.nn.Parameter(torch.zeros(1).double())

    def phases(self) -> Sequence[Phase]:
        return ()

    def encode(self, batch: Batch) -> Tensor:
        return self.f(batch.x)

    def interpolate(self, a: Batch, b: Batch, steps: int = 8) -> Tensor:
        """``way`` of times ``(steps, 1)`` in [0, 1], the same for every pair."""
        t = torch.linspace(0, 1, steps, dtype=a.x.dtype)[:, None]
        return self.way(t)[None].expand(len(a), -1, -1)

    def sample(self, n: int, given: Batch | None = None, *, noise: bool = False) -> Tensor:
        return torch.zeros(n, *self.spec.shape)


def draws(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def blobs(n: int, away: float, classes: int = 3, seed: int = 0) -> Split:
    y = torch.arange(n) % classes
    centres = away * torch.tensor([[math.cos(2 * math.pi * k / classes), math.sin(2 * math.pi * k / classes)]
                                   for k in range(classes)]).double()  # fmt: skip
    return Split(centres[y] + draws(n, 2, seed=seed), y)


def probed(model: Model, train: Split, test: Split, **options: Any) -> dict[str, Result]:
    return {r.name: r for r in measure(model, test, names=["probe"], train=train, **options)}


def test_neighbours_are_those_of_all_distances() -> None:
    train, test = blobs(200, 1.0), blobs(70, 1.0, seed=1)
    assert isinstance(train.x, Tensor) and isinstance(test.x, Tensor) and train.y is not None
    five = torch.cdist(test.x, train.x).topk(5, largest=False).indices
    votes = torch.nn.functional.one_hot(train.y[five], 3).sum(1)
    told, _ = nearest(train.x.numpy(), train.y.numpy(), test.x.numpy(), 3)
    assert told.tolist() == votes.argmax(1).tolist()


def test_the_linear_probe_is_at_the_optimum_of_its_loss() -> None:
    train = blobs(90, 1.0)
    assert isinstance(train.x, Tensor) and train.y is not None
    probe = Linear(train.x.numpy(), train.y.numpy(), 3)
    x = (train.x - train.x.mean(0)) / train.x.std(0, unbiased=False)
    w = torch.tensor(probe.model.coef_, requires_grad=True)
    b = torch.tensor(probe.model.intercept_, requires_grad=True)
    loss = torch.nn.functional.cross_entropy(x @ w.T + b, train.y, reduction="sum") + w.square().sum() / 2
    loss.backward()
    assert probe.converged and max(float(g.abs().max()) for g in (w.grad, b.grad) if g is not None) < 0.01
    expected = (x @ w.T + b).softmax(1).detach()
    assert probe.probabilities(train.x.numpy()) == pytest.approx(expected.numpy(), abs=1e-9)


def test_a_probe_of_the_identity_is_the_probe_of_the_inputs() -> None:
    train, test = blobs(300, 2.0), blobs(300, 2.0, seed=1)
    found = probed(Through(), train, test)
    for result in found.values():
        assert f"on the inputs {result.value:.3f}; majority class 0.333" in result.note and result.n == 300
        share = (300 * result.value + 2) / 304
        assert result.stderr == pytest.approx(math.sqrt(share * (1 - share) / 304), rel=1e-9)
        assert 0.8 < result.value < 1
    told, _ = linear(train.x.numpy(), train.y.numpy(), test.x.numpy(), 3)  # type: ignore[union-attr]
    assert found["probe_linear"].value == np.mean(told == test.y.numpy())  # type: ignore[union-attr]


def test_codes_that_forget_are_at_chance_and_codes_that_know_are_right() -> None:
    train, test = blobs(300, 9.0), blobs(300, 9.0, seed=1)
    forget = probed(Through(lambda x: torch.zeros_like(x)), train, test)
    assert forget["probe_linear"].value == pytest.approx(1 / 3) and forget["probe_knn"].value == pytest.approx(1 / 3)
    assert all("on the inputs 1.000" in r.note for r in forget.values())
    narrow = probed(Through(lambda x: x * torch.tensor([1, 1e-3])), train, test)
    assert narrow["probe_linear"].value == 1.0, "standardised"
    assert narrow["probe_knn"].value < 0.9, "distances are of the codes as they are"


def test_a_probe_says_what_it_was_fitted_to(monkeypatch: pytest.MonkeyPatch) -> None:
    train, test = blobs(60, 2.0), blobs(30, 2.0, seed=1)
    assert "fitted to 60 training examples" in probed(Through(), train, test)["probe_knn"].note
    assert "tested on the same" in probed(Through(), train, train)["probe_knn"].note
    mostly = dataclasses.replace(train, y=(torch.arange(60) % 5 > 0).long())
    uneven = dataclasses.replace(test, y=(torch.arange(30) % 10 > 0).long())
    assert "majority class 0.900" in probed(Through(), mostly, uneven)["probe_knn"].note
    monkeypatch.setattr(_subset, "MOST", 20)
    some = probed(Through(), train, test)["probe_knn"]
    assert "fitted to 20 of 60 training examples" in some.note and some.n == 20
    assert "; few examples: a class has " in some.note
    one = dataclasses.replace(train, y=torch.zeros(60).long())
    for bad in (one, dataclasses.replace(train, y=None)):
        with pytest.raises(DataError, match="'probe' needs training examples of at least two classes"):
            probed(Through(), bad, test)


def test_agreement_of_partitions_is_that_of_scikit_learn() -> None:
    generator = np.random.default_rng(0)
    for _ in range(5):
        y = generator.integers(0, 4, 100)
        clusters = np.where(generator.random(100) < 0.4, (y + 1) % 4, generator.integers(0, 4, 100))
        table = contingency(clusters, y, (4, 4))
        assert normalised_information(table) == pytest.approx(normalized_mutual_info_score(y, clusters), abs=1e-12)
        assert adjusted_rand(table) == pytest.approx(adjusted_rand_score(y, clusters), abs=1e-12)
        every = (np.mean([given[c] for c in clusters] == y) for given in itertools.permutations(range(4)))
        assert accuracy(table) == pytest.approx(max(every), abs=1e-12)
    assert adjusted_rand(np.array([[0, 0], [1, 4]])) == 0.0 and normalised_information(np.array([[3, 0], [0, 0]])) == 1


def test_clusters_that_are_the_classes_and_clusters_that_are_none() -> None:
    apart = measure(Through(), blobs(300, 20.0), names=["clustering"])
    assert [r.name for r in apart] == ["cluster_accuracy", "cluster_nmi", "cluster_ari"]
    for result in apart:
        assert result.value == pytest.approx(1, abs=1e-12) and result.stderr == pytest.approx(0, abs=1e-12)
        assert result.note == "on the inputs 1.000; k-means with k = 3, the best of 10 starts"
    blind = measure(Through(lambda x: torch.zeros_like(x)), blobs(300, 20.0), names=["clustering"])
    assert [r.value for r in blind] == pytest.approx([1 / 3, 0, 0], abs=1e-12)
    assert all(r.note.startswith("on the inputs 1.000;") for r in blind)
    random = {r.name: r for r in measure(Through(), blobs(3000, 0.0), names=["clustering"])}
    assert abs(random["cluster_ari"].value) < 0.005 and random["cluster_nmi"].value < 0.005
    assert random["cluster_accuracy"].value < 0.38 and random["cluster_accuracy"].n == 3000


def test_names_of_classes_and_their_gaps_do_not_matter_to_clusters() -> None:
    split = blobs(300, 2.0)
    assert split.y is not None
    other = dataclasses.replace(split, y=torch.tensor([7, 2, 4])[split.y])
    plain, renamed = (measure(Through(), s, names=["clustering"]) for s in (split, other))
    assert [r.value for r in renamed] == pytest.approx([r.value for r in plain], abs=1e-12)
    assert 0.5 < plain[0].value < 1


def test_clusters_of_a_large_split_are_of_some_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_subset, "MOST", 100)
    result = measure(Through(), blobs(300, 20.0), names=["cluster_nmi"])[0]
    assert result.n == 100 and result.note.endswith("of 300 examples")
    assert measure(Through(), blobs(40, 20.0), names=["cluster_nmi"])[0].note.endswith("few examples: a class has 13")
    with pytest.raises(DataError, match="at least two classes"):
        measure(Through(), Split(draws(30, 2), torch.ones(30).long()), names=["clustering"])
    with pytest.raises(ConfigError, match="starts >= 1"):
        measure(Through(), blobs(30, 2.0), names=["clustering"], clustering={"starts": 0})


def test_examples_without_a_label_are_neither_fitted_nor_tested_nor_clustered() -> None:
    known = torch.arange(90) % 3 > 0
    all_of_them = [blobs(90, 2.0, 4, seed) for seed in (0, 1)]
    few = [dataclasses.replace(s, y=s.y.where(known, -1)) for s in all_of_them]  # type: ignore[union-attr]
    own = [s.take(known.nonzero()[:, 0]) for s in all_of_them]
    for name, note in (("probe", "fitted to 60"), ("clustering", "k-means with k = 4")):
        some, same = (measure(Through(), test, names=[name], train=train) for train, test in (few, own))
        assert [(r.value, r.stderr, r.n) for r in some] == [(r.value, r.stderr, r.n) for r in same]
        assert all(note in r.note and r.n == 60 for r in some)
    assert "60 labelled training" not in some[0].note
    none = dataclasses.replace(few[1], y=torch.full((90,), -1))
    for name in ("probe", "clustering"):
        with pytest.raises(DataError, match="needs"):
            measure(Through(), none, names=[name], train=few[0])


@pytest.mark.parametrize("name", ["m2", "m1-m2", "joint-vae"])
def test_a_label_does_not_get_into_the_codes_that_are_compared_with_it(name: str) -> None:
    """An untrained model of labels and of noise knows nothing of them, whether or not its examples have labels."""
    train, test = (Split(draws(200, 3, seed=seed).float(), torch.arange(200) % 4) for seed in (0, 1))
    data = dataclasses.replace(rows(train.x), spec=Spec((3,), classes=4))
    model = fresh(name, data, latent_dim=2, net="mlp")
    found = measure(model, test, names=["probe", "cluster_accuracy"], train=train)
    assert len(found) == 3 and all(r.value < 0.5 for r in found), [(r.name, r.value) for r in found]


def smooth(model: Model, n: int = 20, **options: int) -> tuple[float, float, str]:
    length, energy = measure(model, Split(draws(n, model.spec.size)), names=["smoothness"], smoothness=options)
    assert (length.name, energy.name) == ("path_length", "path_energy")
    return length.value, energy.value, length.note


def test_a_linear_model_goes_straight() -> None:
    options = {"net": "linear", "likelihood": {"name": "gaussian", "learn": "none"}, "latent_dim": 2}
    model = registry.build("ae", Spec((5,)), **options).double()
    found = measure(model, Split(draws(50, 5)), names=["smoothness"])
    assert [r.value for r in found] == pytest.approx([1, 1], abs=1e-12)
    assert [r.stderr for r in found] == pytest.approx([0, 0], abs=1e-12) and [r.n for r in found] == [500, 500]


@pytest.mark.parametrize("steps", [2, 7, 64])
def test_ways_of_known_length_and_energy(steps: int) -> None:
    # A quarter of a circle at even speed, as a polygon; and a straight way at the speed of t^2.
    circle = Through(way=lambda t: torch.cat([(t * math.pi / 2).cos(), (t * math.pi / 2).sin()], 1))
    side = 2 * math.sin(math.pi / 4 / steps)
    length, energy, _ = smooth(circle, steps=steps)
    assert length == pytest.approx(steps * side / math.sqrt(2), rel=1e-12)
    assert energy == pytest.approx((steps * side) ** 2 / 2, rel=1e-12)
    uneven = Through(way=lambda t: t.square() * torch.tensor([3.0, -4.0]))
    length, energy, note = smooth(uneven, steps=steps)
    assert length == pytest.approx(1, rel=1e-12) and f"{steps} steps each" in note
    assert note.endswith("few examples: pairs drawn from 20") and "few" not in smooth(uneven, n=100, steps=steps)[2]
    assert energy == pytest.approx((4 * steps**2 - 1) / (3 * steps**2), rel=1e-12)


def test_the_scale_of_the_data_does_not_matter_to_the_way() -> None:
    model = fresh("ae", rows(draws(40, 6).float()), net={"name": "mlp", "widths": [16]})
    found = []
    for scale in (1.0, 4.0):
        walk = model.interpolate
        scaled = Through(dim=6)
        scaled.interpolate = lambda a, b, n, walk=walk, s=scale: s * walk(a.x.float(), b.x.float(), n)  # type: ignore
        found.append(smooth(scaled))
    assert found[0] == found[1] and 1 < found[0][0] < found[0][1]


def test_smoothness_of_a_constant_decoder_is_undefined() -> None:
    still = Through(way=lambda t: torch.ones(len(t), 2))
    length, energy, note = smooth(still)
    assert (length, energy) == (1, 1) and note.startswith("undefined: all reconstructions are identical")


def test_ways_are_between_different_examples_and_need_two() -> None:
    seen: list[Tensor] = []

    class Asked(Through):
        def interpolate(self, a: Batch, b: Batch, steps: int = 8) -> Tensor:
            seen.extend([a.x, b.x])
            return torch.linspace(0, 1, steps, dtype=a.x.dtype)[None, :, None] * (b.x - a.x)[:, None]

    smooth(Asked(), n=3, pairs=300)
    a, b = seen
    assert len(a) == 300 and not (a == b).all(1).any() and len(torch.cat([a, b], 1).unique(dim=0)) == 6
    with pytest.raises(DataError, match="at least 2 examples"):
        smooth(Asked(), n=1)
    for options in ({"pairs": 1}, {"steps": 1}):
        with pytest.raises(ConfigError, match="smoothness needs pairs >= 2 and steps >= 2"):
            smooth(Asked(), **options)


def test_pieces_of_the_pairs_join(monkeypatch: pytest.MonkeyPatch) -> None:
    model = fresh("ae", rows(draws(40, 6).float()), net={"name": "mlp", "widths": [16]})
    whole = measure(model, Split(draws(40, 6).float()), names=["smoothness"])
    monkeypatch.setattr("sandglass.metrics.smoothness._FRAMES", 1000)
    pieces = measure(model, Split(draws(40, 6).float()), names=["smoothness"])
    assert [r.value for r in pieces] == pytest.approx([r.value for r in whole], rel=1e-6)
