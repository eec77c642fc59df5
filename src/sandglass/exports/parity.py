"""Verifies that a graph matches its model, on the same examples at several batch sizes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor, nn

from sandglass.errors import CapabilityError

TOLERANCE = 1e-4
"""Largest difference between graph and model: absolute, or relative to the largest value of an output if above 1."""

BATCHES = (1, 2, 7, 64)
"""Batch sizes at which a graph is verified."""


@dataclass(frozen=True)
class Difference:
    """The largest difference between a graph and its model.

    Args:
        part: ``"encoder"`` or ``"decoder"``.
        output: the output with the largest difference.
        value: the difference.
        largest: the largest absolute value of that output.
        index: its index in the output.
        batch: the batch size.
    """

    part: str
    output: str
    value: float
    largest: float
    index: tuple[int, ...]
    batch: int

    @property
    def relative(self) -> float:
        """The difference to compare with :data:`TOLERANCE`."""
        return self.value / max(1.0, self.largest)

    def __str__(self) -> str:
        place = ", ".join(map(str, self.index))
        return f"{self.value:.2g} at {self.output}[{place}] in a batch of {self.batch}"


def compare(data: bytes, module: nn.Module, given: Mapping[str, Tensor], part: str) -> Difference:
    """The largest difference between a graph and its module over :data:`BATCHES`.

    Args:
        data: the graph.
        module: the module it was exported from.
        given: inputs by name; a graph lacks inputs that its module does not use.
        part: name of the part, for messages.

    Raises:
        CapabilityError: the graph does not run, or an output has another shape.
    """
    import onnxruntime  # type: ignore[import-untyped]

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    worst: list[Difference] = []
    try:
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        names = {i.name for i in session.get_inputs()}
        for batch in BATCHES:
            piece = {name: t[:batch].contiguous() for name, t in given.items()}
            found = session.run(None, {name: t.numpy() for name, t in piece.items() if name in names})
            first, *rest = piece.values()
            made = module(first, tuple(rest)) if rest else module(first)
            for output, ours, theirs in zip(module.outputs, made, found, strict=True):  # type: ignore[arg-type]
                worst.append(_difference(part, str(output), ours.numpy(), np.asarray(theirs), batch))
    except Exception as error:  # ONNX Runtime's errors have no other common base class
        if isinstance(error, CapabilityError):
            raise
        why = " ".join(str(error).split())[:200]
        raise CapabilityError(f"The graph of the {part} does not run, so it was not written: {why}") from error
    return max(worst, key=lambda d: d.relative if d.relative == d.relative else float("inf"))


def _difference(part: str, output: str, ours: Any, theirs: Any, batch: int) -> Difference:
    if ours.shape != theirs.shape:
        raise CapabilityError(
            f"The graph of the {part} has an output {output} of shape {theirs.shape}, the model {ours.shape}; it "
            "was not written."
        )
    error = np.abs(ours.astype(np.float64) - theirs.astype(np.float64))
    place = np.unravel_index(int(np.argmax(np.where(np.isnan(error), np.inf, error))), error.shape)
    index = tuple(int(i) for i in place)
    return Difference(part, output, float(error[index]), float(np.abs(ours).max()), index, batch)


def check(difference: Difference, tolerance: float) -> None:
    """Checks a difference against the tolerance.

    Raises:
        CapabilityError: it is larger, or NaN.
    """
    if not difference.relative <= tolerance:
        raise CapabilityError(
            f"The graph of the {difference.part} differs from the model by {difference}, more than the tolerance "
            f"{tolerance:g}; nothing was written."
        )
