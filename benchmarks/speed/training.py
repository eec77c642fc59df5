"""Epochs of every contender in turns, then what they do with the model."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

import sandglass
from benchmarks.speed.contenders import CONTENDERS, Setting
from benchmarks.speed.data import pictures, stored
from benchmarks.speed.session import AbsentError, Worker, in_turns
from benchmarks.speed.workloads import Workload
from sandglass import running
from sandglass.data.dataset import Split

USES = ("generate", "encode", "score", "save")
"""What is timed after training: pictures generated, encoded and scored, and a checkpoint."""


REFERENCE = "sandglass"
"""What the others are compared with: without it there is nothing to say."""

QUICK = ("sandglass", "torch")
"""The contenders of a smoke run."""


class DifferentNetsError(Exception):
    """The contenders of a workload do not have the same number of parameters."""


def measure(workload: Workload, setting: Setting, rounds: int, images: int, quick: bool = False) -> dict[str, Any]:
    """Times a workload.

    Args:
        workload: what.
        setting: where.
        rounds: epochs of each contender that count.
        images: generated, encoded and scored.
        quick: whether only Sandglass and one loop take part.

    Returns:
        By contender what it says of itself, its seconds and its memory; who is absent and why; seconds of uses.
    """
    name, x = pictures(workload.examples)
    data = stored(setting.folder, "train", x)
    contenders = QUICK if quick else workload.contenders
    with ExitStack() as stack:
        workers, absent = started(stack, workload, setting, data, contenders, rounds + 1)
        if workload.equal:
            check_equal({c: w.about["parameters"] for c, w in workers.items()})
        times, dropped, failed = in_turns({c: partial(w, "epoch") for c, w in workers.items()}, rounds)
        absent |= failed
        check_reference(absent)
        workers = {c: w for c, w in workers.items() if c not in absent}
        found = {
            c: {
                **w.about,
                **{clock: [time[clock] for time in times[c]] for clock in ("seconds", "processor")},
                "dropped": dropped[c],
                "memory": w("memory"),
            }
            for c, w in workers.items()
        }
        uses = {}
        if workload.model == "vae" and workload.net != "vit":
            uses = used(workers, rounds, images)
        if workload.name == "dense":
            for contender, value in bounds(workers, workload, setting).items():
                found[contender]["bound"] = value
    about = {"title": workload.title, "data": name, "examples": workload.examples, "batch": workload.batch}
    return {**about, "equal": workload.equal, "contenders": found, "absent": absent, "uses": uses, "images": images}


def started(
    stack: ExitStack, workload: Workload, setting: Setting, data: Path, contenders: Sequence[str], epochs: int
) -> tuple[dict[str, Worker], dict[str, str]]:
    """The workers that run here, closed with the stack, and why others do not."""
    workers, absent = {}, {}
    for name in contenders:
        try:
            workers[name] = setting.start(name, workload, data, epochs)
            stack.callback(workers[name].close)
        except AbsentError as error:
            absent[name] = str(error)
    return workers, absent


def check_equal(counts: dict[str, int]) -> None:
    """Checks that all have the same number of parameters.

    Raises:
        DifferentNetsError: they do not.

    Example:
        >>> check_equal({"ours": 10, "theirs": 10})
    """
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{name} {count:,}" for name, count in counts.items())
        raise DifferentNetsError(f"The nets are not the same: {listed} parameters.")


def check_reference(absent: dict[str, str]) -> None:
    """Checks that Sandglass itself is there.

    Raises:
        AbsentError: it is not.
    """
    if REFERENCE in absent:
        raise AbsentError(absent[REFERENCE])


def used(workers: dict[str, Worker], rounds: int, images: int) -> dict[str, dict[str, list[float]]]:
    """Seconds of each use, by contender."""
    found = {}
    for use in USES:
        able = {c: w for c, w in workers.items() if use not in CONTENDERS[c].lacks}
        options = {} if use == "save" else {"n": images}
        found[use], _, failed = in_turns({c: partial(w, use, **options) for c, w in able.items()}, rounds)
        check_reference(failed)
    return found


def bounds(workers: dict[str, Worker], workload: Workload, setting: Setting) -> dict[str, float]:
    """The bound on test pictures in nats, of every contender's weights by Sandglass's estimator and the same noise."""
    test = Split(torch.from_numpy(pictures(min(workload.examples, 10_000), "test")[1]))
    spec = sandglass.load_data(test.x.numpy(), validation=0, test=0).spec
    net = {"name": "mlp", "widths": [512]}
    model = sandglass.build("vae", spec, latent_dim=workload.latent, net=net, likelihood="bernoulli")
    found = {}
    for contender, worker in workers.items():
        path = setting.folder / f"{contender}.npz"
        worker("weights", path=str(path))
        with torch.no_grad(), np.load(path) as kept:
            for p, values in zip(model.parameters(), kept.values(), strict=True):
                p.copy_(torch.from_numpy(values))
        found[contender] = float(running.over(model, test, lambda batch: model.bound(batch).elbo).mean())
    return found
