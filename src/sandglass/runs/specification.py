"""Conversion of a :class:`~sandglass.core.Spec` to plain values, as stored in ``config.json``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, get_args

from sandglass.core import Column, ColumnKind, Layout, Spec, Support

_OTHERS = ("given", "beside")


def to_plain(spec: Spec) -> dict[str, Any]:
    """Plain values, for JSON and YAML.

    Example:
        >>> to_plain(Spec((2,), given={"tag": Spec((3,))}))["given"]["tag"]["shape"]
        [3]
    """
    columns = [vars(c) | {"categories": list(c.categories)} for c in spec.columns]
    others = {k: {name: to_plain(other) for name, other in getattr(spec, k).items()} for k in _OTHERS}
    return vars(spec) | {"shape": list(spec.shape), "columns": columns} | others


def from_plain(values: Mapping[str, Any]) -> Spec:
    """The inverse of :func:`to_plain`.

    Raises:
        ValueError, KeyError, TypeError: invalid values.

    Example:
        >>> from_plain(to_plain(Spec((1, 8, 8), "unit"))) == Spec((1, 8, 8), "unit")
        True
    """
    if values["support"] not in get_args(Support) or int(values["levels"]) < 2 or int(values["classes"]) < 0:
        raise ValueError(f"support {values['support']!r}, levels {values['levels']}, classes {values['classes']}")
    if not values["shape"] or min(int(n) for n in values["shape"]) < 1:
        raise ValueError(f"shape {values['shape']}")
    layout = values.get("layout", "")
    if layout and (layout not in get_args(Layout) or (layout == "image") != (len(values["shape"]) == 3)):
        raise ValueError(f"layout {layout!r} of shape {values['shape']}")
    others: dict[str, Any] = {k: {str(n): from_plain(s) for n, s in values.get(k, {}).items()} for k in _OTHERS}
    return Spec(
        tuple(int(n) for n in values["shape"]),
        values["support"],
        int(values["levels"]),
        int(values["classes"]),
        tuple(map(_column, values.get("columns", ()))),
        layout,
        **others,
    )


def _column(values: Mapping[str, Any]) -> Column:
    """A column; older versions did not store mean and scale."""
    mean, scale = float(values.get("mean", 0.0)), float(values.get("scale", 1.0))
    if values["kind"] not in get_args(ColumnKind) or not (math.isfinite(mean) and 0 < scale < math.inf):
        raise ValueError(f"a column of kind {values['kind']!r}, mean {mean}, scale {scale}")
    return Column(values["name"], values["kind"], int(values["width"]), tuple(values["categories"]), mean, scale)
