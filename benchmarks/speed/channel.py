"""How the driver and a worker speak: a line of JSON for each request, and one for its answer.

A worker runs in the interpreter of its library, so this file needs nothing but Python.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a worker is to do.

    Args:
        data: path of the examples, ``(N, *shape)`` in bytes.
        folder: for what it writes.
        device: to train on.
        threads: of the processor.
        epochs: that may be asked for.
        workload: see :class:`~benchmarks.speed.workloads.Workload`.
        options: of this contender alone.
    """

    data: str
    folder: str
    device: str
    threads: int
    epochs: int
    workload: dict[str, Any]
    options: dict[str, Any] = field(default_factory=dict)


class Trained(Protocol):
    """A worker: it trains one workload by its library's loop, and uses the model."""

    def about(self) -> dict[str, Any]:
        """Number of parameters, versions, precision."""
        ...

    def fit(self) -> None:
        """Trains; waits for the driver before every epoch."""
        ...


class Channel:
    """The worker's end. Whatever a library prints goes to the standard error, so that answers stay in one piece.

    The training loop of a library is the library's own: at the end of each of its epochs it calls :meth:`lap`, which
    answers with the time that the epoch took and holds the loop until the driver asks for the next epoch.

    Attributes:
        waited: seconds spent waiting for the driver.
    """

    def __init__(self) -> None:
        self.answers = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
        os.dup2(2, 1)
        self.waited = self.begun = self.worked = 0.0
        self.synchronise: Callable[[], None] = lambda: None

    def job(self) -> Job:
        """The first line."""
        return Job(**json.loads(sys.stdin.readline()))

    def answer(self, value: Any) -> None:
        print(json.dumps(value), file=self.answers)

    def wait(self, worker: Any) -> None:
        """Answers requests until an epoch is asked for, from which on time counts."""
        since = time.perf_counter()
        self.serve(worker, until="epoch")
        self.begun = time.perf_counter()
        self.waited += self.begun - since
        self.worked = time.process_time()

    def lap(self, worker: Any) -> None:
        """At the end of an epoch: answers with its time by the clock and by the processor, and waits for the next."""
        self.synchronise()
        taken = {"seconds": time.perf_counter() - self.begun, "processor": time.process_time() - self.worked}
        self.answer(taken)
        self.wait(worker)

    def serve(self, worker: Any, until: str = "") -> None:
        """Answers requests, each the name of a method and its arguments, until the one named ``until`` comes.

        Raises:
            SystemExit: the driver has closed the channel.
        """
        while line := sys.stdin.readline():
            request = json.loads(line)
            if request["do"] == until:
                return
            self.answer(
                peak_memory() if request["do"] == "memory" else getattr(worker, request["do"])(**request["with"])
            )
        raise SystemExit


def run(make: Callable[[Channel, Job], Trained]) -> None:
    """Makes a worker of the first line, and has it train."""
    channel = Channel()
    worker = make(channel, channel.job())
    channel.answer(worker.about())
    worker.fit()


def timed(action: Callable[[], Any]) -> float:
    """The seconds that an action takes."""
    since = time.perf_counter()
    action()
    return time.perf_counter() - since


def peak_memory() -> int:
    """The largest resident memory of this process so far, in bytes.

    On Linux from /proc, since the figure of ``getrusage`` begins with that of the parent process.
    """
    try:
        with open("/proc/self/status", encoding="ascii") as file:
            return next(1024 * int(line.split()[1]) for line in file if line.startswith("VmHWM"))
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else 1024 * peak
