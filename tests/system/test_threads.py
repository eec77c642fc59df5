"""Two threads of one process that train and score at the same time: each has what it has alone."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from joblib import Parallel, delayed
from torch import Tensor

import sandglass
from sandglass import registry, rng, running
from sandglass.core import Model, Spec
from sandglass.data.dataset import Split
from sandglass.estimator import GenerativeModel


def together(*jobs: Callable[[], Any]) -> list[Any]:
    """What the jobs return, each in a thread of its own, all begun at the same moment."""
    found: list[Any] = [None] * len(jobs)
    start = threading.Barrier(len(jobs))

    def work(place: int) -> None:
        start.wait()
        found[place] = jobs[place]()

    threads = [threading.Thread(target=work, args=(place,)) for place in range(len(jobs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def trained(name: str, seed: int, out: Path) -> Model:
    x = torch.rand(96, 1, 4, 4, generator=torch.Generator().manual_seed(seed))
    run = sandglass.train(
        name, x, out=out / f"{name}-{seed}", epochs=12, batch_size=16, seed=seed, threads=1, ema=0.0,
        model_options={"net": {"name": "mlp", "widths": [16]}},
    )  # fmt: skip
    return run.load_model()


def weights(model: Model) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@pytest.mark.parametrize("name", ["vae", "gan"])
def test_two_trainings_at_once_are_those_of_each_alone(name: str, tmp_path: Path) -> None:
    alone = [weights(trained(name, seed, tmp_path / "alone")) for seed in (1, 2)]
    both = together(*(lambda seed=seed: trained(name, seed, tmp_path / "both") for seed in (1, 2)))  # type: ignore[misc]
    for one, other in zip(alone, both, strict=True):
        torch.testing.assert_close(weights(other), one, rtol=0, atol=0)


def test_outlines_that_another_thread_makes_change_nothing(tmp_path: Path) -> None:
    alone, ended = weights(trained("vae", 1, tmp_path / "alone")), threading.Event()

    def outlines() -> None:
        while not ended.is_set():
            registry.outline("gan", Spec((1, 4, 4), "unit"), net="mlp")

    def training() -> Model:
        try:
            return trained("vae", 1, tmp_path / "both")
        finally:
            ended.set()

    model, _ = together(training, outlines)
    assert torch.equal(weights(model), alone)


def test_samples_and_bounds_are_the_same_while_another_thread_trains(tmp_path: Path) -> None:
    model = trained("vae", 1, tmp_path)
    split = Split(torch.rand(64, 1, 4, 4, generator=torch.Generator().manual_seed(5)))

    def score() -> list[Tensor]:
        drawn = [running.sample(model, 700, key=(n,)) for n in range(8)]
        return [*drawn, running.over(model, split, lambda batch: model.log_prob(batch, 20), size=7)]

    alone = score()
    _, beside = together(lambda: trained("vae", 2, tmp_path), score)
    for one, other in zip(alone, beside, strict=True):
        assert bool((one == other).all())


def test_the_estimator_under_threads_of_joblib() -> None:
    def fitted(seed: int) -> Tensor:
        x = torch.randn(60, 3, generator=torch.Generator().manual_seed(seed)).numpy()
        model = GenerativeModel("vae", epochs=20, batch_size=10, random_state=seed).fit(x)
        return torch.from_numpy(model.transform(x))

    alone = [fitted(seed) for seed in (1, 2)]
    both = Parallel(n_jobs=2, backend="threading")(delayed(fitted)(seed) for seed in (1, 2))
    for one, other in zip(alone, both, strict=True):
        assert bool((one == other).all())


def test_a_thread_waits_until_another_has_drawn() -> None:
    inside, drawn = threading.Event(), []

    def other() -> None:
        with rng.forked("cpu", 1):
            inside.set()
            drawn.append(torch.rand(4))

    with rng.forked("cpu", 0):
        thread = threading.Thread(target=other)
        thread.start()
        assert not inside.wait(0.1)
        mine = torch.rand(4)
    thread.join()
    with rng.forked("cpu", 0):
        assert bool((torch.rand(4) == mine).all())
    with rng.forked("cpu", 1):
        assert bool((torch.rand(4) == drawn[0]).all())
