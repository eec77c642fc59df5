"""Faults made on purpose from real examples: each is seen by a default measure, the stronger the worse."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor

from artefacts import BAD, DIGITS, PHOTOS, Fault, figures, seen
from sandglass.core import Spec
from sandglass.data.dataset import Split
from sandglass.data.load import load_data
from sandglass.metrics.verdicts import sentences
from sandglass.runs.result import Result

Sets = tuple[Split, list[tuple[Tensor, Tensor]], Split, Spec]

SAID = {
    "checkerboard": "a grid of period",
    "blur": "blurred: ",
    "copies": "collapsed: ",
    "dropped class": "a class is missing: ",
    "colour": "visibly different: ",
    "brightness": "visibly different: ",
    "noise": "visibly different: ",
    "shuffled": "visibly different: ",
}
"""What is said of the strongest of each fault."""


def cut(whole: Split, spec: Spec, size: int, sets: int) -> Sets:
    """The examples, sets of as many other real images with their classes, and the rest to train on."""
    index = torch.randperm(len(whole), generator=torch.Generator().manual_seed(0))
    parts = [whole.take(part) for part in index[: (sets + 1) * size].split(size)]
    others = []
    for part in parts[1:]:
        batch = part.batch(slice(None))
        assert batch.x is not None and batch.y is not None
        others.append((batch.x, batch.y))
    return parts[0], others, whole.take(index[(sets + 1) * size :]), spec


@cache
def digits() -> Sets:
    data = load_data("digits")
    everything = data.train.take(torch.arange(len(data.train)))
    return cut(everything, data.spec, 300, 2)


@cache
def photos() -> Sets:
    """Automobiles and horses of CIFAR-10."""
    path = Path(os.environ.get("SANDGLASS_DATA", "/nonexistent"), "cifar10-jpeg", "train.zip")
    if not path.is_file():
        pytest.skip("SANDGLASS_DATA has no cifar10-jpeg/train.zip")
    data = load_data(str(path))
    assert data.train.y is not None
    two = [data.classes.index(name) for name in ("automobile", "horse")]
    kept = data.train.take(torch.nonzero(torch.isin(data.train.y, torch.tensor(two))).flatten())
    assert kept.y is not None
    kept = dataclasses.replace(kept, y=(kept.y == two[1]).long())
    return cut(kept, dataclasses.replace(data.spec, classes=2), 500, 4)


@cache
def reference(name: str) -> list[dict[str, Result]]:
    real, others, train, spec = {"digits": digits, "photos": photos}[name]()
    return [figures(x, real, train, spec, fingerprint=f"artefacts-{name}") for x, _ in others]


def hold(name: str, sets: Sets, fault: str, three: Sequence[Fault]) -> None:
    real, others, train, spec = sets
    x, y = others[0]
    found = [
        figures(make(x, y, torch.Generator().manual_seed(1)), real, train, spec, fingerprint=f"artefacts-{name}")
        for make in three
    ]
    saw = [seen(one, reference(name)) for one in found]
    # A weak fault of a few pixels of 8x8 is within the noise of 300 digits; of photographs every strength is seen.
    assert all(saw if name == "photos" else saw[1:]), saw
    best = [figure for figure in saw[2] if in_order(figure, [reference(name)[0], *found])]
    assert best, f"no figure that sees the strongest is in the order of strength: {saw}"
    plain = {figure: result.to_dict() for figure, result in found[2].items()}
    said = sentences(plain, spec)
    # A digit of 8x8 pixels is all edge: it cannot lose much of its sharpness, and is only different.
    expected = SAID["noise"] if (name, fault) == ("digits", "blur") else SAID.get(fault, "")
    assert not expected or any(sentence.startswith(expected) for sentence in said), said


def in_order(figure: str, found: Sequence[Mapping[str, Result]]) -> bool:
    """Whether a figure is the worse the stronger the fault, where each differs by less than its error equal."""
    return all(
        BAD[figure] * (later[figure].value - earlier[figure].value) >= -(later[figure].stderr or 0)
        for earlier, later in pairwise(found)
    )


@pytest.mark.slow
@pytest.mark.parametrize("fault", DIGITS)
def test_a_fault_of_digits_is_seen(fault: str) -> None:
    hold("digits", digits(), fault, DIGITS[fault])


def test_nothing_is_said_of_real_digits() -> None:
    for found in reference("digits"):
        assert sentences({name: r.to_dict() for name, r in found.items()}, digits()[3]) == []


@pytest.mark.slow
@pytest.mark.timeout(1200)  # seven sets of figures, two and a half minutes where nothing else runs
@pytest.mark.parametrize("fault", PHOTOS)
def test_a_fault_of_photographs_is_seen(fault: str) -> None:
    hold("photos", photos(), fault, PHOTOS[fault])


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_nothing_is_said_of_real_photographs() -> None:
    for found in reference("photos"):
        assert sentences({name: r.to_dict() for name, r in found.items()}, photos()[3]) == []
