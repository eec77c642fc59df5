"""Translations must find a known answer: of pairs, and of two kinds of examples without pairs."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import sandglass
from helpers import fit, fresh
from sandglass.core import Batch, Spec
from sandglass.data.dataset import Dataset, Split
from sandglass.rng import permutation

INSTANCE = {"name": "conv", "width": 16, "norm": "instance"}


def digits(**more: object) -> tuple[Dataset, Tensor, Tensor]:
    """scikit-learn's digits with a changed specification, their training pictures in any order, and the test ones."""
    data = sandglass.load_data("digits")
    x = data.train.batch(slice(None)).x
    spec = replace(Spec((1, 8, 8), "unit"), **more)  # type: ignore[arg-type]
    test = data.splits["test"].batch(slice(None)).x
    return replace(data, spec=spec, classes=(), source=None), x[permutation(len(x), 0)], test


def coloured(x: Tensor) -> Tensor:
    """The known answer for a grey digit: its inverse, itself a pixel to the right, and itself blurred."""
    shifted = F.pad(x, (1, 0))[..., :-1]
    return torch.cat([1 - x, shifted, F.avg_pool2d(F.pad(x, (1, 1, 1, 1)), 3, 1)], 1)


def test_pairs_are_learnt() -> None:
    """A digit in three colours of known form: unseen ones at less than a quarter of the error of any trivial answer."""
    data, x, test = digits(shape=(3, 8, 8), given={"source": Spec((1, 8, 8), "unit")})
    data = replace(data, splits={"train": Split(coloured(x), given={"source": x})})
    model = fresh("pix2pix", data, net=INSTANCE, critic=INSTANCE)
    fit(model, data, epochs=12, batch_size=32, lr=3e-3, schedule="cosine")
    true = coloured(test)
    with torch.no_grad():
        made = model.eval().translate(Batch(given={"source": test}))
    colours = torch.stack([(coloured(x)).median(0).values, coloured(x).mean(0)])
    trivial = min(float((y - true).abs().mean()) for y in (test, 1 - test, *colours))
    assert float((made - true).abs().mean()) < 0.25 * trivial


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0])
def test_an_inverse_is_found_without_pairs(seed: int) -> None:
    """Digits, and other digits as 1 - x: each way the correlation with the true pixels is over 0.9."""
    data, x, test = digits(beside={"b": Spec((1, 8, 8), "unit")})
    a, others = x.chunk(2)
    data = replace(data, splits={"train": Split(a, beside={"b": Split(1 - others)})})
    critic = {"name": "conv", "stages": 2, "activation": "leaky-relu"}
    model = fresh("cycle-gan", data, seed, net=INSTANCE, critic=critic, cycle=1.0)
    fit(model, data, epochs=25, batch_size=64, lr=2e-3, schedule="cosine", seed=seed)
    with torch.no_grad():
        to_b, to_a = model.eval().translate(Batch(test)), model.translate(Batch(1 - test), "a")
        back = model.reconstruct(Batch(test))
    found = [correlation(to_b, 1 - test), correlation(to_a, test)]
    assert min(found) > 0.9, found
    assert float((back - test).abs().mean()) < 0.1


def correlation(a: Tensor, b: Tensor) -> float:
    """Mean over pictures of the correlation of their pixels."""
    a, b = (F.normalize(t.flatten(1) - t.flatten(1).mean(1, keepdim=True)) for t in (a, b))
    return float((a * b).sum(1).mean())
