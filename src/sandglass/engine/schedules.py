"""Learning rate over time: pure functions of the step, except plateau, which remembers what it saw."""

from __future__ import annotations

import math

from sandglass.engine.options import Settled


def factor(options: Settled, step: int, steps_per_epoch: int) -> float:
    """What the learning rate is multiplied by at a step; the plateau's own factor is kept by the loop.

    Example:
        >>> [round(factor(Settled(epochs=2, schedule="cosine"), step, 10), 3) for step in (0, 10, 19)]
        [1.0, 0.5, 0.006]
    """
    epoch = step / steps_per_epoch
    if options.lr_warmup and epoch < options.lr_warmup:
        return (step + 1) / max(1.0, options.lr_warmup * steps_per_epoch + 1)
    if options.schedule == "step":
        return float(options.schedule_factor ** (int(epoch) // options.schedule_every))
    if options.schedule == "cosine":
        start = min(options.lr_warmup, options.epochs)
        share = (epoch - start) / max(options.epochs - start, 1e-12)
        return 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))
    return 1.0
