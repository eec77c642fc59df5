"""What the tests of the scikit-learn face fit: small estimators on small tables."""

from __future__ import annotations

from typing import Any

import numpy as np

TINY: dict[str, Any] = {
    "latent_dim": 2,
    "net": {"name": "mlp", "widths": [8]},
    "epochs": 1,
    "batch_size": 64,
    "score_draws": 5,
    "device": "cpu",
    "random_state": 0,
}


def rows(n: int = 60, d: int = 4, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).normal(size=(n, d))
