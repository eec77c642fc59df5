"""The losses, penalties and augmentation of the generative adversarial network against values by hand."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from helpers import digest, fresh, make_loop, pictures, stop_at
from sandglass import registry, rng
from sandglass.core import Batch, Clock, Model, Spec, Stage
from sandglass.engine.average import Average
from sandglass.engine.options import Training
from sandglass.engine.step import Stepper
from sandglass.errors import ConfigError
from sandglass.models._adversary import Adversary
from sandglass.models._augmentation import Augmentation, about_grey
from sandglass.models.gan import Critic, steepness, with_deviation
from sandglass.nets.mlp import MLP

SPEC = Spec((3, 8, 12), "unit", classes=2)
SMALL = {"name": "resnet", "width": 4, "norm": "none", "activation": "leaky-relu"}


def gan(**options: Any) -> Model:
    with rng.forked("cpu", 0, "weights"):
        return registry.build("gan", SPEC, **{"latent_dim": 3, "net": SMALL} | options)


def images(n: int, seed: int = 0, shape: tuple[int, ...] = SPEC.shape) -> Tensor:
    return torch.rand(n, *shape, generator=torch.Generator().manual_seed(seed))


# the losses


def test_the_relativistic_loss_by_hand() -> None:
    """With scores 2 and 0.5 the critic loses log(1 + e^-1.5), the generator log(1 + e^1.5)."""
    adversary, real, fake = Adversary("relativistic", paired=True), torch.tensor([2.0]), torch.tensor([0.5])
    assert float(adversary.critic(real, fake)) == pytest.approx(0.20141327798275246, rel=1e-6)
    assert float(adversary.generator(fake, real)) == pytest.approx(1.7014132779827524, rel=1e-6)
    assert torch.equal(adversary.critic(real + 7, fake + 7), adversary.critic(real, fake))  # only differences count


def test_translators_have_no_pairs_to_compare() -> None:
    with pytest.raises(ConfigError, match="not 'relativistic'"):
        Adversary("relativistic")
    with pytest.raises(ConfigError, match="relativistic, non-saturating"):
        Adversary("wasserstein", paired=True)


@pytest.mark.parametrize("name", ["relativistic", "non-saturating", "hinge", "least-squares"])
def test_what_the_phases_minimise(name: str) -> None:
    """The losses of the model are those of the same noise by hand; pairs have one place in the batch."""
    model, data = gan(adversary=name, r1=0.0, r2=0.0, ada=0.0), Batch(images(6))
    with rng.forked("cpu", 1):
        criticised = model.phases()[0].loss(data, Clock()).loss
    with rng.forked("cpu", 1):
        generated = model.phases()[1].loss(data, Clock()).loss
    with rng.forked("cpu", 1):
        made = model.decode(model.draw(6))
    real, fake = model.critic(data.x), model.critic(made)
    adversary = Adversary(name, paired=True)
    assert torch.allclose(criticised, adversary.critic(real, fake).mean(), atol=1e-6)
    assert torch.allclose(generated, adversary.generator(fake, real).mean(), atol=1e-6)


# the penalties


class Quadratic(nn.Module):
    """x^T A x / 2, whose gradient is A x for symmetric A."""

    def __init__(self) -> None:
        super().__init__()
        root = torch.randn(5, 5, generator=torch.Generator().manual_seed(0))
        self.a = nn.Parameter(root + root.T)

    def forward(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        return (x @ self.a * x).sum(1) / 2


def test_the_penalty_of_a_quadratic_critic() -> None:
    """It is |A x|^2, and its gradient in A that of autograd through this closed form, made symmetric."""
    critic, x = Quadratic(), torch.randn(7, 5, generator=torch.Generator().manual_seed(1))
    penalty = steepness(critic, x, None)  # type: ignore[arg-type]
    assert torch.allclose(penalty, (x @ critic.a).square().sum(1), rtol=1e-5)
    (got,) = torch.autograd.grad(penalty.sum(), critic.a)
    a = critic.a.detach().clone().requires_grad_()
    (wanted,) = torch.autograd.grad((x @ ((a + a.T) / 2)).square().sum(), a)
    assert torch.allclose((got + got.T) / 2, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("r1", "r2"), [(0.0, 3.0), (2.0, 0.0), (2.0, 3.0)])
def test_each_penalty_is_at_its_own_examples(r1: float, r2: float) -> None:
    data, losses = Batch(images(8)), {}
    for weights in ((0.0, 0.0), (r1, r2)):
        model = gan(r1=weights[0], r2=weights[1], penalised=0.5, ada=0.0)
        with rng.forked("cpu", 1):
            losses[weights] = float(model.phases()[0].loss(data, Clock()).loss.detach())
    with rng.forked("cpu", 1):
        made = model.decode(model.draw(8))
    wanted = sum(
        w / 2 * float(steepness(model.critic, x[:4], None).mean().detach()) for w, x in ((r1, data.x), (r2, made))
    )
    assert losses[r1, r2] - losses[0.0, 0.0] == pytest.approx(wanted, rel=1e-4)


def test_penalties_have_single_precision_under_autocast() -> None:
    model, x = gan(), images(4)
    exact = steepness(model.critic, x, None)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(steepness(model.critic, x, None), exact)


# the deviation over the batch


def test_the_deviation_over_the_batch_by_hand() -> None:
    """Features 1 and 4 of two examples vary by 1 and 2 about their means: the third is 1.5 for both."""
    found = with_deviation(torch.tensor([[0.0, 2.0], [2.0, 6.0]]))
    assert torch.allclose(found, torch.tensor([[0.0, 2.0, 1.5], [2.0, 6.0, 1.5]]))


def test_a_critic_with_it_sees_that_samples_are_all_alike() -> None:
    with rng.forked("cpu", 0):
        plain, seeing = (Critic(MLP(widths=(8,)), (4,), minibatch_std=std) for std in (False, True))
    x = images(6, shape=(4,))
    same = x[:1].expand(6, 4)
    assert torch.allclose(plain(x)[0], plain(same)[0]) and not torch.allclose(seeing(x)[0], seeing(same)[0])


# the augmentation


def augment(p: float, spec: Spec = SPEC) -> Augmentation:
    made = Augmentation(spec, 0.6)
    made.p.fill_(p)
    return made


@pytest.mark.parametrize("shape", [(3, 8, 12), (1, 7, 5), (4, 9, 9), (3, 1, 6)])
@pytest.mark.parametrize("p", [0.0, 0.8])
def test_any_size_and_channel_count_and_nothing_at_zero(shape: tuple[int, ...], p: float) -> None:
    x = images(32, shape=shape).requires_grad_()
    with rng.forked("cpu", 0):
        y = augment(p, Spec(shape, "unit"))(x)
    assert y.shape == x.shape and torch.isfinite(y).all() and torch.equal(x, y) == (p == 0)
    (slope,) = torch.autograd.grad(y.square().sum(), x)
    assert torch.isfinite(slope).all() and slope.flatten(1).norm(dim=1).min() > 0


def test_it_is_one_function_of_the_noise_for_real_and_generated() -> None:
    """The same noise makes the same change of any picture: constant pictures show the colours, a dot the place."""
    x, y = images(16, seed=1), images(16, seed=2)
    changes = []
    for pictures_ in (x, y, x + y):
        with rng.forked("cpu", 3):
            changes.append(augment(0.5).move(pictures_))
    assert torch.allclose(changes[0] + changes[1], changes[2], atol=1e-5)  # a warp is linear and the same
    with rng.forked("cpu", 3):
        again = augment(0.5).move(x)
    assert torch.equal(again, changes[0])


def test_quarter_turns_and_mirrors_are_exact() -> None:
    x = images(1, shape=(3, 8, 8))
    change = augment(0.0, Spec((3, 8, 8), "unit"))
    for quarter, wanted in enumerate([x, x.rot90(1, (2, 3)), x.rot90(2, (2, 3)), x.rot90(3, (2, 3))]):
        from sandglass.models._augmentation import normalised, rotation

        matrix = normalised(rotation(torch.tensor([quarter * math.pi / 2])), (8, 8))
        grid = nn.functional.affine_grid(matrix, [1, 3, 8, 8], align_corners=False)
        turned = nn.functional.grid_sample(x, grid, padding_mode="reflection", align_corners=False)
        assert any(torch.allclose(turned, w, atol=1e-5) for w in (wanted, wanted.rot90(2, (2, 3))))
    assert change.p == 0


def test_colours_turn_about_grey() -> None:
    turn = about_grey(torch.tensor([0.7]))[0]
    grey = torch.full((3,), 0.4)
    assert torch.allclose(turn @ grey, grey) and torch.allclose(turn @ turn.T, torch.eye(3), atol=1e-6)


def follow(change: Augmentation, real: Tensor, fake: Tensor, shards: int = 1) -> None:
    """An update by the statistics of a batch that was cut into shards."""
    found = [change.statistics(*pair) for pair in zip(real.chunk(shards), fake.chunk(shards), strict=True)]
    change.follow({name: torch.stack([each[name] for each in found]) for name in found[0]})


def test_it_rises_with_the_separation_and_falls_without() -> None:
    change = augment(0.1)
    apart, mixed = (torch.ones(500), -torch.ones(500)), (torch.tensor([1.0, -1.0] * 250), torch.zeros(500))
    follow(change, *apart)
    assert float(change.p) == pytest.approx(0.1 + 500 / 500_000)
    follow(change, apart[0] + 9, apart[1] + 9)  # a shift of all scores says nothing
    assert float(change.p) == pytest.approx(0.1 + 1000 / 500_000)
    for _ in range(3):
        follow(change, *mixed)
    assert float(change.p) == pytest.approx(0.1 - 500 / 500_000)
    follow(change, *apart, shards=4)  # as much as of the whole batch
    assert float(change.p) == pytest.approx(0.1)
    change.p.fill_(0.8)
    follow(change, *apart)
    assert float(change.p) == pytest.approx(0.8)


def test_a_look_does_not_move_it() -> None:
    model = gan()
    for mode in (True, False):
        with torch.no_grad():
            model.train(mode).phases()[0].loss(Batch(images(4)), Clock())
    assert float(model.ada.p) == 0
    model.eval().phases()[0].loss(Batch(images(4)), Clock())
    assert float(model.ada.p) == 0
    x = images(4)
    model.ada.p.fill_(0.8)
    assert torch.equal(model.shown(x), x)  # what is validated is not augmented


def test_an_update_that_is_not_finite_does_not_move_it() -> None:
    model = gan()
    stepper = Stepper(model, model.stages()[0], Training(device="cpu"))
    stepper.train()
    bad = images(8)
    bad[0] = math.nan
    stepper(Batch(bad), Clock(), 1.0)
    assert float(model.ada.p) == 0
    stepper(Batch(images(8)), Clock(1), 1.0)
    assert float(model.ada.p) != 0 or float(stepper.meter.read()["critic"].means["fake"]) is not None


def test_rows_are_not_augmented() -> None:
    assert registry.build("gan", Spec((4,))).ada is None
    with pytest.raises(ConfigError, match="target"):
        registry.build("gan", SPEC, ada=1.5)


# the average


def test_a_stage_says_its_average_unless_the_run_does() -> None:
    stages = [Stage("a", gan().stages()[0].phases, ema=0.9), Stage("b", gan().stages()[0].phases, ema=0.5)]
    settled = Training().settled([], 1000, stages)
    assert [settled.of_stage(n).ema for n in "ab"] == [0.9, 0.5]
    settled = Training(ema=0.0).settled([], 1000, stages)
    assert [settled.of_stage(n).ema for n in "ab"] == [0.0, 0.0]
    settled = Training(stage={"b": {"ema": 0.7}}).settled([], 1000, stages)
    assert [settled.of_stage(n).ema for n in "ab"] == [0.9, 0.7]
    assert Training().settled([], 1000, gan().stages()).ema == 0.999
    assert Training().settled([], 1000, registry.build("vae", SPEC, net="mlp").stages()).ema == 0


def test_early_averages_forget_the_start() -> None:
    """At step n the decay is (1 + n) / (10 + n): the first three, of the weights 1, by hand."""
    weight = nn.Parameter(torch.zeros(1))
    average = Average({"w": weight}, 0.999)
    weight.data.fill_(1.0)
    left = 1.0
    for step in range(3):
        average.follow(torch.tensor(True), step)
        left *= (1 + step) / (10 + step)
        assert float(average.named()["w"]) == pytest.approx(1 - left)


def test_resume_with_augmentation_and_average_is_exact(tmp_path: Path) -> None:
    data = pictures(24, (3, 8, 8))
    options = {"epochs": 4, "batch_size": 8, "log_every": 2, "keep": 1, "lr": 0.01}

    def start(name: str) -> tuple[Any, Any]:
        model = fresh("gan", data, latent_dim=2, net=SMALL, minibatch_std=True, ada=0.01)
        return make_loop(model, data, tmp_path / name, **options)

    loop, run = start("straight")
    assert loop.own.ema == 0.999
    loop.fit()
    expected, p = digest(loop.model, run), float(loop.model.ada.p)
    assert p > 0
    for k in (1, 5, 8):
        loop, run = start(f"stop{k}")
        stop_at(loop, k, lambda loop=loop: setattr(loop.signals, "stop", 15))
        with pytest.raises(SystemExit):
            loop.fit()
        torch.manual_seed(999)
        loop, run = start(f"stop{k}")
        loop.fit(run.latest_checkpoint()[0])
        assert digest(loop.model, run) == expected and float(loop.model.ada.p) == p


# what was saved before


def test_a_model_saved_without_the_new_options_is_what_it_was() -> None:
    new = {"r2", "r2_schedule", "penalised", "ada", "minibatch_std"}
    known = registry.merged("model", "gan", {})
    old = {k: v for k, v in known.items() if k not in new} | {"adversary": "hinge", "net": {"name": "conv"}}
    model = registry.build("gan", SPEC, **registry.completed("gan", old))
    assert model.ada is None and model.critic.batch is None and model.r2.value == 0 and model.penalised == 1
    assert not any(key.startswith("ada") for key in model.state_dict())
    assert set(model.earlier) == new
