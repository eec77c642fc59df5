"""The log of a run while it trains, and which failed writes are tolerated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sandglass.engine.mirror import Mirror
from sandglass.engine.options import Settled
from sandglass.errors import SaveError
from sandglass.runs.run import Run


class Recorder:
    """Writes figures to the log of the run and to its mirrors.

    Args:
        run: whose.
        options: settled; ``on_save_error`` says whether training continues after a failed write.
        say: shows a message.
    """

    def __init__(self, run: Run, options: Settled, say: Callable[[str], None]) -> None:
        self.run, self.options, self.say = run, options, say
        self.mirror = Mirror(options.log_to if run.writes else (), run, say)
        self._unwritten: list[dict[str, Any]] = []

    def log(self, records: list[dict[str, Any]]) -> None:
        """Writes records, and those that could not be written before.

        Raises:
            SaveError: they could not be, and that is not tolerated.
        """
        self.mirror.log(records)
        self._unwritten += records
        try:
            self.run.log(self._unwritten)
            self._unwritten = []
        except SaveError as error:
            self.tolerate(error)

    def tolerate(self, error: SaveError) -> None:
        """Continues after a failed write if the options allow it and an older checkpoint is intact.

        Raises:
            SaveError: otherwise.
        """
        kept, _ = self.run.latest_checkpoint() if self.options.on_save_error == "continue" else (None, [])
        if kept is None:
            raise error
        self.say(f"{error} Training continues; the checkpoint of step {kept.step} is kept.")
