"""Schedules against their papers' formulas and PyTorch's; what a VAE does with them, gradients by hand."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import lr_scheduler

import sandglass
from helpers import fresh, make_loop, rows
from sandglass import registry, rng
from sandglass.core import Batch, Clock, Model, Spec
from sandglass.distributions.conditional import Conditional, DiagonalGaussian
from sandglass.engine.options import SCHEDULES as RATES
from sandglass.engine.options import Settled
from sandglass.engine.schedules import make_factor
from sandglass.engine.validate import validate
from sandglass.errors import ConfigError
from sandglass.schedules.schedule import Schedule

SCHEDULES = registry.names("schedule")
AT_REST = [name for name in SCHEDULES if registry.resolve("schedule", name).final is not None]


def made(name: str, **options: Any) -> Schedule:
    schedule: Schedule = registry.resolve("schedule", {"name": name, **options})
    return schedule


# every schedule


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_is_a_pure_function_of_time(name: str) -> None:
    schedule, times = made(name), [k / 7 for k in range(300)]
    numbers = [schedule(t) for t in times]
    assert all(type(v) is float and math.isfinite(v) and v >= 0 for v in numbers)
    assert numbers[::-1] == [schedule(t) for t in reversed(times)]
    for dtype, bar in ((torch.float64, 0.0), (torch.float32, 1e-4)):
        for t, number in zip(times[::9], numbers[::9], strict=True):
            value = schedule(torch.tensor(t, dtype=dtype))
            assert value.shape == () and value.dtype == dtype
            assert float(value) == pytest.approx(number, abs=bar)


@pytest.mark.parametrize("name", AT_REST)
def test_a_schedule_comes_to_rest_at_its_final_value(name: str) -> None:
    schedule = made(name)
    for t in (1e3, math.inf):
        assert schedule(t) == schedule.final
        assert float(schedule(Clock.final().epoch)) == schedule.final
    end = getattr(schedule, "updates" if schedule.by_updates else "epochs", 0.0)
    assert schedule(end) == schedule(end + 0.01) == schedule.final


def test_ramps_by_hand() -> None:
    linear = made("linear", epochs=8, start=0.5, end=2.5)
    assert [linear(t) for t in (0, 2, 4, 8, 100)] == [0.5, 1.0, 1.5, 2.5, linear.final]
    cosine = made("cosine", epochs=6, start=1, end=0)
    assert [cosine(t) for t in (0, 2, 3, 4, 6)] == pytest.approx([1, 0.75, 0.5, 0.25, 0], abs=1e-15)
    assert (linear.final, cosine.final) == (2.5, 0.0)
    low, high = 1 / (1 + math.exp(6)), 1 / (1 + math.exp(-6))
    for share in (0, 0.1, 0.5, 0.77, 1):
        logistic = 1 / (1 + math.exp(-(12 * share - 6)))
        assert made("sigmoid", epochs=5)(5 * share) == pytest.approx((logistic - low) / (high - low), abs=1e-14)


@pytest.mark.parametrize("ramp", ["linear", "sigmoid", "cosine"])
def test_cycles_are_those_of_fu_et_al(ramp: str) -> None:
    """Their equation (6), with T iterations, M cycles and the share R: ``mod(t, T / M) / (T / M)``, and 1 beyond R."""
    total, cycles, ratio = 120, 4, 0.6
    schedule = made("cyclical", epochs=total, cycles=cycles, ratio=ratio, ramp=ramp)
    rise = made(ramp, epochs=ratio)
    for t in range(total):
        tau = (t % (total // cycles)) / (total / cycles)
        assert schedule(t) == pytest.approx(rise(tau) if tau <= ratio else 1.0, abs=1e-12), t
    assert [schedule(t) for t in (30, 60, 90)] == [0, 0, 0]


REFUSED = [
    ("linear", {"epochs": 0}), ("linear", {"epochs": math.inf}), ("sigmoid", {"start": -1}),
    ("cosine", {"end": math.nan}),
    ("cyclical", {"cycles": 0}), ("cyclical", {"ratio": 0}), ("cyclical", {"ratio": 1.1}), ("cyclical", {"ramp": "up"}),
    ("step", {"every": 0}), ("step", {"factor": 0}), ("step", {"factor": 1.5}), ("triangular", {"peak": 1}),
    ("triangular2", {"every": -2}), ("exp_range", {"factor": 2}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "options"), REFUSED, ids=str)
def test_a_number_that_makes_no_sense_is_refused_by_its_name(name: str, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"option {next(iter(options))} must be"):
        made(name, **options)


# the learning rate, against PyTorch's


def rates_of(make: Callable[[torch.optim.Optimizer], Any], steps: int, lr: float = 0.02) -> list[float]:
    """The learning rates that a scheduler of PyTorch's gives, one a step."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr)
    scheduler, rates = make(optimizer), []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            scheduler.step()
    return rates


