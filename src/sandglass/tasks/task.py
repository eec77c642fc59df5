"""Base class of tasks, the uses of a trained model, and their outcome."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from sandglass.data.transform import Transform
from sandglass.tasks.trained import Trained


@dataclass(frozen=True)
class Outcome:
    """The result of a task: examples, arrays, or both; not yet written to a file.

    Args:
        said: short description, such as ``"64 samples"``.
        x: ``(N, *shape)``, the generated examples, on the CPU.
        called: name of the examples in ``x``, such as ``"reconstruction"``.
        before: named inputs ``(N, *shape)`` of each example, shown in the rows above in a grid.
        after: the same, shown in the rows below.
        paired: whether a table also has the rows of ``before`` and ``after``, with a column that names the part.
        masks: masks ``(N, *shape)`` by the name of such a part; cells of a table are empty where it is False.
        columns: N values by name, written before the columns of a table.
        width: examples per row of a grid; by default about a square.
        rows: labels of the rows of a grid.
        names: file names of the examples; numbers by default.
        arrays: arrays ``(N, ...)`` by name, such as ``codes``.
        classes: class names for class indices in the arrays.
        notes: messages for the user.
        transform: inverts ``x`` to images or rows, where it is not the transform of the model's own examples.
    """

    said: str
    x: Tensor | None = None
    called: str = "x"
    before: Mapping[str, Tensor] = field(default_factory=dict)
    after: Mapping[str, Tensor] = field(default_factory=dict)
    paired: bool = False
    masks: Mapping[str, Tensor] = field(default_factory=dict)
    columns: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    width: int | None = None
    rows: Sequence[str] = ()
    names: Sequence[str] = ()
    arrays: Mapping[str, np.ndarray[Any, Any]] = field(default_factory=dict)
    classes: Sequence[str] = ()
    notes: Sequence[str] = ()
    transform: Transform | None = None

    @property
    def parts(self) -> dict[str, Tensor]:
        """``before``, ``x`` and ``after`` by name, in display order."""
        assert self.x is not None
        return {**self.before, self.called: self.x, **self.after}


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
