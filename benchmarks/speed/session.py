"""The driver's end: workers in processes of their own, which take turns while the others sleep."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

Time = TypeVar("Time")

ROOT = Path(__file__).resolve().parents[2]
PAUSE = 0.25
"""Seconds between turns: threads that wait for more work keep a core busy for a while before they sleep."""


class AbsentError(Exception):
    """A contender that does not run here, and why, in one line."""


class Worker:
    """A process that answers requests.

    Args:
        module: of the worker.
        python: the interpreter of its library.
        job: its first request.
        log: where its standard error goes.
        threads: of the processor.

    Raises:
        AbsentError: it ended before it was ready.
    """

    def __init__(self, module: str, python: Path, job: Mapping[str, Any], log: Path, threads: int) -> None:
        self.log = log
        environment = os.environ | {"OMP_NUM_THREADS": str(threads), "PYTHONPATH": path_for(python)}
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("w") as errors:
            self.process = subprocess.Popen(
                [str(python), "-m", f"benchmarks.speed.workers.{module}"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, cwd=ROOT, env=environment,
            )  # fmt: skip
        self.about: dict[str, Any] = self.speak(job)

    def __call__(self, action: str, **options: Any) -> Any:
        """The answer to a request.

        Raises:
            AbsentError: the worker has ended.
        """
        return self.speak({"do": action, "with": options})

    def speak(self, message: Mapping[str, Any]) -> Any:
        """Sends a line and reads one."""
        assert self.process.stdin is not None and self.process.stdout is not None
        line = ""
        if not self.process.stdin.closed:
            with suppress(BrokenPipeError):
                self.process.stdin.write(json.dumps(message) + "\n")
                self.process.stdin.flush()
            line = self.process.stdout.readline()
        if not line:
            self.close()
            raise AbsentError(last_line(self.log.read_text(errors="replace")))
        return json.loads(line)

    def close(self) -> None:
        """Ends the process."""
        assert self.process.stdin is not None and self.process.stdout is not None
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


def path_for(python: Path) -> str:
    """PYTHONPATH of a worker: the repository's source for this interpreter alone."""
    return str(ROOT / "src") if str(python) == sys.executable else ""


def last_line(text: str) -> str:
    """The last line that says something.

    Example:
        >>> last_line("Traceback\\nImportError: no module\\n\\n")
        'ImportError: no module'
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it ended without a word"


def in_turns(
    actions: Mapping[str, Callable[[], Time]], rounds: int, *, dropped: int = 1
) -> tuple[dict[str, list[Time]], dict[str, list[Time]], dict[str, str]]:
    """Has all act in turns, A B C A B C; one that fails takes no further part.

    Args:
        actions: that answer with the time they took, by name, in the order of their turns.
        rounds: that count.
        dropped: rounds before them, which warm up.

    Returns:
        The times of the rounds that count and of those that were dropped, by name, and why others are absent.

    Example:
        >>> in_turns({"a": iter([9.0, 2.0, 1.0]).__next__}, rounds=2)
        ({'a': [2.0, 1.0]}, {'a': [9.0]}, {})
    """
    times: dict[str, list[Time]] = {name: [] for name in actions}
    absent: dict[str, str] = {}
    for _ in range(dropped + rounds):
        for name, action in actions.items():
            if name not in absent:
                time.sleep(PAUSE)
                try:
                    times[name].append(action())
                except AbsentError as error:
                    absent[name] = str(error)
    kept = {name: each for name, each in times.items() if name not in absent}
    return {n: t[dropped:] for n, t in kept.items()}, {n: t[:dropped] for n, t in kept.items()}, absent
