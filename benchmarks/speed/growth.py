"""How time and memory of Sandglass grow with the number of examples, the side of a picture and the columns of a table.

Every size runs in a process of its own, so that its memory is its own.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.speed.contenders import Setting
from benchmarks.speed.data import stored
from benchmarks.speed.session import AbsentError
from benchmarks.speed.workloads import Workload

LIMIT = 60.0
"""Seconds of an epoch beyond which a size is left out."""

_SHARE = 0.25  # of the machine's memory for the examples: reading, splitting and training take copies of a part


@dataclass(frozen=True)
class Series:
    """One thing that grows.

    Args:
        title: in tables.
        unit: of its sizes.
        sizes: in increasing order.
        workload: of a size.
        shape: of the examples of a size.
    """

    title: str
    unit: str
    sizes: tuple[int, ...]
    workload: Callable[[int], Workload]
    shape: Callable[[int], tuple[int, ...]]


def _pictures(examples: int, side: int, net: str, batch: int) -> Workload:
    options = {"likelihood": "bernoulli", "beta_schedule": "constant"}
    return Workload(f"growth-{examples}-{side}", "", "vae", net, 16, examples, (), batch, side, options=options)


def _table(columns: int) -> Workload:
    options = {"likelihood": "gaussian", "beta_schedule": "constant"}
    return Workload(f"growth-table-{columns}", "", "vae", "mlp", 16, 10_000, (), options=options)


SERIES = (
    Series(
        "pictures of 28x28, dense VAE", "pictures", (1000, 10_000, 100_000, 1_000_000),
        lambda n: _pictures(n, 28, "mlp", 256), lambda n: (n, 1, 28, 28),
    ),
    Series(
        "512 pictures, convolutional VAE", "pixels a side", (16, 32, 64, 128, 256),
        lambda side: _pictures(512, side, "conv", 64), lambda side: (512, 3, side, side),
    ),
    Series(
        "10,000 rows, dense VAE", "columns", (10, 100, 1000, 10_000),
        _table, lambda columns: (10_000, columns),
    ),
)  # fmt: skip


def smallest(series: Series) -> Series:
    """The first size alone."""
    return dataclasses.replace(series, sizes=series.sizes[:1])


def measure(setting: Setting, series: Sequence[Series] = SERIES) -> list[dict[str, Any]]:
    """Seconds per 1,000 examples and memory of every size, or why it was left out."""
    return [{"title": each.title, "unit": each.unit, "sizes": of(each, setting)} for each in series]


def of(series: Series, setting: Setting) -> dict[str, dict[str, Any]]:
    """The sizes of one series; those that follow one that takes too long are left out with it."""
    found: dict[str, dict[str, Any]] = {}
    before = (0.0, 0)
    for size in series.sizes:
        shape = series.shape(size)
        values = int(np.prod(shape))
        predicted = before[0] * values / before[1] if before[1] else 0.0
        reason = too_much(shape, predicted)
        answer = {"skipped": reason} if reason else one(series.workload(size), shape, setting)
        found[str(size)] = answer
        if "seconds" in answer:
            before = (answer["seconds"], values)
    return found


def too_much(shape: tuple[int, ...], predicted: float) -> str:
    """Why a size is left out; empty where it is not.

    Example:
        >>> too_much((10, 4), 1.0), too_much((10, 4), 100.0)
        ('', 'an epoch would take about 100 s')
    """
    width = 1 if len(shape) > 2 else 4
    needed = int(np.prod(shape)) * width
    if needed > _SHARE * memory():
        return f"its examples have {needed / 2**30:.1f} GiB"
    return f"an epoch would take about {predicted:.0f} s" if predicted > LIMIT else ""


def memory() -> int:
    """The memory of this machine, in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def examples(shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """Random pictures in bytes, or rows of floats."""
    random = np.random.default_rng(0)
    if len(shape) > 2:
        return random.integers(0, 256, shape, np.uint8)
    return random.normal(size=shape).astype(np.float32)


def one(workload: Workload, shape: tuple[int, ...], setting: Setting) -> dict[str, Any]:
    """Seconds of the second epoch and memory; of the first where that takes long."""
    data = stored(setting.folder, "growth", examples(shape))
    try:
        worker = setting.start("sandglass", dataclasses.replace(workload, contenders=("sandglass",)), data, 2)
        try:
            seconds = worker("epoch")["seconds"]
            seconds = worker("epoch")["seconds"] if seconds < LIMIT / 3 else seconds
            return {"seconds": seconds, "examples": shape[0], "memory": worker("memory")}
        finally:
            worker.close()
            data.unlink()
    except AbsentError as error:
        return {"skipped": str(error)}
