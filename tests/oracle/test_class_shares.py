"""The most neglected class: its ratio of shares, its error, and the sentence about it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from helpers import Draws
from sandglass.core import Spec
from sandglass.data.dataset import Split
from sandglass.errors import ConfigError
from sandglass.metrics.class_shares import shift
from sandglass.metrics.evaluation import UnsuitableError
from sandglass.metrics.measure import measure
from sandglass.metrics.verdicts import NEGLECTED, SURELY, sentences
from sandglass.runs.result import Result

SPEC = Spec((2,), classes=3)
CENTRES = torch.tensor([[0.0, 0.0], [8.0, 0.0], [0.0, 8.0]])
EVEN = (0.5, 0.3, 0.2)


def points(
    n: int, seed: int | torch.Generator, shares: tuple[float, ...] = EVEN, near: float = 1
) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed) if isinstance(seed, int) else seed
    y = torch.multinomial(torch.tensor(shares), n, replacement=True, generator=generator)
    return near * CENTRES[y] + torch.randn(n, 2, generator=generator), y


def figure(shares: tuple[float, ...], seed: int = 0, n: int = 1000, near: float = 1) -> Result:
    generator = torch.Generator().manual_seed(10 + seed)
    model = Draws(SPEC, lambda m: points(m, generator, shares, near)[0])
    real, train = (Split(*points(n, 1000 * k + seed, near=near)) for k in (1, 2))
    [found] = measure(model, real, names=["class_shares"], train=train, classes=("car", "horse", "ship"))
    return found


@pytest.mark.parametrize(("shares", "expected"), [((0.5, 0.48, 0.02), 0.1), ((0.7, 0.3, 0.0), 0.0)])
def test_the_class_of_few_or_no_samples_is_named(shares: tuple[float, ...], expected: float) -> None:
    found = figure(shares)
    assert found.stderr is not None
    assert abs(found.value - expected) < 3 * found.stderr
    assert found.note.startswith("class 'ship' is ") and "% of the samples and" in found.note
    said = sentences({found.name: found.to_dict()})
    assert said == [f"a class is missing: {found.note.split(';')[0]}"]


def test_all_classes_are_there() -> None:
    found = figure(EVEN)
    assert 0.7 < found.value < 1.1 and sentences({found.name: found.to_dict()}) == []


OVERLAP = 0.25
"""Distance of classes of which a classifier finds four fifths."""


@pytest.mark.parametrize(("shares", "expected"), [((0.5, 0.48, 0.02), 0.1), ((0.7, 0.3, 0.0), 0.0), (EVEN, 1.0)])
def test_what_the_classifier_confuses_is_taken_into_account(shares: tuple[float, ...], expected: float) -> None:
    """Over 20 sets, so that what the classifier puts into the missing class would show."""
    found = [figure(shares, seed, near=OVERLAP) for seed in range(20)]
    ratio = torch.tensor([r.value for r in found])
    assert all(r.note.startswith("class 'ship' is ") for r in found) or expected == 1
    # Of three ratios the least is below one by chance, and a share is not negative.
    assert abs(float(ratio.mean()) - expected) < (0.2 if expected == 1 else 0.06)
    assert "which is right for 7" in found[0].note


@pytest.mark.parametrize("right", [0.3, 0.6, 0.8, 0.95])
@pytest.mark.parametrize("classes", [2, 3, 10, 20])
def test_no_class_is_said_to_be_missing_where_all_are_there(classes: int, right: float) -> None:
    """With equal shares of few examples, so that a class has 5 to 50: at most one of 100 sets."""
    generator = np.random.default_rng(classes)

    def found(truth: np.ndarray) -> np.ndarray:
        known = generator.random(len(truth)) < right
        return np.where(known, truth, generator.integers(0, classes, len(truth)))

    said = 0
    for _ in range(100):
        truth, drawn = generator.integers(0, classes, 100), generator.integers(0, classes, 100)
        enough = np.flatnonzero(np.bincount(truth) >= 5)
        ratios, errors = shift(found(drawn), found(truth), truth, enough)
        least = int(np.argmin(ratios + 3 * errors))
        said += ratios[least] < NEGLECTED and ratios[least] + 3 * errors[least] < SURELY
    assert said <= 1


def test_a_classifier_that_guesses_says_nothing() -> None:
    found = [figure((0.7, 0.3, 0.0), seed, near=0) for seed in range(5)]
    assert all(sentences({r.name: r.to_dict()}) == [] for r in found)


@pytest.mark.parametrize("near", [1, OVERLAP])
def test_the_error_is_the_spread_over_sets(near: float) -> None:
    """Of a class that is always the least; over 40 sets the spread is known to a ninth."""
    found = [figure((0.6, 0.3, 0.1), seed, n=400, near=near) for seed in range(40)]
    errors = torch.tensor([r.stderr for r in found])
    assert float(torch.tensor([r.value for r in found]).std()) == pytest.approx(float(errors.mean()), rel=0.35)


def test_what_it_cannot_be_said_of_is_refused() -> None:
    x, y = points(200, 0)
    model = Draws(SPEC, lambda m: points(m, 1)[0])
    with pytest.raises(UnsuitableError, match="at least two classes"):
        measure(model, Split(x, y), names=["class_shares"], train=Split(x, torch.zeros_like(y)))
    few = torch.full_like(y, -1)  # of the 30 that are looked at, as good as none has a label
    few[:2] = torch.tensor([0, 1])
    with pytest.raises(UnsuitableError, match="at least two classes"):
        measure(model, Split(x[:30], y[:30]), names=["class_shares"], train=Split(x, few))
    with pytest.raises(ConfigError, match="at least 1 sample"):
        measure(model, Split(x, y), train=Split(x, y), class_shares={"samples": 0})
    with pytest.raises(UnsuitableError, match="two classes of 5"):
        measure(model, Split(x[y == 0], y[y == 0]), names=["class_shares"], train=Split(x, y))
    model.needs = ("labels",)
    with pytest.raises(UnsuitableError, match="not given the class"):
        measure(model, Split(x, y), names=["class_shares"], train=Split(x, y))
