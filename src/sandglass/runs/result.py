"""A measured figure, as ``results.json`` keeps it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Result:
    """One measured figure.

    Args:
        name: what was measured.
        value: the figure.
        stderr: its standard error, or None where it has none.
        n: examples it is over.
        unit: ``"nats"``, ``"bits/dim"``, ``"1"``, ...
        note: what a reader must know to use it.
        each: ``(n,)`` what it is the mean of, None where it is no mean; two models measured on the same examples are
            compared by the difference of these.

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
        """Plain values; a non-finite figure becomes None, for JSON has no NaN."""
        value, stderr = (v if v is not None and math.isfinite(v) else None for v in (self.value, self.stderr))
        note = {"note": self.note} if self.note else {}
        return {"value": value, "stderr": stderr, "n": self.n, "unit": self.unit} | note
