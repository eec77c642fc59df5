"""Class names in a scatter plot do not cover each other."""

from __future__ import annotations

import numpy as np
import pytest

from sandglass.reports.placing import placed

EDGES = np.array([[-2.0, 0.0], [3.0, 100.0]])
SPACE = (290.0, 270.0)


def boxes(at: np.ndarray, texts: list[str], size: float) -> list[tuple[np.ndarray, np.ndarray]]:
    scale = np.array(SPACE) / (EDGES[1] - EDGES[0])
    half = np.array([[0.62 * size * len(t), 1.25 * size] for t in texts]) / 2
    return list(zip((at - EDGES[0]) * scale - half, (at - EDGES[0]) * scale + half, strict=True))


@pytest.mark.parametrize("seed", range(5))
def test_ten_names_in_one_place_are_moved_apart(seed: int) -> None:
    texts = ["aeroplane", "cat", "dog", "a", "truck", "ship", "frog", "horse", "deer", "automobile"]
    points = np.array([0.4, 50.0]) + np.random.default_rng(seed).normal(size=(10, 2)) * [0.05, 1.0]
    found = boxes(placed(points, texts, EDGES, SPACE, 12), texts, 12)
    for i, (low, high) in enumerate(found):
        assert (low > -1e-6).all() and (high < np.array(SPACE) + 1e-6).all()
        for other_low, other_high in found[:i]:
            assert (np.minimum(high, other_high) - np.maximum(low, other_low) < 1e-3).any(), texts[i]


def test_names_that_have_room_stay_where_they_are() -> None:
    points = np.array([[0.0, 20.0], [1.0, 80.0]])
    assert np.allclose(placed(points, ["one", "two"], EDGES, SPACE, 12), points)
