"""What is wrong, or right, with data or a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, or right, with a run, in plain words.

    Args:
        name: the illness.
        level: ``"info"``, ``"warning"`` or ``"problem"``.
        message: what was seen, with figures.
        advice: what to do about it.
    """

    name: str
    level: Literal["info", "warning", "problem"]
    message: str
    advice: str = ""