def ours(steps: int, steps_per_epoch: int = 5, lr: float = 0.02, **options: Any) -> list[float]:
    factor = make_factor(Settled(**options), steps_per_epoch)
    return [lr * factor(step) for step in range(steps)]


@pytest.mark.parametrize("mode", ["triangular", "triangular2", "exp_range"])
@pytest.mark.parametrize(("every", "steps_per_epoch"), [(2, 5), (3, 7), (1, 1)])
def test_cyclic_rates_are_those_of_pytorch_step_by_step(mode: str, every: int, steps_per_epoch: int) -> None:
    half = every * steps_per_epoch
    gamma = 0.7 ** (1 / half)
    theirs = rates_of(
        lambda o: lr_scheduler.CyclicLR(o, 0.02, 0.02 * 3.5, half, mode=mode, gamma=gamma, cycle_momentum=False),
        9 * half,
    )
    options = {"schedule": mode, "schedule_every": every, "schedule_factor": 0.7, "schedule_peak": 3.5}
    assert ours(9 * half, steps_per_epoch, **options) == pytest.approx(theirs, rel=1e-12)
    assert max(theirs) > 2 * min(theirs)


def test_cosine_and_step_are_those_of_pytorch() -> None:
    theirs = rates_of(lambda o: lr_scheduler.CosineAnnealingLR(o, 60), 60)
    assert ours(60, epochs=12, schedule="cosine") == pytest.approx(theirs, rel=1e-9)
    theirs = rates_of(lambda o: lr_scheduler.StepLR(o, 15, 0.3), 60)
    assert ours(60, schedule="step", schedule_every=3, schedule_factor=0.3) == pytest.approx(theirs, rel=1e-12)


@pytest.mark.parametrize("patience", [1, 2, 5])
def test_plateau_is_that_of_pytorch(patience: int, tmp_path: Path) -> None:
    """PyTorch drops after more bad epochs than its patience, and asks for some improvement unless told not to."""
    data = rows(torch.randn(20, 3), torch.randn(5, 3))
    options = {"schedule": "plateau", "schedule_every": patience, "schedule_factor": 0.5, "batch_size": 20}
    loop, _ = make_loop(fresh("ae", data, latent_dim=1), data, tmp_path / "run", **options)
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    scheduler = lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=patience - 1, threshold=0.0, eps=0.0)
    generator, drops = torch.Generator().manual_seed(0), set()
    for epoch in range(80):
        objective = float(torch.randint(0, 40, (), generator=generator)) - epoch / 4
        loop.compare(objective)
        scheduler.step(objective)
        assert loop.now.plateau == optimizer.param_groups[0]["lr"], epoch
        drops.add(loop.now.plateau)
    assert len(drops) > 3


@pytest.mark.parametrize("schedule", RATES)
def test_the_rate_at_a_step_depends_on_nothing_before(schedule: str) -> None:
    options = Settled(epochs=9, schedule=schedule, schedule_every=2, lr_warmup=1.5)
    factor = make_factor(options, 4)
    forwards = [factor(step) for step in range(36)]
    assert [make_factor(options, 4)(step) for step in (35, 17, 3)] == [forwards[step] for step in (35, 17, 3)]
    assert [factor(step) for step in reversed(range(36))] == forwards[::-1]


@pytest.mark.parametrize("schedule", RATES)
def test_a_warm_up_goes_before_any_schedule(schedule: str) -> None:
    options = {"epochs": 12, "schedule": schedule, "schedule_every": 2}
    warm = ours(60, lr_warmup=2, **options)
    assert warm[:10] == pytest.approx([0.02 * (k + 1) / 11 for k in range(10)], rel=1e-12)
    after = ours(50, **options | {"epochs": 10})
    assert warm[10:] == pytest.approx(after, rel=1e-12, abs=1e-15)


