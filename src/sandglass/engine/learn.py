"""Training without a run folder: nothing is logged, and it cannot be resumed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from sandglass.core import Clock, Model
from sandglass.data.dataset import Split
from sandglass.data.loading import Loader
from sandglass.engine import snapshot
from sandglass.engine.options import Settled
from sandglass.engine.schedules import make_factor
from sandglass.engine.step import Stepper
from sandglass.errors import DivergedError


def learn(
    model: Model, split: Split, options: Settled, updates: int, after: Callable[[int], None] = lambda done: None
) -> None:
    """Trains the first stage of a small model for a number of updates, and leaves it in eval mode.

    Batches, noise and learning rates are the same as in a run with these options.

    Args:
        model: on its device; changed in place.
        split: the examples.
        options: of the training.
        updates: how many.
        after: called after each update with the number of updates done.

    Raises:
        DivergedError: weights are not finite.

    Example:
        >>> from sandglass import registry
        >>> from sandglass.core import Spec
        >>> model = registry.build("ae", Spec((2,)), latent_dim=1, net="linear")
        >>> x = torch.randn(64, 1).expand(64, 2)
        >>> learn(model, Split(x.clone()), Settled(batch_size=16, device="cpu", lr=0.05), 300)
        >>> bool((model.reconstruct(x) - x).square().mean() < 0.1)
        True
    """
    # The meter must hold every update, since it is never read.
    stepper = Stepper(model, model.stages()[0], replace(options, log_every=updates))
    loader = Loader(
        split,
        options.batch_size,
        seed=options.seed,
        device=model.device,
        dtype=model.dtype,
        least=stepper.gradient.least,
    )
    factor = make_factor(options, loader.steps_per_epoch)
    with torch.enable_grad():
        stepper.train()
        for step in range(updates):
            epoch = torch.tensor(step / loader.steps_per_epoch, dtype=model.dtype, device=model.device)
            stepper(loader.batch(step), Clock(step, updates, epoch), factor(step))
            after(step + 1)
    model.requires_grad_(True)
    model.eval()
    if not snapshot.finite(stepper):
        raise DivergedError("Training diverged: weights are not finite.")
