"""Few labels and many examples: the examples without a label lower the error of a classifier."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import sandglass
from helpers import fit, fresh
from sandglass import rng
from sandglass.core import Batch
from sandglass.models.m2 import M2

NET = {"name": "mlp", "widths": [128], "activation": "silu"}
FEW = sandglass.load_data("digits", labelled=20)
TEST = FEW.splits["test"].batch(slice(0, None))
TRAINING = {"epochs": 25, "batch_size": 64, "lr": 3e-3, "schedule": "cosine"}


def wrong(p: Tensor) -> float:
    """The share of test digits whose likeliest class is another."""
    return float((p.argmax(1) != TEST.y).float().mean())


def learnt(name: str, **options: Any) -> Any:
    """A model trained on digits of which two of each class have a label."""
    model = fresh(name, FEW, net=NET, **options)
    fit(model, FEW, **TRAINING)
    return model.eval()


def labelled() -> tuple[Tensor, Tensor]:
    """The digits with a label."""
    train = FEW.train.batch(slice(0, None))
    assert train.y is not None
    known = train.y >= 0
    return train.x[known], train.y[known]


def test_m2_learns_from_digits_without_labels() -> None:
    """Two labels a class: its error is 4 points below that of its own classifier on the labelled, and of a neighbour's.

    Samples given a class are of that class, as a support vector machine on all training digits sees them, as often as
    its classifier is right but for a tenth.
    """
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.svm import SVC

    x, y = labelled()
    model = learnt("m2", latent_dim=4, likelihood="gaussian")
    assert isinstance(model, M2)
    with torch.no_grad(), rng.forked("cpu", 2):
        error = wrong(model.classify(TEST))
        wanted = torch.arange(10).repeat_interleave(50)
        drawn = model.sample(500, Batch(y=wanted)).flatten(1)
    alone = fresh("m2", FEW, net=NET).qy  # type: ignore[union-attr]
    optimizer = torch.optim.Adam(alone.parameters(), 2e-3)
    for _ in range(300):
        optimizer.zero_grad()
        F.cross_entropy(alone(x), y).backward()
        optimizer.step()
    with torch.no_grad():
        plain = wrong(alone(TEST.x))
    neighbour = 1 - KNeighborsClassifier(1).fit(x.flatten(1), y).score(TEST.x.flatten(1), TEST.y)
    assert error < min(plain, neighbour) - 0.04
    whole = sandglass.load_data("digits").train
    judge = SVC().fit(whole.batch(slice(0, None)).x.flatten(1).numpy(), whole.y)
    assert float((torch.tensor(judge.predict(drawn.numpy())) == wanted).float().mean()) > 1 - error - 0.1


@pytest.mark.slow
def test_m1_m2_needs_no_weak_codes() -> None:
    """Where the codes say much, as with a scale of its own, M2 alone learns classes badly; stacked, 5 points better."""
    options = {"likelihood": "optimal-gaussian", "latent_dim": 8}
    models = learnt("m2", **options), learnt("m1-m2", second_dim=4, widths=(128,), **options)
    with torch.no_grad():
        alone, stacked = (wrong(model.classify(TEST)) for model in models)
    assert stacked < alone - 0.05
