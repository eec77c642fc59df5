"""Signals, handled by the loop at the next step boundary."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

from sandglass.engine.processes import ALONE, Processes


class Signals:
    """In this context SIGTERM and the first Ctrl-C request a stop, SIGUSR1 a save; a second Ctrl-C exits at once.

    Several processes :meth:`agree` on what was requested of any of them, so that all stop after the same step.
    Handlers are set in the main thread only; the previous ones are restored at the end.

    Attributes:
        stop: number of the signal that requested a stop, or None.
        save: whether a save was requested.
    """

    def __init__(self) -> None:
        self.stop: int | None = None
        self.save = False
        self._found: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():
            numbers = [signal.SIGTERM, signal.SIGINT] + ([signal.SIGUSR1] if hasattr(signal, "SIGUSR1") else [])
            for number in numbers:
                self._found[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._found.items():
            signal.signal(number, handler)
        self._found.clear()

    def agree(self, processes: Processes = ALONE) -> tuple[int | None, bool]:
        """What was requested of any of the processes: the signal to stop, and whether to save, which is then done."""
        asked, self.save = self.save, False
        stop, save = processes.most(self.stop or 0, asked)
        self.stop = stop or self.stop
        return stop or None, bool(save)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if hasattr(signal, "SIGUSR1") and number == signal.SIGUSR1:
            self.save = True
        elif number == signal.SIGINT and self.stop == signal.SIGINT:
            raise KeyboardInterrupt
        else:
            self.stop = number
