"""Figures in bf16: only where a sample shows that they are those of float32."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sandglass import registry
from sandglass.core import Batch, Model, Spec
from sandglass.data.dataset import Split
from sandglass.metrics import _half
from sandglass.metrics.evaluation import Evaluation
from sandglass.metrics.measure import measure, per_example

SPEC = Spec((1, 28, 28), "unit")


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Model:
    monkeypatch.setattr(_half, "has_bf16", lambda: True)
    monkeypatch.setattr(_half, "FEWEST", 60)
    torch.manual_seed(0)
    return registry.build(
        "vae", SPEC, latent_dim=4, net={"name": "mlp", "widths": [512]}, likelihood="bernoulli"
    ).eval()


def pixels(n: int = 64) -> Split:
    return Split(torch.randint(256, (n, 1, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)))


def test_a_figure_in_bf16_says_how_far_it_is(model: Model) -> None:
    (found,) = measure(model, pixels(), names=["log_prob"], log_prob={"k": 100})
    assert "bf16 products, " in found.note and "on 50 examples" in found.note
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_half, "has_bf16", lambda: False)
        (exact,) = measure(model, pixels(), names=["log_prob"], log_prob={"k": 100})
    assert "bf16" not in exact.note
    assert exact.value != found.value
    assert abs(exact.value - found.value) < _half.TOLERANCE
    said = found.note.split("bf16 products, ")[1].split(" nats")[0].split(" +- ")
    assert abs(found.value - exact.value - float(said[0])) < 5 * float(said[1]) + 2e-3, "once in a million seeds"


@pytest.mark.parametrize("shift", [0.06, -0.06, float("nan")])
def test_where_bf16_changes_a_figure_it_is_in_float32(model: Model, shift: float) -> None:
    def f(batch: Batch) -> Tensor:
        value = model.bound(batch).elbo
        return value + shift if torch.is_autocast_enabled("cpu") else value

    evaluation = Evaluation(split=pixels(), spec=SPEC, seed=0)
    values, note = _half.in_half(model, evaluation, "f", f, 100)
    assert not note
    assert torch.equal(values, per_example(model, evaluation, "f", f))


@pytest.mark.parametrize(("n", "draws"), [(59, 1000), (64, 10)])
def test_a_few_evaluations_are_in_float32(model: Model, n: int, draws: int) -> None:
    evaluation = Evaluation(split=pixels(n), spec=SPEC, seed=0)
    seen: list[bool] = []

    def f(batch: Batch) -> Tensor:
        seen.append(torch.is_autocast_enabled("cpu"))
        return model.bound(batch).elbo

    assert not _half.in_half(model, evaluation, "f", f, draws)[1]
    assert seen and not any(seen)
