"""The arithmetic of speed, over a clock that the test sets: no time is measured here."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from helpers import fresh, pictures
from sandglass.errors import ConfigError
from sandglass.metrics.measure import measure


def clock(monkeypatch: pytest.MonkeyPatch, seconds: list[float]) -> None:
    """Lets the rounds take so long, again and again."""
    times, calls = 0.0, 0

    def now() -> float:
        nonlocal times, calls
        times += seconds[calls // 2 % len(seconds)] if calls % 2 else 100.0
        calls += 1
        return times

    monkeypatch.setattr("sandglass.metrics.speed.perf_counter", now)


def test_it_is_the_batch_over_the_median_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock(monkeypatch, [0.4, 0.1, 0.2, 9.0, 0.3])
    data = pictures(12)
    model = fresh("vae", data, latent_dim=2, net={"name": "mlp", "widths": [8]})
    sizes: dict[str, list[int]] = {"encode": [], "decode": [], "sample": []}
    for name, seen in sizes.items():
        monkeypatch.setattr(model, name, counting(getattr(model, name), seen))
    results = measure(model, data.train, names=["speed"], speed={"batch_size": 30, "rounds": 5, "warmup": 2})
    assert [r.name for r in results] == ["encode_speed", "decode_speed", "sample_speed"]
    for result in results:
        # One binomial deviation about the median of five is 0.28 to 0.72 of the way from the least to the largest.
        low, high = 0.2 + 0.1 * (1 - 2 * 5**-0.5), 0.3 + 0.1 * 2 * 5**-0.5
        assert result.value == pytest.approx(30 / 0.3)
        assert result.stderr == pytest.approx(30 / 0.3**2 * (high - low) / 2)
        assert (result.n, result.unit) == (150, "examples/s")
        threads = torch.get_num_threads()
        assert result.note == (
            f"{threads} CPU thread(s); batches of 30; median of 5 after 2 to warm up, quartiles 75 and 150"
        )
    assert sizes["encode"] == [30] * 8 and sizes["sample"] == [30] * 7
    assert sizes["decode"][:7] == [30] * 7


def counting(method: Any, seen: list[int]) -> Any:
    def counted(what: Any, *rest: Any, **options: Any) -> Any:
        seen.append(what if isinstance(what, int) else len(what))
        return method(what, *rest, **options)

    return counted


def test_a_model_is_timed_at_what_it_can_do() -> None:
    data = pictures(12)
    results = measure(fresh("gan", data), data.train, names=["speed"], speed={"rounds": 2, "batch_size": 4})
    assert [r.name for r in results] == ["decode_speed", "sample_speed"]
    (one,) = measure(fresh("gan", data), data.train, names=["sample_speed"], speed={"rounds": 2, "batch_size": 4})
    assert one.name == "sample_speed" and one.value > 0
    assert "sample_speed" not in {r.name for r in measure(fresh("vae", data), data.train)}


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"rounds": 1}, {"warmup": -1}])
def test_options_that_make_no_sense_are_refused(options: dict[str, int]) -> None:
    data = pictures(12)
    with pytest.raises(ConfigError, match="speed needs batch_size >= 1, rounds >= 2 and warmup >= 0"):
        measure(fresh("vae", data), data.train, names=["speed"], speed=options)
