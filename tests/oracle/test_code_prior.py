"""The prior of discrete codes: what sums to one, what samples are drawn."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sandglass import rng
from sandglass.models._code_prior import CodePrior

DRAWS = 20_000


def prior(size: int = 3, length: int = 4, cond: int = 0, seed: int = 0) -> CodePrior:
    """With weights large enough that sequences differ in their probability."""
    with rng.forked("cpu", seed, "prior"):
        made = CodePrior(size, length, cond, prior_width=8, prior_depth=2, prior_heads=2).double().eval()
        for p in made.parameters():
            nn.init.normal_(p, std=0.7)
    return made


def every_sequence(size: int, length: int) -> Tensor:
    return torch.tensor(list(itertools.product(range(size), repeat=length)))


@pytest.mark.parametrize("cond", [0, 2])
def test_the_probabilities_of_all_sequences_sum_to_one(cond: int) -> None:
    made, codes = prior(cond=cond), every_sequence(3, 4)
    c = torch.tensor([[1.0, 0.0]]).double().expand(len(codes), -1) if cond else None
    log_p = made(c=c).log_prob(codes).detach()
    assert float(log_p.exp().sum()) == pytest.approx(1, abs=1e-10)
    assert float(log_p.max() - log_p.min()) > 3, "they hardly differ: this shows little"


def test_a_later_code_changes_no_earlier_logits() -> None:
    made = prior(5, 6)
    codes = torch.randint(5, (3, 6), generator=torch.Generator().manual_seed(1))
    before = made.logits(codes)
    for t in range(6):
        changed = codes.clone()
        changed[:, t] = (codes[:, t] + 1) % 5
        after = made.logits(changed)
        assert torch.equal(after[:, : t + 1], before[:, : t + 1])
        assert t == 5 or not torch.allclose(after[:, t + 1 :], before[:, t + 1 :])


@pytest.mark.parametrize("cond", [0, 2])
def test_samples_come_with_their_probabilities(cond: int) -> None:
    """Pearson's chi-square of 20,000 draws against all 81 probabilities: refused once in 10,000 seeds."""
    made, codes = prior(cond=cond, seed=2), every_sequence(3, 4)
    one = torch.tensor([[0.0, 1.0]]).double() if cond else None
    p = made(c=None if one is None else one.expand(len(codes), -1)).log_prob(codes).exp().detach()
    with rng.forked("cpu", 5):
        drawn = made(c=one).sample((DRAWS,)).view(DRAWS, 4)
    number = (drawn * torch.tensor([27, 9, 3, 1])).sum(1)
    expected, observed = DRAWS * p, number.bincount(minlength=81).double()
    often = expected >= 5
    pooled = (
        torch.cat([expected[often], expected[~often].sum()[None]]),
        torch.cat([observed[often], observed[~often].sum()[None]]),
    )
    keep = pooled[0] > 0
    statistic = float(((pooled[1] - pooled[0]).square() / pooled[0])[keep].sum())
    freedom = int(keep.sum()) - 1
    # The chi-square's tail: Q(freedom / 2, statistic / 2).
    tail = torch.special.gammaincc(torch.tensor(freedom / 2).double(), torch.tensor(statistic / 2).double())
    assert float(tail) > 1e-4


def test_a_prior_reads_its_condition() -> None:
    made, codes = prior(cond=2), every_sequence(3, 4)
    a, b = (made(c=torch.eye(2).double()[[i]].expand(81, -1)).log_prob(codes).detach() for i in (0, 1))
    assert float((a - b).abs().max()) > 0.1


def test_the_likelihood_of_a_sequence_is_the_sum_of_its_cross_entropies() -> None:
    made, codes = prior(5, 6), torch.randint(5, (3, 6), generator=torch.Generator().manual_seed(1))
    each = [F.cross_entropy(made.logits(codes)[:, t], codes[:, t], reduction="none") for t in range(6)]
    assert torch.allclose(made().log_prob(codes), -sum(each), atol=1e-12)