def test_what_was_logged_is_the_schedule(tmp_path: Path) -> None:
    data = rows(torch.randn(30, 3, generator=torch.Generator().manual_seed(0)), torch.randn(9, 3))
    beta = {"beta": 3.0, "beta_schedule": {"name": "cyclical", "epochs": 4, "cycles": 2}}
    model = fresh("vae", data, latent_dim=2, net={"name": "mlp", "widths": [4]}, **beta)
    options = {"epochs": 6, "batch_size": 10, "lr": 0.01, "schedule": "triangular", "schedule_every": 1, "log_every": 1}
    loop, run = make_loop(model, data, tmp_path / "run", **options)
    loop.fit()
    logged = {t: [r["value"] for r in run.metrics() if (r["split"], r["term"]) == ("train", t)] for t in ("lr", "beta")}
    weight = made("cyclical", epochs=4, cycles=2)
    assert logged["beta"] == pytest.approx([3 * weight(step / 3) for step in range(18)], rel=1e-5, abs=1e-6)
    assert logged["lr"] == pytest.approx(ours(18, 3, 0.01, schedule="triangular", schedule_every=1), rel=1e-12)


# what a VAE does with them

DIM = 3


def bare(beta: float, **options: Any) -> Model:
    """A VAE of rows whose posterior has half of the damaged copy as means and the other half as log variances."""
    row = Spec((2 * DIM,))
    with rng.forked("cpu", 0, "weights"):
        spec = replace(row, given={"damaged": row})
        model = registry.build("vae", spec, latent_dim=DIM, beta=beta, **options).double()
    model.q = DiagonalGaussian(nn.Identity())
    return model


def pressed(h: Tensor, clock: Clock, **options: Any) -> tuple[Tensor, Tensor]:
    """What beta is multiplied with in the loss, and its gradient to the means and log variances ``(B, 2 DIM)``."""
    found = []
    for beta in (0.0, 1.0):
        model, x = bare(beta, **options), h.clone().requires_grad_()
        with rng.forked("cpu", 3):
            loss = model.elbo(Batch(torch.zeros_like(h), given={"damaged": x}), clock).loss
        found.append((loss.detach(), torch.autograd.grad(loss, x)[0]))
    return found[1][0] - found[0][0], found[1][1] - found[0][1]


@pytest.fixture
def h() -> Tensor:
    scale = torch.tensor([2.0, 0.1, 1.0, 1.0, 0.1, 0.5], dtype=torch.float64)
    return scale * torch.randn(8, 2 * DIM, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def rates_by_hand(h: Tensor) -> tuple[Tensor, Tensor]:
    """``(B, DIM)`` rates and their gradient ``(B, 2 DIM)``: the mean, and half of the variance less 1."""
    mean, log_variance = h.chunk(2, 1)
    each = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance)
    return each, torch.cat([mean, 0.5 * (log_variance.exp() - 1)], 1)


@pytest.mark.parametrize("epoch", [0.0, 2.0, math.inf])
def test_a_capacity_is_burgess_et_al_by_hand(epoch: float, h: Tensor) -> None:
    """``|rate - C|`` of each example: its gradient is the rate's, turned round where the rate is below C."""
    each, gradient = rates_by_hand(h)
    rates, capacity = each.sum(1), 2.5 * min(1.0, epoch / 4)
    schedule = {"name": "linear", "epochs": 4}
    clock = Clock(epoch=torch.tensor(epoch, dtype=torch.float64), update=torch.tensor(1e9, dtype=torch.float64))
    value, found = pressed(h, clock, capacity=2.5, capacity_schedule=schedule)
    assert float(value) == pytest.approx(float((rates - capacity).abs().mean()), rel=1e-12)
    assert torch.allclose(found, gradient * (rates - capacity).sign()[:, None] / len(h), atol=1e-12)
    assert epoch == 0 or {-1.0, 1.0} == set((rates - capacity).sign().tolist())


