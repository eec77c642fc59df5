"""Training for a given time: from minutes to a width, a batch size and epochs, by steps that are timed on the spot.

The plan is made before the first step, so that every schedule knows the length of the run. What is timed leaves no
trace: it runs on a copy of the model, and the random generators are restored. A machine that turns out slower is met
by a deadline, a faster one by further epochs; see :mod:`sandglass.engine.budget`.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from sandglass import registry
from sandglass.core import Model
from sandglass.data.dataset import Dataset
from sandglass.engine.batches import updates_per_epoch
from sandglass.engine.budget import minutes
from sandglass.engine.options import Training
from sandglass.engine.processes import ALONE, Processes
from sandglass.engine.timing import Cost, measure
from sandglass.errors import ConfigError

FIRST_SHARE = 0.5
"""Share of the time for the first stage that is trained; the later ones have equal parts of the rest."""

ENOUGH = 4000
"""Updates that a wider net must still have time for, in :data:`ROUNDS` epochs or more."""

ROUNDS = 30
FEW = 1000
"""With fewer updates than this a smaller batch, then a narrower net is tried."""

_WIDEST = 128
_MARGIN = 0.97  # of the time is planned; the rest is for checkpoints and sheets
PART = 0.015
"""Share of the time for one measurement."""


@dataclass(frozen=True)
class Plan:
    """How a number of minutes is spent.

    Args:
        minutes: for the training of all stages.
        width: of the net, None where it was given or the net has none.
        batch_sizes: by stage that is trained.
        epochs: by stage that is trained.
        costs: by stage that is trained.
        shares: of the minutes, by stage that is trained.
        spent: seconds that planning took; they count.
        before: seconds that the run had been trained for, if these minutes are further ones.
    """

    minutes: float
    width: int | None
    batch_sizes: Mapping[str, int]
    epochs: Mapping[str, int]
    costs: Mapping[str, Cost]
    shares: Mapping[str, float]
    spent: float
    before: float = 0.0

    def applied(self, training: Training) -> Training:
        """The training options with epochs and batch size in place of the minutes."""
        first, *later = self.epochs
        stage = {name: dict(own) for name, own in training.stage.items()}
        for name in later:
            own = stage.setdefault(name, {})
            own["epochs"] = self.epochs[name]
            if self.batch_sizes[name] != self.batch_sizes[first]:
                own["batch_size"] = self.batch_sizes[name]
        changes = {"minutes": None, "epochs": self.epochs[first], "batch_size": self.batch_sizes[first], "stage": stage}
        return dataclasses.replace(training, **changes)  # type: ignore[arg-type]

    def line(self) -> str:
        """The plan in one line.

        Example:
            >>> cost = {"train": Cost(0.12)}
            >>> Plan(15, 64, {"train": 64}, {"train": 40}, cost, {"train": 1.0}, 9.0).line()
            '15 minutes: width 64, batch 64, 40 epochs; a step takes 0.12 s'
        """
        several = len(self.epochs) > 1
        of = {name: f" of {name} ({self.shares[name]:.0%} of the time)" if several else "" for name in self.epochs}
        epochs = ", then ".join(f"{n} epoch{'s' * (n != 1)}{of[name]}" for name, n in self.epochs.items())
        steps = " and ".join(f"{cost.step:.2g} s" for cost in self.costs.values())
        width = f"width {self.width}, " if self.width else ""
        batch = " and ".join(map(str, dict.fromkeys(self.batch_sizes.values())))
        time_of = minutes(60 * self.minutes, "further " * bool(self.before))
        return f"{time_of}: {width}batch {batch}, {epochs}; a step takes {steps}"

    def to_dict(self) -> dict[str, Any]:
        """Plain values for the configuration of the run."""
        costs = {name: dataclasses.asdict(cost) for name, cost in self.costs.items()}
        return {
            "minutes": self.minutes,
            "width": self.width,
            "batch_sizes": dict(self.batch_sizes),
            "epochs": dict(self.epochs),
            "shares": dict(self.shares),
            "seconds": {name: {k: float(f"{v:.4g}") for k, v in cost.items()} for name, cost in costs.items()},
            "planning": round(self.spent, 3),
            **({"before": round(self.before, 3)} if self.before else {}),
        }


def shares_of(stages: Sequence[str]) -> dict[str, float]:
    """The shares of the time: :data:`FIRST_SHARE` for the first stage, equal parts of the rest for the others.

    Example:
        >>> shares_of(["train"]), shares_of(["codes", "prior"])
        ({'train': 1.0}, {'codes': 0.5, 'prior': 0.5})
    """
    first, *later = stages
    if not later:
        return {first: 1.0}
    return {first: FIRST_SHARE} | {name: round((1 - FIRST_SHARE) / len(later), 6) for name in later}


def epochs_in(seconds: float, cost: Cost, steps: int) -> int:
    """The epochs of so many updates that fit into this time, with a small margin; at least one.

    Example:
        >>> epochs_in(900, Cost(0.12, 0.5), steps=38)
        172
    """
    return max(1, int(_MARGIN * seconds / (steps * cost.step + cost.epoch_end)))


def updates_in(seconds: float, cost: Cost, steps: int) -> float:
    """The updates that fit into this time, in epochs of so many.

    Example:
        >>> updates_in(100, Cost(0.1), steps=10)
        970.0
    """
    return _MARGIN * seconds / (cost.step + cost.epoch_end / steps)


def wider(seconds: float, cost_of: Callable[[int], Cost], usual: int, cost: Cost, steps: int) -> tuple[int, Cost]:
    """The width of the net where there is much time: twice or four times the usual one, if that leaves enough updates.

    Args:
        seconds: for the training.
        cost_of: measures a width; only called for widths that may be chosen.
        usual: the default width.
        cost: of that.
        steps: updates of an epoch.

    Example:
        >>> cost_of = lambda width: Cost(width**2 / 32**2 * 0.03)
        >>> [wider(s, cost_of, 32, Cost(0.03), 47)[0] for s in (20, 900, 9000)]
        [32, 64, 128]
    """
    width = usual
    enough = max(ENOUGH, ROUNDS * steps)
    # twice as wide is at least twice as slow
    while 2 * width <= max(_WIDEST, usual) and updates_in(seconds, cost, steps) >= 2 * enough:
        found = cost_of(2 * width)
        if updates_in(seconds, found, steps) < enough:
            break
        width, cost = 2 * width, found
    return width, cost


def narrower(seconds: float, cost_of: Callable[[int], Cost], usual: int, cost: Cost, steps: int) -> tuple[int, Cost]:
    """The width of the net where there is little time: half or a quarter, if it gives more of too few updates.

    See :func:`wider`.

    Example:
        >>> cost_of = lambda width: Cost(width**2 / 32**2 * 0.03)
        >>> [narrower(s, cost_of, 32, Cost(0.03), 188)[0] for s in (60, 20, 2)]
        [32, 16, 8]
    """
    width = usual
    while width % 2 == 0 and width > max(8, usual // 4):
        now = updates_in(seconds, cost, steps)
        if now >= FEW or updates_in(seconds, found := cost_of(width // 2), steps) < 1.3 * now:
            break
        width, cost = width // 2, found
    return width, cost


def choose_batch(
    seconds: float,
    cost_of: Callable[[int], Cost],
    usual: int,
    cost: Cost,
    steps_of: Callable[[int], int],
    *,
    least: int = 16,
) -> tuple[int, Cost]:
    """The batch size: the usual one, or a smaller one where few updates fit and it gives more of them.

    Args:
        seconds: for the training.
        cost_of: measures a batch size; only called for those that may be chosen.
        usual: the default batch size.
        cost: of that.
        steps_of: updates of an epoch by batch size.
        least: the smallest batch size.

    Example:
        >>> cost_of, steps_of = lambda batch: Cost(batch / 128 * 0.2), lambda batch: 60_000 // batch
        >>> [choose_batch(s, cost_of, 128, Cost(0.2), steps_of)[0] for s in (600, 120, 10)]
        [128, 64, 16]
    """
    batch_size = usual
    while batch_size >= 2 * least and (now := updates_in(seconds, cost, steps_of(batch_size))) < FEW:
        smaller = cost_of(batch_size // 2)
        if updates_in(seconds, smaller, steps_of(batch_size // 2)) < 1.3 * now:
            break
        batch_size, cost = batch_size // 2, smaller
    return batch_size, cost


def make_plan(
    model: Model,
    data: Dataset,
    training: Training,
    make: Callable[[int], Model] | None = None,
    *,
    clock: Callable[[], float] | None = None,
    processes: Processes = ALONE,
) -> Plan:
    """Plans a training of some minutes.

    Args:
        model: with fresh weights, which stay as they are.
        data: with a ``train`` split.
        training: its options, with minutes.
        make: the same model of another width; None where the width is not to be chosen.
        clock: tells the time; to several processes the same, so that they make the same plan.
        processes: that will train the model together.

    Raises:
        ConfigError: the model has no stage that is trained in steps.
    """
    clock = clock or processes.clock
    begun = clock()
    stages = [stage for stage in training.stages_of(model) if stage.phases]
    if not stages:
        raise ConfigError("This model is fitted in closed form and takes no updates; leave out minutes.")
    assert training.minutes is not None
    seconds, examples = 60 * training.minutes, len(data.train)
    shares = shares_of([stage.name for stage in stages])
    base = dataclasses.replace(training, minutes=None)
    options = base.settled([s for s in data.splits if s != "train"], examples, training.stages_of(model))
    part = PART * seconds
    models: dict[int | None, Model] = {}

    def cost_of(width: int | None, place: int, batch_size: int) -> Cost:
        if width not in models:
            models.clear()  # one at a time
            models[width] = copy.deepcopy(model) if make is None or width in (None, usual) else make(width)
        stage = next(s for s in models[width].stages() if s.name == stages[place].name)
        own = dataclasses.replace(options.of_stage(stage.name), batch_size=batch_size)
        most = part * shares[stage.name]
        return measure(models[width], data, stage, own, seconds=most, clock=clock, processes=processes)

    def at_width(batch_size: int, width: int) -> Cost:
        try:
            return cost_of(width, 0, batch_size)
        except ConfigError:  # another option of the net limits its width
            return Cost(math.inf)

    costs: dict[str, Cost] = {}
    sizes: dict[str, int] = {}
    epochs: dict[str, int] = {}
    width = usual = width_of(model) if make is not None else None
    for place, stage in enumerate(stages):
        own, time_of = options.of_stage(stage.name), shares[stage.name] * seconds
        steps_of = partial(updates_per_epoch, stage, accumulate=own.accumulate, examples=examples)
        fixed = "batch_size" in training.stage.get(stage.name, {}) or training.batch_size is not None
        size, least = own.batch_size, max(16, own.accumulate)
        cost = cost_of(width, place, size)
        if place == 0 and usual is not None:
            width, cost = wider(time_of, partial(at_width, size), usual, cost, steps_of(size))
        if not fixed and size > least:
            size, cost = choose_batch(time_of, partial(cost_of, width, place), size, cost, steps_of, least=least)
        if place == 0 and usual is not None and width == usual:
            width, cost = narrower(time_of, partial(at_width, size), usual, cost, steps_of(size))
        costs[stage.name], sizes[stage.name] = cost, size
        epochs[stage.name] = epochs_in(time_of, cost, steps_of(size))
    return Plan(training.minutes, width, sizes, epochs, costs, shares, clock() - begun)


def width_of(model: Model) -> int | None:
    """The width of a model's net; None where it has no such option."""
    net = getattr(model, "config", {}).get("options", {}).get("net")
    width = net.get("width") if isinstance(net, Mapping) else None
    return width if isinstance(width, int) and not isinstance(width, bool) else None


def of_width(model: Model, width: int) -> dict[str, Any]:
    """The options of a model, with another width of its net."""
    options = dict(model.config["options"])
    return options | {"net": {**options["net"], "width": width}}


def free_width(model: str, options: Mapping[str, Any]) -> bool:
    """Whether a model has a net whose width was not given.

    Example:
        >>> free_width("vae", {}), free_width("vae", {"net": {"name": "conv", "width": 32}})
        (True, False)
    """
    if not any(option.kind == "net" and option.name == "net" for option in registry.schema("model", model)):
        return False
    net = options.get("net", registry.AUTO)
    return isinstance(net, str) or (isinstance(net, Mapping) and "width" not in net)
