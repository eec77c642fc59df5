"""Measures of samples against closed forms, other people's figures, and sets made by hand."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from helpers import Draws
from sandglass import registry
from sandglass.core import Model, Spec
from sandglass.data.dataset import Split
from sandglass.errors import ConfigError, DataError
from sandglass.metrics import fid, inception_score, kid, prdc
from sandglass.metrics.measure import measure
from sandglass.metrics.samples import squared_distances
from sandglass.runs.result import Result


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def figures(model: Model, x: Tensor, *names: str, **given: Any) -> dict[str, Result]:
    return {r.name: r for r in measure(model, Split(x), names=names, **given)}


# other people's figures, on the same features

A, B = (
    np.random.default_rng(20).standard_normal((600, 8)).reshape(2, 300, 8)  # one stream, as the script draws it
)
B = 0.3 + 1.2 * B @ (np.eye(8) + 0.1)


def test_torch_fidelity_gives_the_same() -> None:
    """torch-fidelity 0.4.0 on A (real) and B: fid_statistics_to_metric; kernel_mmd of degree 3, gamma 1/8, coef0 1;
    prc_features_to_metric with prc_neighborhood=3. Its isc_features_to_metric, ten parts unshuffled, on 2 L."""
    a, b = torch.from_numpy(A), torch.from_numpy(B)
    assert fid.frechet(*fid.moments(b), *fid.moments(a)) == pytest.approx(2.5807121090961473, rel=1e-9)
    assert float(kid.kernel_distance(b, a)) == pytest.approx(1.3606174128441566, rel=1e-9)
    precision, recall, _, _ = prdc.neighbours(a, b, 3)
    assert float(precision.mean()) == pytest.approx(0.49, abs=1e-7)
    assert float(recall.mean()) == pytest.approx(0.9566666483879089, abs=1e-7)
    stream = np.random.default_rng(20)
    stream.standard_normal((600, 8))
    scores = inception_score.scores((2 * torch.from_numpy(stream.standard_normal((300, 8)))).log_softmax(1))
    assert float(scores.mean()) == pytest.approx(2.337278070505769, rel=1e-9)
    assert float(scores.std(correction=0)) == pytest.approx(0.1473441312082344, rel=1e-6)


# the Fréchet distance


def test_frechet_of_normals_is_the_closed_form() -> None:
    generator = torch.Generator().manual_seed(0)
    for dim in (1, 3, 10):
        # Covariances that commute: the distance is over standard deviations along shared axes.
        axes = torch.linalg.qr(torch.randn(dim, dim, generator=generator, dtype=torch.float64))[0]
        s, t, shift = torch.rand(3, dim, generator=generator, dtype=torch.float64)
        one, other = ((axes * d**2) @ axes.T for d in (s, t))
        expected = float(shift.square().sum() + (s - t).square().sum())
        assert fid.frechet(torch.zeros(dim).double(), one, shift, other) == pytest.approx(expected, rel=1e-10)
        # Covariances that do not: against the square root of the product that the paper writes.
        mixed = torch.randn(dim, dim, generator=generator, dtype=torch.float64)
        other = mixed @ mixed.T
        root = torch.linalg.eigvals(one @ other).sqrt().sum().real
        expected = float(one.trace() + other.trace() - 2 * root)
        zero = torch.zeros(dim).double()
        assert fid.frechet(zero, one, zero, other) == pytest.approx(expected, rel=1e-9)
        assert fid.frechet(zero, other, zero, one) == pytest.approx(expected, rel=1e-9)


def test_frechet_of_singular_covariances() -> None:
    flat = torch.diag(torch.tensor([4.0, 0.0, 0.0])).double()
    zero = torch.zeros(3).double()
    assert fid.frechet(zero, flat, zero, flat) == pytest.approx(0, abs=1e-12)
    assert fid.frechet(zero, flat, zero, torch.eye(3).double()) == pytest.approx(3, abs=1e-12)


def test_moments_are_numpy_s() -> None:
    mean, covariance = fid.moments(torch.from_numpy(A))
    assert np.allclose(mean, A.mean(0)) and np.allclose(covariance, np.cov(A, rowvar=False), atol=1e-14)


def test_the_limit_has_no_bias_and_its_error_covers() -> None:
    """100 pairs of sets of 200 in 10 dimensions whose distance is 10 * (1.2 - 1)^2 + 1: the plain distance is too high
    by many standard errors, the mean of the limits is right within 4 of its own, which fails once in 16,000 streams,
    and their stated errors are those that they have, within a third."""
    truth = 10 * 0.2**2 + 1
    plain, limit, errors = [], [], []
    for seed in range(100):
        x = normal(400, 10, seed=seed)
        y = 1.2 * x[200:] + torch.eye(10).double()[0]
        value, without_bias, error = fid.jackknife(x[:200], y)
        assert error is not None
        plain.append(value), limit.append(without_bias), errors.append(error)
    spread = np.std(limit, ddof=1)
    assert np.mean(plain) - truth > 5 * np.std(plain, ddof=1) / 10
    assert abs(np.mean(limit) - truth) < 4 * spread / 10
    assert np.mean(errors) == pytest.approx(spread, rel=1 / 3)


def test_equal_sets_are_no_distance_apart() -> None:
    x = normal(300, 6, seed=1)
    assert fid.frechet(*fid.moments(x), *fid.moments(x)) == pytest.approx(0, abs=1e-10)


def test_fid_of_a_model_in_closed_form_and_its_notes() -> None:
    def draw(n: int) -> Tensor:
        return 3 + 2 * torch.randn(n, 2)

    x = normal(5000, 2, seed=0).float()
    found = figures(Draws(Spec((2,)), draw), x, "fid", "fid_infinity", train=Split(normal(5000, 2, seed=1).float()))
    truth = 2 * 9 + 2 * 1
    for name in ("fid", "fid_infinity"):
        assert abs(found[name].value - truth) < 4 * found[name].stderr and found[name].n == 5000
    assert "raw values; training examples get 0.00" in found["fid"].note
    assert "biased" not in found["fid"].note
    few = figures(Draws(Spec((2,)), draw), x[:30], "fid")
    assert "biased upward, 30 are few for 2 features" in few["fid"].note
    wide = normal(20, 40, seed=0).float()
    singular = figures(Draws(Spec((40,)), lambda n: torch.randn(n, 40)), wide, "fid", "fid_infinity")
    assert singular["fid"].note.endswith(": singular") and "unreliable" in singular["fid_infinity"].note


# the kernel distance


def test_the_kernel_distance_of_one_distribution_is_zero() -> None:
    """200 pairs: the mean is 0 within 4 standard errors (once in 16,000 streams), and so is the mean of the figures as
    they are given; 95 % of these stay within the 2.26 standard errors of a t-test with 9 degrees of freedom, give or
    take 4 binomial deviations."""
    whole, scores = [], []
    for seed in range(200):
        x, y = normal(200, 4, seed=seed).split(100)
        whole.append(float(kid.kernel_distance(x, y)))
        values = kid.by_blocks(x, y)
        assert len(values) == 10
        scores.append(float(values.mean() / (values.std() / 10**0.5)))
    assert abs(np.mean(whole)) < 4 * np.std(whole) / 200**0.5
    assert abs(np.mean(np.abs(scores) < 2.26) - 0.95) < 4 * (0.95 * 0.05 / 200) ** 0.5


def test_blocks_share_no_example_and_use_all() -> None:
    x = torch.arange(2500).double()[:, None] / 1e3
    values = kid.by_blocks(x, x + 1)
    assert len(values) == 10
    assert torch.allclose(values[3], kid.kernel_distance(x[750:1000], x[750:1000] + 1))
    assert len(kid.by_blocks(x.repeat(5, 1), x.repeat(5, 1))) == 13


def test_kid_of_a_model_finds_a_shift() -> None:
    x = normal(1000, 3, seed=0).float()
    same, shifted = (
        figures(Draws(Spec((3,)), lambda n, by=by: by + torch.randn(n, 3)), x, "kid")["kid"] for by in (0.0, 0.5)
    )
    assert abs(same.value) < 5 * same.stderr and shifted.value > 5 * shifted.stderr


# precision, recall, density, coverage


def naive(real: Tensor, fake: Tensor, k: int) -> tuple[float, float, float, float]:
    """The definitions, word by word."""

    def reach(points: Tensor, i: int) -> float:
        return sorted(float((points[i] - points[j]).norm()) for j in range(len(points)) if j != i)[k - 1]

    of_real, of_fake = ([reach(p, i) for i in range(len(p))] for p in (real, fake))
    d = [[float((x - y).norm()) for y in fake] for x in real]
    n, m = len(real), len(fake)
    precision = sum(any(d[i][j] <= of_real[i] for i in range(n)) for j in range(m)) / m
    recall = sum(any(d[i][j] <= of_fake[j] for j in range(m)) for i in range(n)) / n
    density = sum(d[i][j] <= of_real[i] for i in range(n) for j in range(m)) / (k * m)
    coverage = sum(min(d[i]) <= of_real[i] for i in range(n)) / n
    return precision, recall, density, coverage


def means(real: Tensor, fake: Tensor, k: int) -> list[float]:
    return [float(v.mean()) for v in prdc.neighbours(real, fake, k)]


@pytest.mark.parametrize(("n", "m", "k"), [(40, 40, 1), (40, 25, 3), (30, 50, 5)])
def test_neighbours_are_the_definitions(n: int, m: int, k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prdc, "_ROWS", 7)  # so that the table comes in pieces
    real, fake = normal(n, 3, seed=n), 0.5 + 0.8 * normal(m, 3, seed=m + 1)
    assert means(real, fake, k) == pytest.approx(naive(real, fake, k), abs=1e-12)


def test_sets_made_by_hand() -> None:
    real = normal(60, 2, seed=0)
    assert means(real, real, 3)[:2] == [1, 1] and means(real, real, 3)[3] == 1
    assert means(real, real + 1000, 3) == [0, 0, 0, 0]
    two = torch.cat([real, real + 100])
    dropped = means(two, torch.cat([real, real + 1e-3]), 3)  # one of two modes is never drawn
    assert dropped[0] == 1 and dropped[1] == 0.5 and dropped[3] == 0.5
    # One outlier among the samples spoils recall, for its ball holds everything, and not coverage (Naeem et al., 3.1).
    half = torch.cat([real[:30], real[:29] + 1e-3, torch.full((1, 2), 50.0).double()])
    far = torch.cat([real[:30], real[30:] + 40])
    assert means(far, half, 3)[1] == 1 and means(far, half, 3)[3] < 0.6
    collapsed = means(real, real[:1].repeat(60, 1), 3)
    assert collapsed[0] == 1 and collapsed[1] == pytest.approx(1 / 60) and collapsed[3] < 0.2


def test_density_and_coverage_of_one_distribution_are_known() -> None:
    """300 pairs: density is 1 and coverage as in the formula, whatever the distribution, within 4 standard errors."""
    assert prdc.expected_coverage(2, 1, 1) == 0.5, "the other example is nearer than the sample, or it is not"
    assert prdc.expected_coverage(3, 1, 2) == pytest.approx(1 - 2 / 3 * 1 / 2)
    for k, n, m in ((1, 20, 20), (3, 30, 15), (5, 20, 60)):
        found = np.array([means(*normal(n + m, 2, seed=s).exp().split([n, m]), k) for s in range(300)])
        for column, truth in ((2, 1.0), (3, prdc.expected_coverage(n, m, k))):
            values = found[:, column]
            assert abs(values.mean() - truth) < 4 * values.std() / 300**0.5, (k, column)


def test_prdc_of_a_model_says_what_real_data_gets() -> None:
    x, train = (Split(normal(500, 2, seed=s).float()) for s in (0, 1))
    model = Draws(Spec((2,)), lambda n: torch.randn(n, 2).clamp(max=0))
    found = {r.name: r for r in measure(model, x, names=["prdc"], train=train)}
    assert found["recall"].value < 0.6 < found["precision"].value
    assert "500 are few" in found["precision"].note and "k=5" in found["precision"].note
    assert "0.969 at best; training examples get 0.9" in found["coverage"].note
    assert [found[n].n for n in ("precision", "recall")] == [500, 500]
    more = {r.name: r for r in measure(model, x, names=["prdc"], train=train, prdc={"k": 1, "samples": 100})}
    assert more["precision"].n == 100 and "k=1" in more["precision"].note


def test_distances_of_equal_points_are_zero() -> None:
    x = 1e6 + normal(50, 30, seed=0)
    assert (squared_distances(x, x).diagonal() == 0).all()
    y = normal(40, 30, seed=1)
    assert torch.allclose(squared_distances(y, y - 2), torch.cdist(y, y - 2) ** 2, atol=1e-9)


# the Inception score


def test_the_score_is_between_one_and_the_classes() -> None:
    n, k = 1000, 4
    labels = torch.arange(n) % k
    sure = torch.nn.functional.one_hot(labels, k).double().log()
    assert inception_score.scores(sure).tolist() == pytest.approx([4] * 10)
    assert inception_score.scores(sure[:1].expand(n, k)).tolist() == pytest.approx([1] * 10), "one class alone"
    p = torch.tensor([0.7, 0.1, 0.1, 0.1]).double()
    unsure = torch.stack([p.roll(int(i)) for i in labels]).log()
    expected = math.exp(math.log(4) - float(torch.special.entr(p).sum()))
    assert inception_score.scores(unsure).tolist() == pytest.approx([expected] * 10)


def test_it_needs_a_classifier() -> None:
    model = Draws(Spec((2,)), lambda n: torch.randn(n, 2))
    with pytest.raises(DataError, match="needs a classifier"):
        measure(model, Split(torch.randn(50, 2)), names=["inception_score"], inception_score={"features": "pixels"})


def test_it_is_over_the_classes_of_the_data() -> None:
    centres = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    y = torch.arange(600) % 3
    train = Split(centres[y] + normal(600, 2, seed=0).float(), y)
    split = Split(centres[y] + normal(600, 2, seed=1).float(), y)
    model = Draws(Spec((2,), classes=3), lambda n: centres[torch.randint(2, (n,))] + torch.randn(n, 2))
    options = {"features": {"name": "own", "updates": 60}}
    (found,) = measure(model, split, names=["inception_score"], train=train, inception_score=options)
    assert found.value == pytest.approx(2, abs=0.1), "two of three classes are ever drawn"
    assert "over 3 classes of the data" in found.note and "examples get 2.9" in found.note
    assert "with 100.0% held-out accuracy" in found.note


# what all of them share


def test_real_examples_come_in_random_order_and_all_of_them() -> None:
    """Files come class by class: blocks of neighbours would not be like each other."""
    x = torch.cat([torch.zeros(500, 1), torch.ones(500, 1)]) + 0.01 * normal(1000, 1, seed=0).float()
    model = Draws(Spec((1,)), lambda n: torch.bernoulli(torch.full((n, 1), 0.5)) + 0.01 * torch.randn(n, 1))
    found = figures(model, x, "kid", kid={"samples": 1000})["kid"]
    assert abs(found.value) < 5 * found.stderr and found.stderr < 0.05


def test_samples_are_drawn_once_with_noise_for_rows_alone() -> None:
    rows = Draws(Spec((3,)), lambda n: torch.randn(n, 3))
    measure(rows, Split(torch.randn(300, 3)), names=["fid", "prdc", "kid"])
    assert rows.asked == [(256, True)] * 2
    images = Draws(Spec((1, 4, 4), "unit"), lambda n: torch.rand(n, 1, 4, 4))
    measure(images, Split(torch.rand(300, 1, 4, 4)), names=["fid"], fid={"features": "random"})
    assert images.asked == [(256, False)] * 2
    large = Draws(Spec((3, 512, 512), "unit"), lambda n: torch.rand(n, 3, 8, 8).repeat(1, 1, 64, 64))
    pictures = Split(torch.zeros(5, 3, 512, 512, dtype=torch.uint8))
    measure(large, pictures, names=["fid"], fid={"features": {"name": "random", "size": 8}, "samples": 25})
    assert large.asked == [(21, False)] * 2, "no more than 2^24 numbers at once"


def test_figures_do_not_hang_on_what_else_is_measured() -> None:
    model = registry.build("gan", Spec((3,)), latent_dim=2)
    x = torch.randn(300, 3)
    alone = figures(model, x, "prdc")
    together = figures(model, x, "fid", "prdc", "kid")
    assert all(together[name] == result for name, result in alone.items())


def test_samples_that_are_not_finite_are_said_so() -> None:
    model = Draws(Spec((2,)), lambda n: torch.full((n, 2), math.nan))
    train = Split(torch.randn(200, 2))
    found = {r.name: r for r in measure(model, Split(torch.randn(150, 2)), train=train)}
    assert {"fid", "precision", "copies"} <= set(found)
    assert all(math.isnan(r.value) and "not finite" in r.note and r.to_dict()["value"] is None for r in found.values())


def test_what_is_taken_unasked() -> None:
    model = Draws(Spec((2,)), lambda n: torch.randn(n, 2))
    x = Split(torch.randn(120, 2))
    train = Split(torch.randn(200, 2))
    names = {r.name for r in measure(model, x, train=train)}
    assert {"fid", "precision", "recall", "density", "coverage", "copies"} <= names
    assert not {"kid", "inception_score", "modes"} & names
    assert "copies" not in {r.name for r in measure(model, x)}, "nothing to be a copy of"
    assert "copies" not in {r.name for r in measure(model, train, train=train)}, "measured on what it was trained on"
    assert measure(model, Split(torch.randn(99, 2)), train=train) == [], "noise"
    gaps = dataclasses.replace(x, mask=torch.ones(120, 2, dtype=torch.bool))
    vae = registry.build("vae", Spec((2,)), latent_dim=2)
    assert "fid" not in {r.name for r in measure(vae, gaps)}


@pytest.mark.parametrize(
    ("name", "options", "n", "error", "message"),
    [
        ("fid", {"samples": 1}, 50, ConfigError, "samples must be at least 2"),
        ("kid", {"samples": 10}, 50, ConfigError, "samples must be at least 20"),
        ("prdc", {"k": 0}, 50, ConfigError, "k >= 1"),
        ("fid", {"features": "pixel"}, 50, ConfigError, "Did you mean 'pixels'"),
        ("fid", {"features": {"name": "random", "dim": 0}}, 50, ConfigError, "dim >= 1"),
        ("fid", {"features": {"name": "own", "updates": 0}}, 50, ConfigError, "updates"),
        ("fid", {"features": "inception"}, 50, DataError, "images"),
        ("fid", {}, 1, DataError, "at least 2 examples"),
        ("kid", {}, 19, DataError, "at least 20 examples"),
        ("nearest", {"samples": 0}, 50, ConfigError, "at least 1"),
        ("modes", {}, 50, DataError, "centres"),
    ],
)
def test_what_makes_no_sense_is_refused(name: str, options: Any, n: int, error: type, message: str) -> None:
    model = Draws(Spec((2,)), lambda n: torch.randn(n, 2))
    model.config = {"name": "draws"}
    beside: dict[str, Any] = {"train": Split(torch.randn(20, 2))}
    with pytest.raises(error, match=message):
        measure(model, Split(torch.randn(n, 2)), names=[name], **beside, **{name: options})
