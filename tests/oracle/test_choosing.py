"""Which weights are kept: the objective at its final weights decides, never one that a schedule still bends."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers import Quiet, fresh, make_loop, pictures, rows
from sandglass.core import Batch, Clock, Terms
from sandglass.errors import ConfigError


def test_a_warm_up_does_not_keep_an_early_epoch(tmp_path: Path) -> None:
    x = torch.randn(1600, 2, generator=torch.Generator().manual_seed(0)) @ torch.tensor([[3.0, 1, 0, 2], [0, 2, -3, 1]])
    data = rows(x[:1500], x[1500:])
    likelihood = {"name": "gaussian", "learn": "none", "scale": 0.5}
    beta = {"beta": 20.0, "beta_schedule": {"name": "linear", "epochs": 16}}
    model = fresh("vae", data, net="linear", latent_dim=2, likelihood=likelihood, **beta)
    loop, run = make_loop(model, data, tmp_path / "run", epochs=18, batch_size=20, lr=0.01)
    loop.fit()
    by_term = {
        term: [r["value"] for r in run.metrics() if r["split"] == "validation" and r["term"] == term]
        for term in ("loss", "objective", "rate", "distortion")
    }
    # While the weight is near 0 the current loss is lowest; the final objective is not.
    naive = by_term["loss"].index(min(by_term["loss"]))
    chosen = by_term["objective"].index(min(by_term["objective"]))
    assert naive != chosen
    assert run.pointed("BEST") == (chosen + 1) * loop.loader.steps_per_epoch
    for objective, distortion, rate in zip(by_term["objective"], by_term["distortion"], by_term["rate"], strict=True):
        assert objective == pytest.approx(distortion + 20.0 * rate, rel=1e-5)


def test_the_weight_follows_the_clock_as_a_tensor() -> None:
    data = pictures()
    model = fresh("vae", data, net="mlp", latent_dim=2, beta=2.0, beta_schedule={"name": "linear", "epochs": 4})
    assert float(model.penalty.beta(Clock(epoch=torch.tensor(1.0)))) == 0.5
    assert float(model.penalty.beta(Clock.final())) == 2.0
    batch = Batch(torch.rand(4, 1, 8, 8))
    torch.manual_seed(0)
    start = model.elbo(batch, Clock())
    torch.manual_seed(0)
    end = model.elbo(batch, Clock.final())
    assert torch.allclose(start.loss, start.parts["distortion"].mean())
    assert torch.allclose(end.loss, (end.parts["distortion"] + 2 * end.parts["rate"]).mean())


def test_early_stopping_ends_the_run_and_keeps_the_best(tmp_path: Path) -> None:
    data = pictures(n=40)
    model = fresh("vae", data, net="mlp", latent_dim=2)
    options = {"epochs": 200, "batch_size": 20, "lr": 0.05, "early_stopping": 3}
    loop, run = make_loop(model, data, tmp_path / "run", **options)
    loop.fit()
    objectives = [r["value"] for r in run.metrics() if r["split"] == "validation" and r["term"] == "objective"]
    assert len(objectives) < 200
    assert objectives.index(min(objectives)) == len(objectives) - 4
    assert run.pointed("BEST") == (len(objectives) - 3) * 2


def test_plateau_lowers_the_learning_rate(tmp_path: Path) -> None:
    data = pictures(n=40)
    options = {"epochs": 30, "batch_size": 20, "lr": 0.05, "schedule": "plateau", "schedule_every": 2}
    loop, run = make_loop(fresh("vae", data, net="mlp", latent_dim=2), data, tmp_path / "run", **options)
    loop.fit()
    rates = [r["value"] for r in run.metrics() if r["term"] == "lr"]
    assert rates[0] == 0.05
    drops = [b / a for a, b in pairwise(rates) if b != a]
    assert drops and drops == pytest.approx([0.1] * len(drops))
    # The last drop can come after the last step that was logged.
    assert rates[-1] * 0.1 <= 0.05 * loop.now.plateau * (1 + 1e-9) <= rates[-1] * (1 + 1e-8)


def test_the_test_split_never_chooses() -> None:
    from sandglass.engine.options import Training

    for bad in ({"select": "best"}, {"select": "last", "early_stopping": 2}, {"select": "last", "schedule": "plateau"}):
        with pytest.raises(ConfigError, match="watch is test"):
            Training(watch="test", **bad)


def test_the_average_is_what_is_validated_and_kept(tmp_path: Path) -> None:
    torch.manual_seed(0)
    data = rows(torch.randn(60, 4), torch.randn(20, 4))
    loop, run = make_loop(fresh("vae", data, latent_dim=2), data, tmp_path / "run", epochs=4, batch_size=10, ema=0.9)
    loop.fit()
    kept, last = run.load_model(), loop.model
    assert any(not torch.equal(a, b) for a, b in zip(kept.parameters(), last.parameters(), strict=True))
    average = loop.stepper.average.named()
    if run.pointed("BEST") == loop.now.step:
        for name, p in kept.named_parameters():
            assert torch.equal(p, average[name])


def test_the_average_is_the_closed_form() -> None:
    from sandglass.engine.options import Training
    from sandglass.engine.step import Stepper

    data = rows(torch.randn(8, 4))
    model = fresh("vae", data, latent_dim=2)
    stepper = Stepper(model, model.stages()[0], Training(ema=0.75, device="cpu"))
    start = [p.detach().clone() for p in stepper.params]
    with torch.no_grad():
        for p in stepper.params:
            p.add_(1.0)
    stepper.average.follow(torch.tensor(True), 100)
    stepper.average.follow(torch.tensor(False), 101)
    for p, average in zip(start, stepper.average.values, strict=True):
        assert torch.allclose(average, p + 0.25, atol=1e-6)


def test_accumulation_is_the_same_update(tmp_path: Path) -> None:
    data = rows(torch.randn(60, 4, generator=torch.Generator().manual_seed(0)))
    weights = []
    for parts in (1, 3):
        model = fresh("ae", data, latent_dim=2, likelihood={"name": "gaussian", "learn": "none"})
        options = {"epochs": 3, "batch_size": 30, "accumulate": parts, "select": "last"}
        loop, _ = make_loop(model, data, tmp_path / str(parts), progress=Quiet(), **options)
        loop.fit()
        weights.append([p.detach() for p in model.parameters()])
    for a, b in zip(*weights, strict=True):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-6)


def test_clipping_acts(tmp_path: Path) -> None:
    data = rows(torch.randn(60, 4, generator=torch.Generator().manual_seed(0)))
    moved = []
    for clip in (None, 1e-4):
        model = fresh("ae", data, latent_dim=2)
        before = [p.detach().clone() for p in model.parameters()]
        options = {"epochs": 1, "batch_size": 60, "optimizer": "sgd", "clip": clip, "lr": 0.1, "select": "last"}
        loop, run = make_loop(model, data, tmp_path / str(clip), **options)
        loop.fit()
        steps = [(p.detach() - q).square().sum() for p, q in zip(model.parameters(), before, strict=True)]
        moved.append(float(torch.stack(steps).sum().sqrt()))
        assert next(r["value"] for r in run.metrics() if r["term"] == "grad_norm") > 1e-3  # as it was before clipping
    assert moved[1] == pytest.approx(0.1 * 1e-4, rel=1e-3)
    assert moved[0] > 10 * moved[1]


def test_batches_of_validation_are_not_of_one_class(tmp_path: Path) -> None:
    """Of a split that is sorted by class; the order is random, and the same in every validation."""
    from sandglass.engine.validate import validate

    x = torch.arange(3.0).repeat_interleave(512)[:, None].expand(-1, 2).contiguous()  # three batches' worth
    own: Any = fresh("dip-vae", rows(x, x), latent_dim=2, net="linear")
    loop, _ = make_loop(own, rows(x, x), tmp_path / "run", batch_size=64)
    seen, loss = [], own.elbo

    def watched(batch: Batch, clock: Clock) -> Terms:
        seen.append(batch.x[:, 0])
        found: Terms = loss(batch, clock)
        return found

    loop.stepper.phases = [replace(phase, loss=watched, scheduled=False) for phase in loop.stepper.phases]
    first, second = (validate(loop.stepper, loop.watched, Clock.final()) for _ in range(2))  # type: ignore[arg-type]
    assert first == second and len(seen) == 6
    assert torch.equal(torch.cat(seen[:3]).sort()[0], x[:, 0])
    for some in seen:  # 171 of each are expected; fewer than 100 once in 10^10 orders
        assert int(torch.bincount(some.long(), minlength=3).min()) > 100


def test_validation_is_in_eval_mode(tmp_path: Path) -> None:
    """With most units dropped in training, two validations of the same weights still agree."""
    from sandglass.engine.validate import validate

    data = pictures()
    net = {"name": "mlp", "widths": [16], "dropout": 0.9}
    loop, _ = make_loop(fresh("ae", data, latent_dim=2, net=net), data, tmp_path / "run", epochs=1, batch_size=25)
    loop.model.train()
    measured = validate(loop.stepper, data.splits["validation"], Clock())
    loop.model.eval()
    x = data.splits["validation"].batch(slice(0, None)).x
    with torch.no_grad():
        expected = float(-loop.model.p(loop.model.encode(x)).log_prob(x).mean())
    assert measured is not None
    assert measured["reconstruction", "objective"] == pytest.approx(expected, rel=1e-5)
