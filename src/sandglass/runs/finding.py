"""Findings about data or a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Finding:
    """A finding about data or a run.

    Args:
        name: identifier of the kind of finding.
        level: ``"info"``, ``"warning"`` or ``"problem"``.
        message: description, with figures.
        advice: recommended action.
    """

    name: str
    level: Literal["info", "warning", "problem"]
    message: str
    advice: str = ""
