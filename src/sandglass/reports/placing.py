"""Texts in a chart, moved apart where they would cover each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Points = npt.NDArray[Any]

_WIDTH, _HEIGHT = 0.62, 1.25  # of a character, in sizes of the font
_ROUNDS = 200


def placed(points: Points, texts: Sequence[str], edges: Points, space: tuple[float, float], size: float) -> Points:
    """``(N, 2)`` centres of texts near their points, so that no two texts overlap and none leaves the chart.

    Two texts that overlap are pushed apart in the direction that takes the shorter way, until none does.

    Args:
        points: ``(N, 2)`` in the units of the data.
        texts: the texts.
        edges: ``(2, 2)``, the lower and the upper ends of the axes.
        space: width and height of the axes, in points.
        size: of the font, in points.

    Example:
        >>> places = placed(np.zeros((2, 2)), ["cat", "dog"], np.array([[-1.0, -1.0], [1.0, 1.0]]), (200, 200), 10)
        >>> bool(abs(places[0, 1] - places[1, 1]) * 100 > 10)
        True
    """
    scale = np.asarray(space) / (edges[1] - edges[0])
    half = np.array([[_WIDTH * size * max(1, len(text)), _HEIGHT * size] for text in texts]) / 2
    low, high = half, np.maximum(half, np.asarray(space) - half)
    at = np.clip((points - edges[0]) * scale, low, high)
    for _ in range(_ROUNDS):
        moved = False
        for i in range(len(at)):
            for j in range(i):
                overlap = half[i] + half[j] - np.abs(at[i] - at[j])
                if (overlap > 1e-6).all():
                    axis = int(overlap.argmin())
                    way = 1.0 if at[i, axis] >= at[j, axis] else -1.0
                    at[i, axis] += way * (overlap[axis] / 2 + 0.01)
                    at[j, axis] -= way * (overlap[axis] / 2 + 0.01)
                    moved = True
        at = np.clip(at, low, high)
        if not moved:
            break
    return at / scale + edges[0]
