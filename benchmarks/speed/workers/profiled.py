"""Where the time of a step goes, by PyTorch's profiler."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.profiler import ProfilerActivity, profile

from benchmarks.speed.channel import timed


def profiled(step: Callable[[], None], steps: int) -> dict[str, Any]:
    """Milliseconds of a step, without the profiler, and by operation with it, which costs small operations more.

    Args:
        step: one update.
        steps: how many are timed, and how many are profiled.
    """

    def run() -> None:
        for _ in range(steps):
            step()

    run()
    whole = 1000 * timed(run) / steps
    with profile(activities=[ProfilerActivity.CPU]) as found:
        run()
    operations = {
        e.key: [round(e.self_cpu_time_total / 1000 / steps, 4), e.count / steps] for e in found.key_averages()
    }
    return {"whole": whole, "operations": operations}
