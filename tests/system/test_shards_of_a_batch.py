"""How a batch is divided into shards and among processes."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from test_processes import MLP

import sandglass
from helpers import fresh, pictures
from sandglass.core import Batch, Clock, Model, Phase, Terms
from sandglass.data.augment import make_augmentation
from sandglass.data.loading import Loader
from sandglass.engine.options import Settled, Training
from sandglass.engine.processes import ALONE, Processes, check_shards, cuts, joined, lines, shared
from sandglass.engine.step import Stepper
from sandglass.errors import ConfigError


@pytest.mark.parametrize(("total", "count"), [(1, 1), (4, 1), (4, 2), (4, 4), (6, 2), (6, 3)])
def test_every_example_is_of_one_process(total: int, count: int) -> None:
    model = fresh("vae", pictures(), **MLP)
    for n in range(1, 20):
        cut = cuts(n, total)
        assert [c.stop - c.start for c in cut] == [len(range(n)[c]) for c in cut] and cut[-1].stop == n
        dealt = [list(Processes(rank, count).shards(total, len(cut))) for rank in range(count)]
        assert [shard for own in dealt for shard in own] == list(range(len(cut)))
        for rank, own in enumerate(dealt):
            options = Training(device="cpu", accumulate=total)
            rows = Stepper(model, model.stages()[0], options, Processes(rank, count)).gradient.rows(n)
            assert not own or (rows.start, rows.stop) == (cut[own[0]].start, cut[own[-1]].stop)


@pytest.mark.parametrize("changes", [[], ["shift", "flip"], ["mixup"]])
def test_rows_of_a_batch_are_those_of_the_whole(changes: list[str]) -> None:
    data = pictures()
    augment = make_augmentation(changes, data.spec)
    whole = Loader(data.train, 16, seed=1, augment=augment)
    part = Loader(data.train, 16, seed=1, augment=augment, rows=lambda n: slice(n // 3, n // 2))
    for step in range(2 * whole.steps_per_epoch):
        n = whole.size(step)
        a, b = whole.batch(step), part.batch(step)
        assert len(a) == n and torch.equal(a.x[n // 3 : n // 2], b.x) and torch.equal(a.index[n // 3 : n // 2], b.index)


class Counting(Model):
    """Its buffers say what became of the shards."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.register_buffer("seen", torch.zeros(()))
        self.register_buffer("all", torch.zeros(()))

    def phases(self) -> tuple[Phase, ...]:
        return (Phase("count", (self.weight,), self.loss, follow=self.follow),)

    def loss(self, batch: Batch, clock: Clock) -> Terms:
        self.seen += batch.x.sum()
        return Terms((self.weight * batch.x).mean(), {}, {}, {"sum": batch.x.sum()})

    def follow(self, statistics: Mapping[str, torch.Tensor]) -> None:
        assert statistics["sum"].shape == (3,)
        self.all += statistics["sum"].sum()

    def sample(self, n: int, given: Batch | None = None, *, noise: bool = False) -> torch.Tensor:
        return torch.zeros(n, 1)


def test_shards_begin_from_the_same_buffers_and_statistics_are_of_all() -> None:
    model = Counting()
    stepper = Stepper(model, model.stages()[0], Training(device="cpu", accumulate=3))
    for step in range(2):
        stepper(Batch(torch.tensor([[1.0], [2.0], [4.0]])), Clock(step), 1.0)
    assert float(model.seen) == 2 and float(model.all) == 14
    stepper(Batch(torch.tensor([[1.0], [2.0], [float("nan")]])), Clock(2), 1.0)
    assert float(model.seen) == 2 and float(model.all) == 14


def test_the_number_of_processes_divides_the_shards() -> None:
    assert shared(Training(), ALONE) == Training()
    options = shared(Training(stage={"prior": {"accumulate": 4}}, batch_size=8, device="cpu"), Processes(1, 2, 2))
    assert options.accumulate == 2 and options.stage["prior"]["accumulate"] == 4
    assert shared(options, Processes(1, 2, 2)) == options
    with pytest.raises(ConfigError, match="accumulate must be a multiple of the 2 processes, not 3"):
        shared(Training(accumulate=3, device="cpu"), Processes(0, 2, 2))
    with pytest.raises(ConfigError, match="A batch of 1 is too small for 2 processes"):
        shared(Training(batch_size=1, device="cpu"), Processes(0, 2, 2))
    with pytest.raises(ConfigError, match="give --device cuda, not cuda:1"):
        shared(Training(device="cuda:1"), Processes(0, 2, 2))
    with pytest.raises(ConfigError, match="among several processes: start them with torchrun"):
        shared(Training(shard_weights=True), ALONE)
    with pytest.raises(ConfigError, match=r"minutes .* cannot be given with shard_weights: give epochs"):
        Training(shard_weights=True, minutes=3)
    settled = Settled(accumulate=6, device="cpu")
    check_shards(settled, ["train"], Processes(0, 3, 3))
    message = "cuts its batches into 6 shards: 1, 2, 3 or 6 processes can train it, not 4"
    with pytest.raises(ConfigError, match=message):
        check_shards(settled, ["train"], Processes(0, 4, 4))
    with pytest.raises(ConfigError, match="into 1 shard: 1 process can train it, not 2"):
        check_shards(Settled(device="cpu"), ["train"], Processes(0, 2, 2))


def test_batch_statistics_are_said_to_be_those_of_a_shard() -> None:
    norm = fresh("ae", pictures(), net={"name": "conv", "width": 4, "norm": "batch"})
    two = Processes(0, 2, 2)
    assert lines(norm, Settled(accumulate=2, batch_size=8), ALONE) == []
    said = lines(norm, Settled(accumulate=2, batch_size=8), two)
    assert said[0] == "2 processes, 2 shards" and "of 8 examples in 2" in said[1]
    assert len(lines(fresh("vae", pictures(), **MLP), Settled(accumulate=2), two)) == 1


def test_an_environment_that_is_incomplete_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(ConfigError, match="WORLD_SIZE is 2, but RANK is missing"), joined():
        pass


def test_a_sweep_is_started_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="A sweep has processes of its own: start it without torchrun"):
        sandglass.sweep("vae", "digits", vary={"lr": [1e-3]})
