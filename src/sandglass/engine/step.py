"""One step: every phase that is due makes an update on one batch."""

from __future__ import annotations

import torch
from torch import Tensor

from sandglass.core import Batch, Clock, Model, Phase, Stage
from sandglass.engine.average import Average
from sandglass.engine.batches import fewest
from sandglass.engine.gradient import Gradient
from sandglass.engine.meter import Meter
from sandglass.engine.optimizers import make_optimizers, masked_step
from sandglass.engine.options import Training
from sandglass.engine.processes import ALONE, Processes
from sandglass.engine.sharding import Divided, part, parts


class Stepper:
    """All that a training step changes: the model in one of its stages, its optimisers, its average and its meter.

    After a loss, gradient or part that is not finite, weights, optimiser, average and running statistics stay as they
    were; this is decided on the device, and the meter counts it.

    Args:
        model: already on its device.
        stage: one of the model's stages.
        options: of that stage, settled.
        processes: that train the model together.
    """

    def __init__(self, model: Model, stage: Stage, options: Training, processes: Processes = ALONE) -> None:
        self.model, self.stage, self.options, self.device = model, stage, options, model.device
        self.phases = stage.phases
        self.optimizers = make_optimizers(stage, options)
        self.base_lr = {name: o.param_groups[0]["lr"] for name, o in self.optimizers.items()}
        self.meter = Meter(options.log_every, self.device)
        self.params = parts(model.parameters())
        self.own = {p.name: parts(p.parameters()) for p in self.phases}
        stored = model.state_dict().keys()
        self.buffers = [b for name, b in model.named_buffers() if name in stored]
        moved = {id(p) for own in self.own.values() for p in own}
        self.trained = {name: part(p) for name, p in model.named_parameters() if id(part(p)) in moved}
        self.average = Average(self.trained, options.ema or 0.0)
        least = fewest(stage, options.batch_size, options.accumulate)
        self.gradient = Gradient(stage.name, options, self.buffers, self.device, processes, least, Divided(model))

    def __call__(self, batch: Batch, clock: Clock, lr_factor: float, whole: int | None = None) -> None:
        """Updates every phase that is due; then the average, if any update was finite.

        Args:
            batch: the examples; with several processes its own part.
            clock: of the step.
            lr_factor: of the learning rates.
            whole: number of examples of all processes, if there are several.
        """
        good = [
            self.turn(number, phase, batch, clock, lr_factor, whole)
            for number, phase in enumerate(self.phases)
            if clock.step % phase.every == 0
        ]
        if self.average and good:
            self.average.follow(torch.stack(good).any(), clock.step)

    def train(self) -> None:
        """Train mode for the modules that this stage trains, eval mode for all others."""
        self.model.eval()
        for module in dict.fromkeys(m for p in self.phases for m in p.trains if isinstance(m, torch.nn.Module)):
            module.train()

    def optimizer(self, phase: Phase) -> torch.optim.Optimizer:
        """The optimiser of a phase; phases may share one."""
        return self.optimizers[phase.optimizer or phase.name]

    def turn(
        self, number: int, phase: Phase, batch: Batch, clock: Clock, lr_factor: float, whole: int | None = None
    ) -> Tensor:
        """One phase: loss, gradient, masked update, record. Returns a 0-d bool, whether everything was finite."""
        own = self.own[phase.name]
        self.clear(own)
        before = [b.clone() for b in self.buffers]
        sums = self.gradient(number, phase, own, batch, clock, whole)
        norm = self.gradient.norm(own)
        good = self.meter.add(phase.name, clock.step, [*sums.names, "grad_norm"], [*sums.values, norm], sums.examples)
        if self.options.clip is not None:
            torch.nn.utils.clip_grads_with_norm_(own, self.options.clip, norm)
        optimizer = self.optimizer(phase)
        for group in optimizer.param_groups:
            group["lr"] = self.base_lr[phase.optimizer or phase.name] * lr_factor
        masked_step(optimizer, good)
        if phase.follow is not None and sums.statistics:
            with self.gradient.noise("follow", clock, number, 0), torch.no_grad():
                phase.follow(sums.statistics)
        for buffer, old in zip(self.buffers, before, strict=True):
            buffer.copy_(torch.where(good, buffer, old))
        return good

    def clear(self, own: list[torch.nn.Parameter]) -> None:
        """Enables gradients for these parameters only, and clears them."""
        if len(own) != len(self.params):
            for p in self.params:
                p.requires_grad_(False)
        for p in own:
            p.requires_grad_(True)
            p.grad = None
