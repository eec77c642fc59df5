"""A run that goes on for some minutes more: the epochs that fit, by steps that are timed on the spot."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable, Sequence

from sandglass.core import Model
from sandglass.data.dataset import Dataset
from sandglass.engine.batches import updates_per_epoch
from sandglass.engine.options import Settled
from sandglass.engine.planning import PART, Plan, epochs_in, shares_of
from sandglass.engine.processes import ALONE, Processes
from sandglass.engine.timing import measure
from sandglass.errors import ConfigError
from sandglass.runs.run import Checkpoint


def more_minutes(
    minutes: float,
    model: Model,
    data: Dataset,
    training: Settled,
    reached: str,
    checkpoint: Checkpoint | None,
    *,
    clock: Callable[[], float] | None = None,
    processes: Processes = ALONE,
) -> tuple[Plan, dict[str, int]]:
    """Plans further minutes for the stage that a run is in and those that follow; all other options stay.

    No stage has fewer epochs than before: where less fits, the deadline ends it. So learning rates and weights that
    follow a schedule are what they would have been.

    Args:
        minutes: how many.
        model: of the run; timing leaves no trace in it.
        data: of the run.
        training: its options.
        reached: the stage.
        checkpoint: the newest one of that stage or an earlier one; None if nothing was saved.
        clock: tells the time.
        processes: that train the model together.

    Returns:
        The plan, and the epochs in total by stage.

    Raises:
        ConfigError: it is no number of minutes, or the weights are divided among processes.
    """
    if not 0 < minutes < math.inf:
        raise ConfigError(f"The training option minutes must be a finite number above 0, not {minutes:g}.")
    if training.shard_weights:
        raise ConfigError(
            "minutes times updates in one process, so it cannot be given with shard_weights: give epochs."
        )
    clock = clock or processes.clock
    begun, trained = clock(), [stage for stage in training.stages_of(model) if stage.phases]
    place = [stage.name for stage in trained].index(reached)
    names = [stage.name for stage in trained[place:]]
    shares, state = shares_of(names), checkpoint.state["loop"] if checkpoint is not None else {}
    costs, fit, total = {}, {}, {}
    for name in names:
        own, share = training.of_stage(name), shares[name] * 60 * minutes
        timed = copy.deepcopy(model)
        stage = next(s for s in timed.stages() if s.name == name)
        costs[name] = measure(timed, data, stage, own, seconds=PART * share, clock=clock, processes=processes)
        steps = updates_per_epoch(stage, own.batch_size, own.accumulate, len(data.train))
        done = math.ceil(state["step"] / steps) if state.get("stage") == name else 0
        fit[name] = epochs_in(share, costs[name], steps)
        total[name] = max(own.epochs, done + fit[name])
    sizes = {name: training.of_stage(name).batch_size for name in names}
    plan = Plan(minutes, None, sizes, fit, costs, shares, clock() - begun, float(state.get("seconds", 0.0)))
    return plan, total


def lasting(training: Settled, names: Sequence[str], trained: Sequence[str]) -> Settled:
    """Options without a limit of updates for some stages; the others keep theirs.

    Args:
        training: the options.
        names: of the stages without a limit.
        trained: of all stages that are trained.

    Example:
        >>> found = lasting(Settled(max_steps=5), ["codes"], ["codes", "prior"])
        >>> found.of_stage("codes").max_steps, found.of_stage("prior").max_steps
        (None, 5)
        >>> found = lasting(Settled(max_steps=5), ["train"], ["train"])
        >>> found.max_steps, found.stage
        (None, {})
    """
    stage = {name: dict(own) for name, own in training.stage.items()}
    others = any("max_steps" not in stage.get(name, {}) for name in trained if name not in names)
    for name in names:
        stage.setdefault(name, {}).pop("max_steps", None)
        if training.max_steps is not None and others:
            stage[name]["max_steps"] = None
    most = training.max_steps if others else None
    return dataclasses.replace(training, max_steps=most, stage={name: own for name, own in stage.items() if own})
