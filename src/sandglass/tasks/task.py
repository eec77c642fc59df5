"""Base class of tasks, the uses of a trained model, and running one."""

from __future__ import annotations

import abc
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from sandglass import registry
from sandglass.tasks.outcome import Outcome, destination, write
from sandglass.tasks.trained import Trained

__all__ = ["Outcome", "Task", "perform", "written"]


class Task(abc.ABC):
    """A use of a trained model; the keyword arguments of its constructor are the flags of its command.

    The first line of the docstring is the summary of the command; :func:`sandglass.registry.register` with
    ``kind="task"`` adds the command ``sandglass NAME``.

    Attributes:
        needs: required model capabilities, from :data:`~sandglass.core.CAPABILITIES` or ``"codes"``.
        examples: command lines for the help page, without the leading ``sandglass``.
        file: default output file name without suffix.
        makes: ``"examples"``, ``"arrays"``, or ``"either"`` where it depends on the options or the model.
    """

    needs: ClassVar[tuple[str, ...]] = ()
    examples: ClassVar[tuple[str, ...]] = ()
    file: ClassVar[str]
    makes: ClassVar[str] = "examples"

    @abc.abstractmethod
    def __call__(self, trained: Trained) -> Outcome:
        """Runs the task.

        Raises:
            ConfigError, DataError: the options or examples do not match the model.
        """


def reads_data(name: str) -> bool:
    """Whether a task has an option ``data``; for others, ``data`` is the place of the run's own data, if it moved.

    Example:
        >>> reads_data("encode"), reads_data("manifold")
        (True, False)
    """
    return "data" in [option.name for option in registry.schema("task", name)]


def perform(task: Task, trained: Trained) -> Outcome:
    """The outcome of a task, with the transform that inverts its examples, and the notes on the data that it used.

    Raises:
        CapabilityError: the model lacks what the task needs.
        ConfigError, DataError: the options or examples do not match the model.
    """
    for capability in task.needs:
        registry.require(trained.model, capability)
    outcome = task(trained)
    return replace(outcome, transform=outcome.transform or trained.transform, notes=(*trained.notes, *outcome.notes))


def written(
    task: Task, trained: Trained, out: str | Path | None = None, *, separate: bool = False
) -> tuple[Outcome, Path]:
    """The outcome of a task, and the file or folder that it was written to.

    Args:
        task: the task.
        trained: the model.
        out: where to; the next free default name if not given.
        separate: whether images are written as separate files.

    Raises:
        CapabilityError: the model lacks what the task needs.
        ConfigError, DataError: the options or examples do not match the model, or the suffix the outcome.
    """
    for capability in task.needs:
        registry.require(trained.model, capability)
    if task.makes != "either":  # a wrong suffix fails before the work
        path = destination(out, task.file, task.makes, trained.transform, separate)
    outcome = perform(task, trained)
    assert outcome.transform is not None
    if task.makes == "either":
        makes = "arrays" if outcome.x is None else "examples"
        path = destination(out, task.file, makes, outcome.transform, separate)
    return outcome, write(outcome, path)
