"""Values that are different for most examples: an age, a measurement, a number of each example."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

FEW = 50
"""Values that even few examples may have."""
INSTEAD = (
    "give classes, such as groups of the numbers (pandas.cut), or leave the labels out: labels=False (--labels false)"
)
"""What to do with labels that are no classes."""
NAMED = "give a pattern whose {label} is a class, or leave labels_from_names out"
"""What to do with labels from file names that are no classes."""
INSIST = "If they are classes, write them as texts, such as 'id {}'"
"""What to do with numbers that are classes in spite of all."""
_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?(e[+-]?\d+)?", re.IGNORECASE)


def mostly_different(count: int, total: int) -> bool:
    """Whether so many values are different for most examples.

    Example:
        >>> mostly_different(60, 100), mostly_different(60, 200), mostly_different(10, 10)
        (True, False, False)
    """
    return count > FEW and count > total / 2


def are_measured(classes: Sequence[Any] | np.ndarray[Any, Any], total: int) -> bool:
    """Whether classes are numbers of which most examples have one of their own, so that they are no classes.

    Texts may be: a catalogue has one picture of each thing.

    Args:
        classes: the different values, numbers or their texts.
        total: number of examples.

    Example:
        >>> are_measured(range(60), 60), are_measured([f"person {i}" for i in range(60)], 60)
        (True, False)
    """
    return mostly_different(len(classes), total) and all(_NUMBER.fullmatch(str(value)) for value in classes)
