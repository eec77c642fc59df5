"""Random pictures and arrays with companions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sandglass.data.dataset import Dataset
from sandglass.data.load import load_data

CHANCE = np.random.default_rng(0)


def noise(*shape: int) -> np.ndarray:
    return CHANCE.integers(0, 256, shape, np.uint8)


def save(path: Path, *shape: int) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    array = noise(*shape)
    Image.fromarray(array).save(path)
    return array


def arrays(n: int = 50, **options: Any) -> Dataset:
    chance = np.random.default_rng(1)
    x = chance.integers(0, 256, (n, 8, 8), np.uint8)
    given = {"source": np.stack([x] * 3, -1), "tag": x[:, 0, :2].astype(np.float64)}
    beside = {"b": chance.integers(0, 256, (30, 8, 8), np.uint8)}
    return load_data(x, given=given, beside=beside, absent={"tag": np.arange(n) % 5 == 0}, **options)
