"""Values that are different for most examples: an age, a measurement, a number of each example."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

FEW = 50
"""Values that even few examples may have."""
MOST = 1000
"""Classes that there may be if most examples have one of their own."""
OUT = "labels=False (--labels false)"
"""How to read no labels."""
_GROUPS = "give classes, such as groups of the numbers (pandas.cut)"
INSTEAD = f"{_GROUPS}, or leave the labels out: {OUT}"
"""What to do with numbers that are no classes."""
NAMED = "give a pattern whose {label} is a class, or leave labels_from_names out"
"""What to do with labels from file names that are no classes."""
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)


def mostly_different(count: int, total: int) -> bool:
    """Whether so many values are different for most examples.

    Example:
        >>> mostly_different(60, 100), mostly_different(60, 200), mostly_different(10, 10)
        (True, False, False)
    """
    return count > FEW and count > total / 2


def are_no_classes(values: Sequence[Any] | np.ndarray[Any, Any], total: int) -> bool:
    """Whether values of which most examples have one of their own are numbers, or more than :data:`MOST`.

    Fewer texts may be classes: a catalogue has one picture of each thing. More are captions or file names.

    Args:
        values: the different values, numbers or texts.
        total: number of examples.

    Example:
        >>> are_no_classes(range(60), 60), are_no_classes([f"person {i}" for i in range(60)], 60)
        (True, False)
    """
    return mostly_different(len(values), total) and (len(values) > MOST or _are_numbers(values))


def better(values: Sequence[Any] | np.ndarray[Any, Any]) -> str:
    """What to give in place of values that are no classes.

    Example:
        >>> better(["a sunny day", "a dog"])
        'give classes that several examples have'
    """
    return _GROUPS if _are_numbers(values) else "give classes that several examples have"


def insist(values: Sequence[Any] | np.ndarray[Any, Any], named: str) -> str:
    """What to do with values that are classes in spite of all; texts are another way for few numbers.

    Args:
        values: the different values.
        named: how to name them.

    Example:
        >>> insist(range(60), "give classes=[...]")
        "If they are classes, write them as texts, such as 'id 0', or give classes=[...]."
    """
    texts = f"write them as texts, such as 'id {values[0]}', or " if len(values) <= MOST else ""
    return f"If they are classes, {texts}{named}."


def _are_numbers(values: Sequence[Any] | np.ndarray[Any, Any]) -> bool:
    return all(_NUMBER.fullmatch(str(value)) for value in values)
