"""A ladder VAE on scikit-learn's digits: as good a bound as the VAE's, and something in every level."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path


def test_digits_are_modelled_as_well_as_by_a_vae_and_both_levels_are_used() -> None:
    """Under 102 nats an image, the limit that the VAE is held to; a level is used where its rate is above 0.1 nats."""
    folder = Path(__file__).resolve().parents[2] / "benchmarks"
    sys.path.insert(0, str(folder))
    try:
        spec = importlib.util.spec_from_file_location("ladder_digits", folder / "ladder_digits.py")
        assert spec is not None and spec.loader is not None
        benchmark = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(benchmark)
    finally:
        sys.path.remove(str(folder))
    data = benchmark.digits()
    found = benchmark.figures(benchmark.trained("ladder-vae", data, 0), data)
    assert found["-elbo"] < 102
    assert found["-iw100"] < found["-elbo"] - 1
    assert found["z1"] > 0.1 and found["z2"] > 0.1
