"""VAE-GAN: distances in features, what each of its three losses is, and whom it trains."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from helpers import fresh, rows
from sandglass import rng
from sandglass.core import Batch, Clock
from sandglass.errors import ConfigError


def batch(n: int = 12) -> Batch:
    return Batch(torch.randn(n, 6, generator=torch.Generator().manual_seed(3)))


def model(name: str = "vae-gan", **options: Any) -> Any:
    return fresh(name, rows(batch().x), latent_dim=3, net="mlp", **options)


def terms(own: Any, phase: str, at: int = 4) -> Any:
    """Of the phase of that name, at the final clock, with the same noise every time."""
    (found,) = (p for p in own.phases() if p.name == phase)
    with rng.forked("cpu", at):
        return found.loss(batch(), Clock.final())


class First(torch.nn.Module):
    """A critic whose score is the first number of an example, and whose features are its numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.network: Any = torch.nn.Module()
        self.network.body = torch.nn.Identity()

    def forward(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        return x[:, 0]


def test_the_feature_distortion_is_the_angle_between_features() -> None:
    """n (1 - cos): 0 of an example itself and of one twice as large, n of a perpendicular, 2n of the opposite one."""
    own = model()
    own.critic = First()
    x = batch().x
    perpendicular = torch.stack([-x[:, 1], x[:, 0], -x[:, 3], x[:, 2], -x[:, 5], x[:, 4]], 1)
    for made, expected in ((x, 0.0), (2 * x, 0.0), (perpendicular, 6.0), (-x, 12.0)):
        assert torch.allclose(own.unlikeness(x, made), torch.full((12,), expected), atol=1e-5)
    cosine = torch.cosine_similarity(x, x.flip(0))
    assert torch.allclose(own.unlikeness(x, x.flip(0)), 6 * (1 - cosine), atol=1e-5)
    assert torch.allclose(own.features(x).square().mean(1), torch.ones(12), atol=1e-5)


def test_the_encoder_minimises_the_feature_distortion_some_pixels_and_the_rate() -> None:
    found = terms(model(pixels=0.3, beta=2.0), "encoder")
    parts = found.parts["feature_distortion"] + 0.3 * found.parts["distortion"] + 2 * found.parts["rate"]
    assert float(found.loss.detach()) == pytest.approx(float(parts.mean()), rel=1e-6)


def test_the_decoder_minimises_its_cost_and_misleads_the_critic_twice() -> None:
    """Reconstructions and draws from the prior count half each, and each is compared with the real example."""
    own = model(pixels=0.3, gamma=0.2)
    own.critic = First()
    found = terms(own, "decoder")
    with rng.forked("cpu", 4):
        rebuilt = own.p(own.infer(batch()))
        drawn = own.p(own.prior().sample((12,))).mean
    x = batch().x
    cost = own.unlikeness(x, rebuilt.mean) - 0.3 * rebuilt.log_prob(x)
    misled = sum((1 + (x - made)[:, 0].exp()).log() for made in (rebuilt.mean, drawn)) / 2
    assert torch.allclose(found.parts["cost"], cost, rtol=1e-5)
    assert torch.allclose(found.parts["generator"], misled, rtol=1e-5)
    assert float(found.loss.detach()) == pytest.approx(float((0.2 * cost + misled).detach().mean()), rel=1e-5)


def test_the_critic_takes_examples_for_real_and_both_others_for_fake() -> None:
    own = model(r1=0.0, r2=0.0)
    own.critic = First()
    found = terms(own, "critic")
    with rng.forked("cpu", 4):
        rebuilt = own.p(own.infer(batch())).mean
        drawn = own.p(own.prior().sample((12,))).mean
    x = batch().x
    expected = sum((1 + (made - x)[:, 0].exp()).log() for made in (rebuilt, drawn)) / 2
    assert torch.allclose(found.parts["critic"], expected, rtol=1e-5)
    assert torch.equal(found.parts["real"], x[:, 0])


def test_each_penalty_is_that_of_a_linear_critic() -> None:
    """Its gradient is its weights at every example, so that r1 / 2 and r2 / 2 weigh the same square."""
    own = model(critic="linear", r1=3.0, r2=5.0)
    found = terms(own, "critic")
    square = float(own.critic.network.head.weight.detach().square().sum())
    assert float(found.scalars["r1"]) == pytest.approx(square, rel=1e-5)
    assert float(found.scalars["r2"]) == pytest.approx(square, rel=1e-5)
    penalty = float(found.loss.detach() - found.parts["critic"].mean())
    assert penalty == pytest.approx(4 * square, rel=1e-4)


@pytest.mark.parametrize(("phase", "trained"), [("critic", "critic"), ("encoder", "q"), ("decoder", "p")])
def test_no_loss_but_the_encoder_s_reaches_another_part_of_the_vae(phase: str, trained: str) -> None:
    own = model()
    terms(own, phase).loss.backward()
    reached = {name for name, p in own.named_parameters() if p.grad is not None and float(p.grad.abs().sum())}
    assert {name for name in reached if name.startswith(f"{trained}.")}
    if phase != "encoder":  # what its loss leaves in decoder and critic is dropped: its phase trains the encoder alone
        assert not {name for name in reached if name.startswith("q.")}


def test_the_judgement_of_the_critic_does_not_reach_the_encoder() -> None:
    """Other scores of the same features leave its loss as it is."""
    own = model()
    before = terms(own, "encoder").loss
    torch.nn.init.constant_(own.critic.network.head.weight, 7.0)
    assert torch.equal(before, terms(own, "encoder").loss)


def test_its_bound_is_that_of_the_vae_with_its_weights_to_the_last_bit() -> None:
    own, plain = model(), model("vae")
    weights = {name: value for name, value in own.state_dict().items() if not name.startswith("critic.")}
    plain.load_state_dict(weights)
    found = []
    for each in (own, plain):
        with rng.forked("cpu", 4), torch.no_grad():
            found.append(torch.stack([each.bound(batch()).elbo, each.log_prob(batch(), 3)]))
    assert torch.equal(*found)


@pytest.mark.parametrize("options", [{"pixels": -1.0}, {"gamma": float("nan")}, {"r1": -0.1}, {"adversary": "kind"}])
def test_bad_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        model(**options)
