"""Event files for TensorBoard."""

from __future__ import annotations

from collections.abc import Sequence

from sandglass.engine.mirror import Point
from sandglass.registry import register
from sandglass.runs.run import Run


@register("tensorboard", kind="logger")
class TensorBoard:
    """Event files in RUN/tensorboard, a scalar for each figure; look with `tensorboard --logdir RUN`.

    A resumed run adds a file that discards the figures of steps after the one it resumes from.
    """

    package = "tensorboard"

    def __init__(self, run: Run, after: int | None) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(run.path / "tensorboard", purge_step=None if after is None else after + 1)
        if after == 0:
            lines = (run.path / "config.yaml").read_text().splitlines()
            self.writer.add_text("config", "\n".join(f"    {line}" for line in lines), 0)  # indented: code in Markdown

    def log(self, points: Sequence[Point]) -> None:
        """Writes the figures, in float32, and flushes."""
        for point in points:
            self.writer.add_scalar(point.name, point.value, point.step)
        self.writer.flush()

    def close(self, finished: bool | None) -> None:
        """Closes the file."""
        self.writer.close()
