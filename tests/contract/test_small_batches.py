"""Every model and net trains where the last batch of an epoch, or a shard of it, would have one example."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import sandglass
from helpers import Quiet, fresh, pictures, rows
from made import MODELS, dataset, distinct, normed, small, spec_for, suits
from sandglass import registry
from sandglass.core import Batch, Clock, Model, Phase, Spec, Terms
from sandglass.data.dataset import Dataset
from sandglass.data.loading import Loader
from sandglass.engine.options import Training
from sandglass.engine.processes import Processes
from sandglass.engine.resume import finished
from sandglass.engine.step import Stepper
from sandglass.errors import ConfigError
from sandglass.runs.run import Run

TINY: dict[str, Any] = {"device": "cpu", "precision": "fp32", "threads": 1, "sheets": 0, "select": "last"}
BATCH: dict[str, Any] = {"name": "conv", "width": 4, "hidden": 8, "norm": "batch", "stages": 4}
"""Down to a map of one pixel, where a normalisation of one example has one value."""

CASES = [(name, kind) for name in MODELS if name in distinct() for kind in ("row", "grey") if suits(name, kind)]


def train(model: Model, data: Dataset, path: Path, **options: Any) -> Run:
    """Two epochs of every stage; no update may be skipped."""
    stage = {s.name: {"epochs": 2} for s in model.stages()[1:] if s.phases}
    quiet = Quiet()
    run = sandglass.train(model, data, out=path, progress=quiet, **{**TINY, "epochs": 2, "stage": stage, **options})
    assert not [r for r in run.metrics() if r["term"] == "skipped"], quiet.said
    return run


@pytest.mark.parametrize(("name", "kind"), CASES)
@pytest.mark.parametrize("sizes", [{"batch_size": 7}, {"batch_size": 12, "accumulate": 3}], ids=["last", "shards"])
def test_models(name: str, kind: str, sizes: dict[str, int], tmp_path: Path) -> None:
    """Of 50 examples, 1 and 2 are left."""
    data = dataset(spec_for(name, kind))
    known = registry.declared(name).config["options"]
    net = {**BATCH, **normed(name)} if kind == "grey" else {"name": "mlp", "widths": [8]}
    model = fresh(name, data, **small(name), **{o: net for o in ("net",) if o in known})
    train(model, data, tmp_path / "run", **sizes)


@pytest.mark.parametrize("net", registry.names("net"))
def test_nets(net: str, tmp_path: Path) -> None:
    data = pictures(13, (1, 16, 16)) if net != "linear" else rows(torch.randn(13, 4))
    train(fresh("ae", data, latent_dim=2, net=net), data, tmp_path / "run", batch_size=4)


class Normed(Model):
    """A person's own, with a normalisation of rows."""

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        self.spec, self.body = spec, nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 3))
        self.config = {"name": "ae", "options": {}}
        self.sizes: list[int] = []

    def phases(self) -> tuple[Phase, ...]:
        return (Phase("fit", (self,), self.loss),)

    def loss(self, batch: Batch, clock: Clock) -> Terms:
        self.sizes.append(len(batch))
        each = (self.body(batch.x) - batch.x).square().sum(1)
        return Terms(each.mean(), {"distortion": each.detach()})

    def sample(self, n: int, given: Batch | None = None, *, noise: bool = False) -> Tensor:
        return torch.zeros(n, 3)


def test_the_last_example_joins_the_batch_before() -> None:
    data, model = rows(torch.randn(65, 3)), Normed(Spec((3,)))
    for accumulate, sizes in ((1, [65]), (2, [32, 33])):
        options = Training(batch_size=64, accumulate=accumulate, device="cpu")
        stepper = Stepper(model, model.stages()[0], options)
        loader = Loader(data.train, 64, seed=0, least=stepper.gradient.least)
        assert loader.steps_per_epoch == 1 and sorted(loader.batch(0).index.tolist()) == list(range(65))
        stepper.train()
        model.sizes.clear()
        stepper(loader.batch(0), Clock(), 1.0)
        assert model.sizes == sizes


