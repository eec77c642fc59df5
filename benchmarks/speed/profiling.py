"""The steps of Sandglass and of the least loop, by operation."""

from __future__ import annotations

from typing import Any

from benchmarks.speed.contenders import Setting
from benchmarks.speed.data import pictures, stored
from benchmarks.speed.workloads import Workload

WHO = ("sandglass", "torch")


def measure(workload: Workload, setting: Setting, steps: int) -> dict[str, Any]:
    """Milliseconds of a step of both, whole and by operation, each in a process of its own after an epoch."""
    data = stored(setting.folder, "train", pictures(workload.examples)[1])
    found = {}
    for name in WHO:
        worker = setting.start(name, workload, data, 2)
        try:
            worker("epoch")
            found[name] = worker("profile", steps=steps)
        finally:
            worker.close()
    return {"title": workload.title, "contenders": found}
