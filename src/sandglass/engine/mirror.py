"""Copies of a run's figures for experiment trackers; ``metrics.jsonl`` remains the complete log."""

from __future__ import annotations

import importlib.util
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from sandglass import registry
from sandglass.errors import MissingPackageError
from sandglass.runs.run import Run


@dataclass(frozen=True)
class Point:
    """One figure of one step, by a name such as ``train/elbo/rate`` or ``results/test/mse``."""

    name: str
    value: float
    step: int


class Logger(Protocol):
    """An experiment tracker that figures are copied to, registered as kind ``logger``.

    Args:
        run: whose figures.
        after: training continues after this step, and what was logged for later steps is discarded; None to add to
            a run whose training has ended.

    Attributes:
        package: the package it needs, installed by the extra ``logging``.
    """

    package: str

    def __init__(self, run: Run, after: int | None) -> None: ...

    def log(self, points: Sequence[Point]) -> None:
        """Logs figures, all finite; they must survive if the process is killed right after."""
        ...

    def close(self, finished: bool | None) -> None:
        """Closes the log: whether training finished; None where nothing was trained."""
        ...


class Mirror:
    """The loggers of a run. A logger that fails is reported once and dropped; training continues.

    Args:
        names: of the loggers.
        run: whose figures.
        say: shows a message.
    """

    def __init__(self, names: Sequence[str], run: Run, say: Callable[[str], None]) -> None:
        self.names, self.run, self.say = tuple(names), run, say
        self.loggers: dict[str, Logger] = {}

    def start(self, after: int | None) -> None:
        """Opens every logger; see :class:`Logger` for ``after``."""
        for name in self.names:
            with self._guarded(name):
                self.loggers[name] = registry.resolve("logger", name, self.run, after)

    def log(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Copies records of ``metrics.jsonl``, without those that are not finite."""
        self.copy([Point("/".join((r["split"], r["phase"], r["term"])), r["value"], r["step"]) for r in records])

    def stop(self, finished: bool | None) -> None:
        """Closes every logger."""
        for name, logger in list(self.loggers.items()):
            with self._guarded(name):
                logger.close(finished)
        self.loggers = {}

    def copy(self, points: Sequence[Point]) -> None:
        """Copies the finite ones of these figures."""
        finite = [p for p in points if p.value is not None and math.isfinite(p.value)]
        for name, logger in list(self.loggers.items()):
            with self._guarded(name):
                logger.log(finite)

    @contextmanager
    def _guarded(self, name: str) -> Iterator[None]:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # those of the tracker's own package
                yield
        except Exception as error:
            self.loggers.pop(name, None)
            reason = str(error).strip().split("\n")[0][:200] or type(error).__name__
            self.say(f"Logging to {name} failed and is switched off; metrics.jsonl has every figure. Reason: {reason}")


def copy_results(run: Run, report: Mapping[str, Any], say: Callable[[str], None]) -> None:
    """Copies the results of an evaluation to the loggers of a run, at the step of the evaluated weights."""
    names = run.config.get("training", {}).get("log_to")
    mirror = Mirror(names if isinstance(names, list) else (), run, say)
    mirror.start(None)
    step, split = report["step"], report["split"]
    mirror.copy([Point(f"results/{split}/{k}", m["value"], step) for k, m in report["metrics"].items()])
    mirror.stop(None)


def require(names: Sequence[str]) -> None:
    """Refuses loggers whose package is not installed.

    Raises:
        MissingPackageError: it is not.
    """
    for name in names:
        package = registry.entry("logger", name).make.package  # type: ignore[attr-defined]
        if importlib.util.find_spec(package) is None:
            raise MissingPackageError(f"Logging to {name} needs {package}: pip install 'sandglass-ml[logging]'.")
