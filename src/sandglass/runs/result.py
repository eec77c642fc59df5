"""Measured figures, as stored in ``results.json``, and the results of an evaluation."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from sandglass import registry

if TYPE_CHECKING:
    from torch import Tensor

_SHOWN = 3  # figures in a line

HEADERS = ["metric", "value", "better", "n", "unit", "note"]
"""Of the columns of :meth:`Results.rows`."""


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
        each: values of all examples if the figure is their mean, else None; NaN for an example that has none. Used for
            paired comparisons of models evaluated on the same examples.
        by_example: whether ``each`` has the values of the evaluated examples, in their order.

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
    by_example: bool = field(default=False, repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Plain values; non-finite figures become None, as JSON has no NaN."""
        value, stderr = (v if v is not None and math.isfinite(v) else None for v in (self.value, self.stderr))
        note = {"note": self.note} if self.note else {}
        return {"value": value, "stderr": stderr, "n": self.n, "unit": self.unit} | note


class Results(dict[str, Any]):
    """The results of an evaluation: a mapping that a notebook shows as a table of figures.

    Args:
        values: ``{"model", "data", "split", "step", "quick", "metrics": {name: {"value", "stderr", "n", "unit"}}}``.
        each: columns with a value for every example: ``index`` in the split, where known ``name`` and ``class``, and
            every figure that is a mean over examples.

    Example:
        >>> figures = {"elbo": {"value": -15.21, "stderr": 0.31, "n": 359, "unit": "nats"}}
        >>> Results({"model": "vae", "data": "digits", "split": "test", "step": 60, "metrics": figures})
        Results(vae on digits, test, step 60: elbo -15.21 ± 0.31 nats)
    """

    def __init__(self, values: Mapping[str, Any], each: Mapping[str, Sequence[Any]] | None = None) -> None:
        super().__init__(values)
        self.each = dict(each or {})

    def rows(self) -> list[list[str]]:
        """Name, value, which is better, number of examples, unit and note of every figure."""
        return [
            [name, figure(m["value"], m["stderr"]), better(name) or "", f"{m['n']:,}", _unit(m), m.get("note", "")]
            for name, m in self["metrics"].items()
        ]

    @property
    def about(self) -> str:
        """The model, the data, the split and the step of the weights, in a line."""
        return f"{self['model']} on {self['data']}, {self['split']}, step {self['step']:,}"

    def __repr__(self) -> str:
        figures = self["metrics"].items()
        found = [f"{name} {figure(m['value'], m['stderr'])} {_unit(m)}".strip() for name, m in figures]
        more = [f"{len(found) - _SHOWN} more"] if len(found) > _SHOWN else []
        return f"Results({self.about}: {', '.join([*found[:_SHOWN], *more]) or 'no figures'})"

    def _repr_html_(self) -> str:
        """What a notebook shows: the figures as a table."""
        lines = [HEADERS, *self.rows()]
        cells = ["".join(f"<td>{html.escape(cell)}</td>" for cell in line) for line in lines]
        body = "".join(f"<tr>{line}</tr>" for line in cells)
        return f"<p>{html.escape(self.about)}</p><table>{body}</table>"


def better(figure: str) -> Literal["higher", "lower"] | None:
    """Whether a ``"higher"`` or a ``"lower"`` value of a figure is better; None where neither is declared.

    Example:
        >>> better("elbo"), better("mse"), better("rate"), better("unheard-of")
        ('higher', 'lower', None, None)
    """
    makes: list[Any] = [registry.entry("metric", name).make for name in registry.names("metric")]
    named: Mapping[str, Literal["higher", "lower"]] = next(
        (getattr(make, "better", {}) for make in makes if figure in make.figures), {}
    )
    return named.get(figure)


def figure(value: float | None, stderr: float | None = None) -> str:
    """A figure with its standard error, rounded to two significant digits of the error.

    Example:
        >>> figure(-154.1234, 0.3456), figure(0.0123456), figure(9.0), figure(None)
        ('-154.12 ± 0.35', '0.01235', '9', 'not finite')
    """
    if value is None or not math.isfinite(value):
        return "not finite"
    if stderr and math.isfinite(stderr):
        digits = max(0, 1 - math.floor(math.log10(stderr)))
        return f"{value:,.{digits}f} ± {stderr:,.{digits}f}" if digits <= 7 else f"{value:.4g} ± {stderr:.2g}"
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{value:,.0f}"
    return f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}"


def _unit(figure: Mapping[str, Any]) -> str:
    return "" if figure["unit"] == "1" else str(figure["unit"])
