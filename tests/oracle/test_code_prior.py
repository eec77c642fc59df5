"""The prior of discrete codes: what sums to one, what samples are drawn."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sandglass import registry, rng
from sandglass.core import Spec
from sandglass.engine.optimizers import Adam, load_optimizer_tensors, optimizer_tensors
from sandglass.errors import CheckpointError, ConfigError
from sandglass.models._code_prior import CodePrior
from sandglass.models._code_priors import code_prior

DRAWS = 20_000


NETS = ("transformer", "pixelcnn")


def prior(net: str, size: int = 3, shape: tuple[int, ...] = (2, 2), cond: int = 0, seed: int = 0) -> CodePrior:
    """With weights large enough that sequences differ in their probability."""
    small = {"prior_net": net, "prior_width": 8, "prior_depth": 3, "prior_heads": 2}
    with rng.forked("cpu", seed, "prior"):
        made = code_prior(size, shape, cond, **small).double().eval()
        for p in made.parameters():
            nn.init.normal_(p, std=0.7)
    return made


def every_sequence(size: int, length: int) -> Tensor:
    return torch.tensor(list(itertools.product(range(size), repeat=length)))


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("cond", [0, 2])
def test_the_probabilities_of_all_sequences_sum_to_one(net: str, cond: int) -> None:
    made, codes = prior(net, cond=cond), every_sequence(3, 4)
    c = torch.tensor([[1.0, 0.0]]).double().expand(len(codes), -1) if cond else None
    log_p = made(c=c).log_prob(codes).detach()
    assert float(log_p.exp().sum()) == pytest.approx(1, abs=1e-10)
    assert float(log_p.max() - log_p.min()) > 3, "they hardly differ: this shows little"


@pytest.mark.parametrize(("net", "shape"), [("transformer", (6,)), ("pixelcnn", (3, 4)), ("pixelcnn", (2, 3, 2))])
def test_a_later_code_changes_no_earlier_logits(net: str, shape: tuple[int, ...]) -> None:
    """And every later one reads it: no place is left out."""
    made, n = prior(net, 5, shape), math.prod(shape)
    codes = torch.randint(5, (3, n), generator=torch.Generator().manual_seed(1))
    before = made.logits(codes)
    for t in range(n):
        changed = codes.clone()
        changed[:, t] = (codes[:, t] + 1) % 5
        moved = (made.logits(changed) - before).detach().abs().amax(-1)
        assert float(moved[:, : t + 1].max()) == 0
        assert t + 1 == n or float(moved[:, t + 1 :].min()) > 0


@pytest.mark.parametrize(("net", "cond"), [("transformer", 0), ("transformer", 2), ("pixelcnn", 2)])
def test_samples_come_with_their_probabilities(net: str, cond: int) -> None:
    """Pearson's chi-square of 20,000 draws against all 81 probabilities: refused once in 10,000 seeds."""
    made, codes = prior(net, cond=cond, seed=2), every_sequence(3, 4)
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


@pytest.mark.parametrize("net", NETS)
def test_a_prior_reads_its_condition(net: str) -> None:
    made, codes = prior(net, cond=2), every_sequence(3, 4)
    a, b = (made(c=torch.eye(2).double()[[i]].expand(81, -1)).log_prob(codes).detach() for i in (0, 1))
    assert float((a - b).abs().max()) > 0.1


def test_the_likelihood_of_a_sequence_is_the_sum_of_its_cross_entropies() -> None:
    made, codes = prior("transformer", 5, (6,)), torch.randint(5, (3, 6), generator=torch.Generator().manual_seed(1))
    each = [F.cross_entropy(made.logits(codes)[:, t], codes[:, t], reduction="none") for t in range(6)]
    assert torch.allclose(made().log_prob(codes), -sum(each), atol=1e-12)


@pytest.mark.parametrize("net", NETS)
def test_a_prior_of_what_is_above_is_a_distribution_for_each_of_it(net: str) -> None:
    """The probabilities of all maps of 4 sum to one under each of the two codes above, and differ between them."""
    small = {"prior_net": net, "prior_width": 8, "prior_depth": 1, "prior_heads": 2}
    with rng.forked("cpu", 0, "prior"):
        made = code_prior(2, (2, 2), 0, None, ((2, (1, 1)),), **small).double().eval()
        for p in made.parameters():
            nn.init.normal_(p, std=0.7)
    codes = every_sequence(2, 4)
    each = [made(torch.full((16, 1), k)).log_prob(codes).exp().detach() for k in (0, 1)]
    assert all(float(p.sum()) == pytest.approx(1, abs=1e-10) for p in each)
    assert float((each[0] - each[1]).abs().max()) > 0.01


def test_a_pixel_cnn_of_one_layer_has_dropout_and_no_idle_weights() -> None:
    made = code_prior(3, (2, 2), prior_net="pixelcnn", prior_width=8, prior_depth=1, prior_dropout=0.5)
    nn.init.normal_(made.head[-1].weight)
    codes = torch.zeros(2, 4, dtype=torch.long)
    assert not torch.equal(made.logits(codes), made.logits(codes)), "nothing is dropped"
    made.logits(codes).square().sum().backward()
    assert [name for name, p in made.named_parameters() if p.grad is None] == []


def test_one_code_has_the_weights_that_earlier_models_saved() -> None:
    """And under a condition they are in the order in which optimisers were saved by number: after the embedding."""
    spec = Spec((1, 8, 8), "unit", classes=3)
    small = {"codes": 1, "prior_width": 8, "prior_depth": 1, "prior_heads": 2}
    model = registry.build("vq-vae", spec, **small, condition="labels")
    names = [name.removeprefix("pk.") for name in model.state_dict() if name.startswith("pk.")]
    assert names[:5] == ["start", "places", "embedding.weight", "condition.weight", "condition.bias"]
    assert names[5].startswith("blocks.0.")
    assert names[-4:] == ["norm.weight", "norm.bias", "head.weight", "head.bias"]
    with pytest.raises(ConfigError, match="prior_heads"):
        code_prior(3, (1, 1), 0, None, ((2, (1, 1)),), prior_width=8, prior_heads=3)
    assert code_prior(3, (1, 1), prior_net="pixelcnn", prior_width=8, prior_heads=3).length == 1


def test_the_state_of_an_optimiser_of_other_weights_is_refused() -> None:
    """By their shape, where it tells them apart."""
    made, other = ([nn.Parameter(torch.ones(n)) for n in sizes] for sizes in ((2, 3), (3, 2)))
    for p in made:
        p.grad = torch.ones_like(p)
    saved = Adam(made, lr=0.1)
    saved.update(torch.tensor(True))
    tensors = optimizer_tensors(saved, "prior")
    load_optimizer_tensors(Adam([p.detach().clone().requires_grad_() for p in made], lr=0.1), "prior", tensors)
    for params in (other, made[:1]):
        with pytest.raises(CheckpointError, match="another model"):
            load_optimizer_tensors(Adam(params, lr=0.1), "prior", tensors)