def test_free_bits_are_kingma_et_al_by_hand(h: Tensor) -> None:
    """``sum_j max(free_bits, mean over the batch of rate_j)``: no gradient to the dimensions below."""
    each, gradient = rates_by_hand(h)
    means = each.mean(0)
    value, found = pressed(h, Clock.final(), free_bits=0.2)
    assert float(value) == pytest.approx(float(means.clamp(min=0.2).sum()), rel=1e-12)
    above = means > 0.2
    assert 0 < int(above.sum()) < DIM
    assert torch.allclose(found, gradient * torch.cat([above, above]) / len(h), atol=1e-12)


@pytest.mark.parametrize("options", [
    {"beta_schedule": "cyclical"}, {"beta_schedule": {"name": "sigmoid", "end": 0.5}}, {"capacity": 2.0},
    {"capacity": 2.0, "beta_schedule": "linear"}, {"free_bits": 0.3, "beta_schedule": "cosine"},
], ids=str)  # fmt: skip
def test_the_objective_is_the_loss_at_the_end_of_time(options: dict[str, Any], tmp_path: Path) -> None:
    x = torch.randn(30, 6, generator=torch.Generator().manual_seed(0))
    model = fresh("vae", rows(x, x), latent_dim=2, beta=2.0, net={"name": "mlp", "widths": [4]}, **options)
    loop, _ = make_loop(model, rows(x, x), tmp_path / "run", batch_size=10)
    now = validate(loop.stepper, loop.watched, Clock())  # type: ignore[arg-type]
    end = validate(loop.stepper, loop.watched, Clock.final())  # type: ignore[arg-type]
    assert now is not None and end is not None
    assert now["elbo", "objective"] == end["elbo", "loss"] == end["elbo", "objective"] != now["elbo", "loss"]


@pytest.mark.parametrize("options", [{"capacity": 5.0}, {"free_bits": 1.0}, {"beta_schedule": "linear"}], ids=str)
def test_the_bound_is_untouched(options: dict[str, Any], h: Tensor) -> None:
    found = []
    for given in ({}, options):
        with rng.forked("cpu", 5):
            bound = bare(4.0, **given).bound(h)
            found.append(torch.stack([bound.distortion, bound.rate]))
    assert torch.equal(*found)


def test_a_schedule_longer_than_the_run_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for epochs, said in ((1, True), (2, False)):
        options = {"latent_dim": 2, "net": "linear", "beta_schedule": {"name": "linear", "epochs": 2}}
        sandglass.train(
            "vae", rows(torch.randn(20, 3)), out=tmp_path / str(epochs), epochs=epochs, model_options=options
        )
        assert ("beta reaches only 0.5 by the end" in capsys.readouterr().err) == said


def test_only_a_weight_that_moves_is_scheduled() -> None:
    for options, moves in (
        ({}, True), ({"beta_schedule": "constant"}, False),
        ({"beta": 0.0, "beta_schedule": "linear"}, False), ({"beta_schedule": "linear"}, True),
        ({"capacity": 1.0, "capacity_schedule": "constant"}, False), ({"capacity": 1.0}, True),
    ):  # fmt: skip
        options = {"beta_schedule": "constant", **options} if "capacity" in options else options
        assert fresh("vae", rows(torch.zeros(4, 3)), **options).phases()[0].scheduled is moves


def test_what_a_weight_cannot_follow_is_refused() -> None:
    data = rows(torch.randn(4, 3))
    for name in set(SCHEDULES) - set(AT_REST):
        with pytest.raises(ConfigError, match=r"beta_schedule needs a schedule with a final value.*cyclical"):
            fresh("vae", data, beta_schedule=name)
    with pytest.raises(ConfigError, match="capacity or free_bits, not both"):
        fresh("vae", data, capacity=1.0, free_bits=1.0)
    for option in ("beta", "capacity", "free_bits"):
        for value in (-1.0, math.nan, math.inf):
            with pytest.raises(ConfigError, match=option):
                fresh("vae", data, **{option: value})


class Odd(Conditional):
    """A prior whose rate has no closed form."""

    def forward(self, c: Tensor | None = None) -> torch.distributions.Distribution:
        return torch.distributions.MultivariateNormal(torch.zeros(2), torch.eye(2))


def test_free_bits_need_a_rate_for_each_dimension() -> None:
    data = rows(torch.randn(4, 3))
    assert fresh("vae", data, latent_dim=2, prior=Odd())
    with pytest.raises(ConfigError, match="free_bits needs a prior"):
        fresh("vae", data, latent_dim=2, prior=Odd(), free_bits=0.5)
