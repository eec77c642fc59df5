"""A measured figure, as stored in ``results.json``."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Result:
    """A measured figure.

    Args:
        name: name of the figure.
        value: its value.
        stderr: its standard error, or None.
        n: number of examples.
        unit: ``"nats"``, ``"bits/dim"``, ``"1"``, ...
        note: a caveat for its interpretation.
        each: ``(n,)`` values per example if the figure is their mean, else None; used for paired comparisons of models
            evaluated on the same examples.

    Example:
        >>> Result("elbo", -102.5, 0.4, 10000, "nats").to_dict()["unit"]
        'nats'
    """

    name: str
    value: float
    stderr: float | None
    n: int
    unit: str
    note: str = ""
    each: Tensor | None = field(default=None, repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Plain values; non-finite figures become None, as JSON has no NaN."""
        value, stderr = (v if v is not None and math.isfinite(v) else None for v in (self.value, self.stderr))
        note = {"note": self.note} if self.note else {}
        return {"value": value, "stderr": stderr, "n": self.n, "unit": self.unit} | note
