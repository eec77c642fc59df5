"""Class accuracy of samples: what samples of a known class score, and what is refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from helpers import Draws
from sandglass import registry
from sandglass.core import Batch, Spec
from sandglass.data.dataset import Split
from sandglass.errors import CapabilityError, DataError
from sandglass.metrics.measure import measure
from sandglass.runs.result import Result

SPEC = Spec((2,), classes=3)
CENTRES = torch.tensor([[0.0, 0.0], [8.0, 0.0], [0.0, 8.0]])


class Given(Draws):
    """Draws what a function of the labels says."""

    needs = ("labels",)

    def __init__(self, draw: Callable[[Tensor], Tensor]) -> None:
        super().__init__(SPEC, draw)
        self.config = {"name": "given", "options": {}}

    def sample(self, n: int, given: Batch | None = None, *, noise: bool = False) -> Tensor:
        assert given is not None and given.y is not None and len(given.y) == n
        return self.draw(given.y)


def examples(n: int, seed: int, shares: tuple[float, ...] = (0.5, 0.3, 0.2)) -> Split:
    """Points around the centres of their classes, sorted by class."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.multinomial(torch.tensor(shares), n, replacement=True, generator=generator).sort().values
    return Split(CENTRES[y] + torch.randn(n, 2, generator=generator), y)


def of(y: Tensor) -> Tensor:
    return CENTRES[y] + torch.randn(len(y), 2)


def figures(draw: Callable[[Tensor], Tensor], **options: Any) -> dict[str, Result]:
    found = measure(Given(draw), examples(1000, 1), names=["class_accuracy"], train=examples(1000, 2), **options)
    return {r.name: r for r in found}


def test_samples_like_the_examples_of_their_class_score_as_they_do() -> None:
    found = figures(of)
    samples, real = found["class_accuracy_samples"], found["class_accuracy_examples"]
    assert real.value > 0.99 and samples.n == real.n == 1000
    assert samples.stderr is not None and real.stderr is not None
    assert abs(samples.value - real.value) < 4.5 * math.hypot(samples.stderr, real.stderr)
    assert "by class 0: 1.00" in samples.note and "given the labels of the examples" in samples.note
    assert "given the labels" not in real.note


def test_samples_of_another_class_score_nothing() -> None:
    assert figures(lambda y: of((y + 1) % 3))["class_accuracy_samples"].value < 0.01


def test_one_class_alone_scores_its_share_of_the_split() -> None:
    """The labels that samples are given have the proportions of the examples, however these are sorted."""
    split = examples(1000, 1)
    found = figures(lambda y: of(torch.zeros_like(y)))["class_accuracy_samples"]
    assert found.value == pytest.approx(float((split.y == 0).double().mean()), abs=0.01)
    few = figures(lambda y: of(torch.zeros_like(y)), class_accuracy={"samples": 200})["class_accuracy_samples"]
    assert few.n == 200 and few.value == pytest.approx(0.5, abs=4.5 * math.sqrt(0.25 / 200))
    assert "0: 1.00, 1: 0.00, 2: 0.00" in few.note


def test_any_class_scores_by_chance() -> None:
    found = figures(lambda y: of(torch.randint(3, (len(y),))))["class_accuracy_samples"]
    assert found.stderr is not None and abs(found.value - 1 / 3) < 4.5 * found.stderr


def test_unknown_classes_are_left_out() -> None:
    split = examples(300, 1)
    assert split.y is not None
    half = Split(split.x, torch.where(torch.arange(300) % 2 == 0, split.y, -1))
    found = measure(Given(lambda y: of(y.clamp(min=0))), half, names=["class_accuracy"], train=half)
    assert [r.n for r in found] == [150, 150] and all(r.value > 0.97 for r in found)


def test_what_cannot_be_measured_is_refused() -> None:
    split = examples(100, 1)
    plain = registry.build("gan", SPEC)
    with pytest.raises(CapabilityError, match=r"'gan' is not conditional on labels. Models that are: .*cvae"):
        measure(plain, split, names=["class_accuracy"], train=split)
    assert "class_accuracy_samples" not in [r.name for r in measure(plain, split, train=split)]
    with pytest.raises(CapabilityError, match="needs a class for every example"):
        measure(registry.build("cvae", SPEC), Split(split.x), train=split)
    with pytest.raises(DataError, match="two classes"):
        measure(Given(of), split, names=["class_accuracy"], train=Split(split.x, torch.ones(100, dtype=torch.int64)))
    nan = figures(lambda y: torch.full((len(y), 2), math.nan))
    assert list(nan) == ["class_accuracy_samples"] and math.isnan(nan["class_accuracy_samples"].value)
