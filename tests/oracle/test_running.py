"""The runner of trained models: the same for the same key, whatever else is run, and nothing is left changed."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from helpers import Draws
from sandglass import registry, rng, running
from sandglass.core import Batch, Model, Spec
from sandglass.data.dataset import Split

SPEC = Spec((4,), classes=3, given={"tag": Spec((2,))})
NET = {"name": "mlp", "widths": [8]}


def examples(n: int) -> Split:
    """Rows whose companion is their number, sorted by class."""
    generator = torch.Generator().manual_seed(0)
    tag = torch.arange(n).float()[:, None].expand(n, 2).clone()
    return Split(torch.randn(n, 4, generator=generator), torch.arange(n) * 3 // n, given={"tag": tag})


def make(**options: object) -> Model:
    with rng.forked("cpu", 0, "weights"):
        return registry.build("vae", SPEC, net=NET, latent_dim=2, **options)


@pytest.mark.parametrize("given", ["", "labels", "tag"])
def test_of_more_samples_the_first_are_the_same(given: str) -> None:
    model, split = make(condition=given), examples(40)
    key = (3, "test")

    def draws(n: int) -> Tensor:
        return running.sample(model, n, key=key, given=running.conditions(model, split, n, *key), noise=True)

    many = draws(700)
    for n in (1, 40, 255, 256, 257):
        assert torch.equal(draws(n), many[:n]), n
    assert not torch.equal(running.sample(make(), 5, key=(3,)), running.sample(make(), 5, key=(4,)))


def test_conditions_have_the_proportions_of_the_split() -> None:
    model, split = make(condition="labels"), examples(30)
    given = running.conditions(model, split, 60, 0)
    assert given is not None and given.x is None and given.y is not None
    assert given.y.bincount().tolist() == [20, 20, 20] and len(given) == 60
    number = given.given["tag"][:, 0].long()
    assert torch.equal(given.y, split.y[number]), "label and companion are of one example"  # type: ignore[index]
    assert number[:30].sort().values.tolist() == number[30:].sort().values.tolist() == list(range(30))
    assert not torch.equal(number[:30], number[30:]) and not torch.equal(number[:30], torch.arange(30))
    other = running.conditions(model, split, 60, 1)
    assert other is not None and not torch.equal(other.y, given.y)  # type: ignore[arg-type]
    assert running.conditions(make(), split, 60, 0) is None


def test_a_set_beside_is_a_condition_in_an_order_of_its_own() -> None:
    spec = Spec((1, 8, 8), "unit", beside={"b": Spec((1, 8, 8), "unit")})
    model = registry.build("cycle-gan", spec)
    other = Split(torch.arange(7).float().view(7, 1, 1, 1).expand(7, 1, 8, 8) / 7)
    split = Split(torch.zeros(5, 1, 8, 8), beside={"b": other})
    given = running.conditions(model, split, 7, 0)
    assert given is not None
    order = (given.beside["b"].x[:, 0, 0, 0] * 7).round().long()
    assert order.sort().values.tolist() == list(range(7)) and order.tolist() != list(range(7))
    part = running.placed(model, given, torch.tensor([6, 0]))
    assert torch.equal(part.beside["b"].x, given.beside["b"].x[[6, 0]])
    drawn = running.sample(model, 7, given=given)
    with running.observing(model):
        assert torch.allclose(drawn, model.sample(7, given), atol=1e-6)


def test_an_example_depends_on_no_other_when_sizes_are_fixed() -> None:
    model, split = make(), examples(300)
    whole = running.over(model, split, model.encode, size=64, fixed=True)
    for n in (1, 2, 63, 65, 299):
        assert torch.equal(
            running.over(model, split.take(torch.arange(n)), model.encode, size=64, fixed=True), whole[:n]
        )
    decoded = running.decode(model, whole, fixed=True)
    for n in (1, 7, 257):
        assert torch.equal(running.decode(model, whole[:n], fixed=True), decoded[:n])


def test_noise_is_keyed_by_the_batch() -> None:
    model, split = make(), examples(10)

    def noise(batch: Batch) -> Tensor:
        return torch.rand(len(batch))

    found = running.over(model, split, noise, key=(7, "a"), size=4)
    for place, part in enumerate(found.split(4)):
        with rng.forked("cpu"):
            rng.reseed(rng.key(7, "a", place), torch.device("cpu"))
            assert torch.equal(part, torch.rand(len(part)))


def test_modes_and_generators_are_as_they_were() -> None:
    model = make().train()
    frozen = model.q.eval()  # type: ignore[operator, union-attr]
    state = torch.get_rng_state()
    with running.observing(model, 0, "test"):
        assert not any(module.training for module in model.modules()) and not torch.is_grad_enabled()
        torch.rand(3)
    assert model.training and not frozen.training and torch.is_grad_enabled()
    assert torch.equal(state, torch.get_rng_state())


def test_large_examples_are_made_few_at_once() -> None:
    model = Draws(Spec((3, 1024, 1024), "unit"), lambda n: torch.zeros(n, 1).expand(n, 3))
    running.sample(model, 12)
    assert [n for n, _ in model.asked] == [5, 5, 5]
    model.spec = replace(model.spec, shape=(3, 8, 8))
    assert running.at_once(model) == running.ROWS


def test_samples_are_drawn_in_the_precision_of_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "has_bf16", lambda: True)
    spec = Spec((1, 8, 8), "unit")
    model = registry.build("flow-matching", spec, net={"name": "conv", "width": 8}, steps=2).eval()
    single = running.sample(model, 3)
    monkeypatch.setattr(running, "quickly", lambda model: torch.autocast("cpu", enabled=False))
    assert torch.equal(single, running.sample(model, 3)), "fp32 unless a run says otherwise"
    monkeypatch.undo()
    monkeypatch.setattr(running, "has_bf16", lambda: True)
    model.precision = "bf16"
    assert not torch.equal(single, running.sample(model, 3))
    assert torch.allclose(single, running.sample(model, 3), atol=0.05)
