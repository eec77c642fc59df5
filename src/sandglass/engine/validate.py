"""The objective on held-out examples, under common noise."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable

import torch
from torch import Tensor

from sandglass import rng
from sandglass.core import Clock
from sandglass.data.dataset import Split
from sandglass.data.loading import in_order
from sandglass.engine.gradient import check_terms, term_values
from sandglass.engine.precision import autocast
from sandglass.engine.sharding import forget
from sandglass.engine.step import Stepper


@torch.no_grad()
def validate(
    stepper: Stepper, split: Split, clock: Clock, *, interrupted: Callable[[], bool] = lambda: False
) -> dict[tuple[str, str], float] | None:
    """Means over a split of every phase's terms at this clock, and of its loss at the final clock (``objective``).

    The noise depends on the seed and the batch alone, so that epochs are comparable. With a moving average, the average
    is validated. The examples are in a random order, the same in every epoch: a split is often sorted by class, and
    statistics of a batch would be those of one class. Several processes divide the batches; the means are to the bit
    those of one process.

    Returns:
        ``{(phase, term): mean}``, or None if ``interrupted()`` returned True.
    """
    device, options = stepper.device, stepper.options
    split = split.take(rng.permutation(len(split), options.seed, "validation", "order"))
    dtype = stepper.params[0].dtype
    final = Clock.final(clock.total, device)
    processes, batches = stepper.gradient.processes, in_order(split, device=device, dtype=dtype)
    divided = bool(stepper.gradient.divided)  # then all processes call every layer equally often
    mine = range(processes.rank, len(batches), processes.count)
    sums: dict[tuple[str, str], Tensor] = {}  # of every batch
    stopped = False
    stepper.model.eval()
    with stepper.average.in_place(), rng.forked(device):
        for place in [*mine, *range(-(-len(batches) // processes.count) - len(mine) if divided else not mine)]:
            stopped = any(processes.most(interrupted())) if divided else interrupted()
            if stopped:
                break
            batch = batches[place]()
            for number, phase in enumerate(stepper.phases):
                for at, only_loss in ((clock, False), (final, True)):
                    if only_loss and not phase.scheduled:
                        continue
                    rng.reseed(rng.key(options.seed, "validation", stepper.stage.name, place, number), device)
                    with autocast(options, device):
                        terms = phase.loss(batch, at)
                    check_terms(terms, phase.name)
                    names, values = term_values(terms)
                    if only_loss:
                        names, values = ["objective"], values[:1]
                    elif not phase.scheduled:
                        names, values = [*names, "objective"], [*values, values[0]]
                    for name, mean in zip(names, values, strict=True):
                        table = sums.setdefault((phase.name, name), mean.new_zeros(len(batches)).double())
                        if place in mine:
                            table[place] = mean.double() * len(batch)
    forget(stepper.model)
    if any(processes.most(stopped)):
        return None
    processes.sum(list(sums.values()))  # of zeros but for one process: exact
    totals = torch.stack(list(sums.values())).tolist()
    return {key: functools.reduce(operator.add, each) / len(split) for key, each in zip(sums, totals, strict=True)}
