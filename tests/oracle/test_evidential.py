"""A Dirichlet over a classifier's output: its loss against draws, and its behaviour with evidence."""

from __future__ import annotations

import torch
from torch.distributions import Dirichlet, kl_divergence

from sandglass import rng
from sandglass.distributions.evidential import evidential, evidential_loss, vacuity


def test_the_loss_is_the_expected_squared_error_of_drawn_probabilities() -> None:
    """From 100,000 draws, within 5 standard errors; without wrong evidence the penalty is 0, and else it is above."""
    h, y = torch.tensor([[0.3, 2.0, -1.0], [4.0, 0.1, 0.2]]).double(), torch.tensor([1, 2])
    p = Dirichlet(1 + torch.nn.functional.softplus(h))
    with rng.forked("cpu", 0):
        drawn = p.sample((100_000,))
    errors = (torch.eye(3).double()[y] - drawn).square().sum(-1)
    found = evidential_loss(p, y, 0.0)
    assert torch.all((errors.mean(0) - found).abs() < 5 * errors.std(0) / 100_000**0.5)
    sure = Dirichlet(torch.tensor([[1.0, 9.0, 1.0]]))
    right, wrong = torch.tensor([1]), torch.tensor([0])
    assert torch.allclose(evidential_loss(sure, right, 1.0), evidential_loss(sure, right, 0.0))
    penalty = kl_divergence(Dirichlet(torch.tensor([1.0, 9.0, 1.0])), Dirichlet(torch.ones(3)))
    assert torch.allclose(evidential_loss(sure, wrong, 1.0) - evidential_loss(sure, wrong, 0.0), penalty)
    assert evidential_loss(sure, torch.tensor([-1]), 1.0) == 0


def test_evidence_makes_it_certain() -> None:
    p = evidential(torch.tensor([[-100.0, -100.0], [0.0, 0.0], [100.0, -100.0], [1e4, 1e4]]))
    known = vacuity(p)
    assert evidential(torch.zeros(1, 2).double()).mean.dtype == torch.float64
    assert known[0] == 1 and torch.all(known.diff() < 0)
    assert torch.equal(p.mean.argmax(1)[2:3], torch.tensor([0])) and p.mean.isfinite().all()
