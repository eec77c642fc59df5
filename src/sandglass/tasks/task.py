"""What a use of a trained model is, and what comes of it."""

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
    """What a task made: examples, arrays, or both; nothing is written yet.

    Args:
        said: what it is, in a few words: ``"64 samples"``.
        x: ``(N, *shape)``, the examples that were made, on the CPU.
        called: what an example in ``x`` is: ``"reconstruction"``.
        before: by name, ``(N, *shape)`` what each was made from; a grid has it in rows above.
        after: the same, in rows below.
        paired: whether a table has the rows of ``before`` and ``after`` too, with a column that says which is which.
        masks: by the name of such a part, ``(N, *shape)``: a table's cells are empty where it is False.
        columns: what is known of each example, N values by name; they go before the columns of a table.
        width: examples in a row of a grid; about a square when not given.
        rows: names that stand beside the rows of the grid.
        names: of the examples, for a file each; numbers where there are none.
        arrays: by name, ``(N, ...)`` what was found out about examples, such as ``codes``.
        classes: the names of class numbers among the arrays.
        notes: what a person must know to use it.
        transform: leads ``x`` back to pictures or rows, where it is another than that of the model's own examples.
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
        """``before``, ``x`` and ``after`` by name, in the order in which they are shown."""
        assert self.x is not None
        return {**self.before, self.called: self.x, **self.after}


class Task(abc.ABC):
    """A use of a trained model; the keyword options of its constructor are the flags of its command.

    The first line of its docstring is its summary; :func:`sandglass.registry.register` with ``kind="task"`` makes
    ``sandglass NAME`` of it.

    Attributes:
        needs: capabilities that it asks of the model, of :data:`~sandglass.core.CAPABILITIES` or ``"codes"``.
        examples: command lines for its help page, without the leading ``sandglass``.
        file: the file its outcome goes to where none is named, without an ending.
        makes: ``"examples"``, ``"arrays"``, or ``"either"`` where the options or the model decide.
    """

    needs: ClassVar[tuple[str, ...]] = ()
    examples: ClassVar[tuple[str, ...]] = ()
    file: ClassVar[str]
    makes: ClassVar[str] = "examples"

    @abc.abstractmethod
    def __call__(self, trained: Trained) -> Outcome:
        """Uses the model.

        Raises:
            ConfigError, DataError: options or examples that do not fit the model.
        """