def test_processes_cut_alike() -> None:
    model = Normed(Spec((3,)))
    options = Training(batch_size=8, accumulate=4, device="cpu")
    for n in range(2, 10):
        cut = [Stepper(model, model.stages()[0], options, Processes(rank, 4)).gradient.rows(n) for rank in range(4)]
        sizes = {c.stop - c.start for c in cut}
        assert min(sizes) >= 2, (n, cut)


def test_a_model_without_such_statistics_keeps_its_batches(tmp_path: Path) -> None:
    data = rows(torch.randn(9, 4))
    # three batches an epoch, and the prior that is fitted afterwards
    run = train(fresh("ae", data, latent_dim=2, net="mlp"), data, tmp_path / "run", batch_size=4)
    assert run.steps()[-1] == 7


def test_a_run_with_a_joined_batch_is_finished(tmp_path: Path) -> None:
    data = pictures(13, (1, 9, 7))
    run = train(fresh("ae", data, latent_dim=2, net=BATCH), data, tmp_path / "run", batch_size=4)
    assert run.steps()[-1] == 7 and finished(run)


@pytest.mark.parametrize("sizes", [{"batch_size": 1}, {"batch_size": 4, "accumulate": 4}])
def test_batches_of_one_are_refused_in_a_line(sizes: dict[str, int], tmp_path: Path) -> None:
    message = "needs two examples in each batch, or in each shard of it.*Raise --batch-size"
    data = rows(torch.randn(9, 3))
    with pytest.raises(ConfigError, match=message):
        train(Normed(data.spec), data, tmp_path / "rows", **sizes)
    assert not (tmp_path / "rows").exists()
    data = pictures(13, (1, 9, 7))
    with pytest.raises(ConfigError, match=message):
        train(fresh("ae", data, latent_dim=2, net=BATCH), data, tmp_path / "pictures", **sizes)


NEED = [("dip-vae", 4), ("info-vae", 2), ("beta-tc-vae", 2), ("wae", 2), ("factor-vae", 2), ("aae", 1), ("vae", 1)]
"""Models, and the examples that the statistics in their objectives need."""


@pytest.mark.parametrize(("name", "least"), NEED)
def test_objectives_of_a_batch_have_the_examples_they_need(name: str, least: int, tmp_path: Path) -> None:
    data = rows(torch.randn(8 + least, 3))
    model = fresh(name, data, latent_dim=2, net="mlp")
    assert model.stages()[0].least == least
    run = train(model, data, tmp_path / "run", batch_size=4 * least, accumulate=4, epochs=1)
    assert run.steps()
    if least == 1:
        return
    for sizes in ({"batch_size": least - 1}, {"batch_size": 4 * least - 1, "accumulate": 4}):
        message = f"needs {least} examples in each batch, or in each shard of it; .*--batch-size or lower --accumulate"
        with pytest.raises(ConfigError, match=message):
            train(model, data, tmp_path / "small", **sizes)
        assert not (tmp_path / "small").exists()
    few = rows(torch.randn(least - 1, 3))
    with pytest.raises(ConfigError, match=f"needs {least} examples to train on; there"):
        train(fresh(name, few, latent_dim=2, net="mlp"), few, tmp_path / "few")


def test_a_last_batch_that_the_covariance_is_not_of_joins_the_one_before() -> None:
    data = rows(torch.randn(67, 3))
    for name, sizes in (("dip-vae", [67]), ("info-vae", [64, 3])):
        model = fresh(name, data, latent_dim=2, net="mlp")
        stepper = Stepper(model, model.stages()[0], Training(batch_size=64, device="cpu"))
        loader = Loader(data.train, 64, seed=0, least=stepper.gradient.least)
        assert [len(loader.batch(k)) for k in range(loader.steps_per_epoch)] == sizes


def test_pictures_one_by_one_are_normalised_over_their_pixels(tmp_path: Path) -> None:
    data = pictures(13, (1, 16, 16))
    train(fresh("ae", data, latent_dim=2, net={**BATCH, "stages": 2}), data, tmp_path / "run", batch_size=1, epochs=1)


def test_a_single_example(tmp_path: Path) -> None:
    data = rows(torch.randn(1, 3))
    with pytest.raises(ConfigError, match="needs two examples to train on; there is one"):
        train(Normed(data.spec), data, tmp_path / "run")
