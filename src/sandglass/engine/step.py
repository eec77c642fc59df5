"""One step: every phase that is due makes an update on one batch."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from sandglass import rng
from sandglass.core import Batch, Clock, Model, Phase, Stage, Terms
from sandglass.engine.average import Average
from sandglass.engine.meter import Meter
from sandglass.engine.optimizers import make_optimizers, masked_step, total_norm
from sandglass.engine.options import Training
from sandglass.engine.precision import autocast


class Stepper:
    """All that a training step changes: the model in one of its stages, its optimisers, its average and its meter.

    Noise is keyed by (seed, stage, step, phase, shard), and a batch is always cut into the same shards. After a loss,
    gradient or part that is not finite, weights, optimiser, average and running statistics stay as they were; this is
    decided on the device, and the meter counts it.

    Args:
        model: already on its device.
        stage: one of the model's stages.
        options: of that stage, settled.
    """

    def __init__(self, model: Model, stage: Stage, options: Training) -> None:
        self.model, self.stage, self.options, self.device = model, stage, options, model.device
        self.phases = stage.phases
        self.optimizers = make_optimizers(stage, options)
        self.base_lr = {name: o.param_groups[0]["lr"] for name, o in self.optimizers.items()}
        self.meter = Meter(options.log_every, self.device)
        self.params: list[Tensor] = list(model.parameters())
        self.own = {p.name: p.parameters() for p in self.phases}
        self.buffers = [t for t in model.buffers() if t.is_floating_point()]
        moved = {id(p) for own in self.own.values() for p in own}
        self.trained = {name: p for name, p in model.named_parameters() if id(p) in moved}
        self.average = Average(self.trained, options.ema or 0.0)

    def __call__(self, batch: Batch, clock: Clock, lr_factor: float) -> None:
        """Updates every phase that is due; then the average, if any update was finite."""
        good = [
            self.turn(number, phase, batch, clock, lr_factor)
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

    def turn(self, number: int, phase: Phase, batch: Batch, clock: Clock, lr_factor: float) -> Tensor:
        """One phase: loss, gradient, masked update, record. Returns a 0-d bool, whether everything was finite."""
        own = self.own[phase.name]
        self.clear(own)
        before = [b.clone() for b in self.buffers]
        names, values = self.backward(number, phase, batch, clock)
        norm = total_norm([p.grad for p in own if p.grad is not None])
        good = self.meter.add(phase.name, clock.step, [*names, "grad_norm"], [*values, norm], len(batch))
        if self.options.clip is not None:
            torch.nn.utils.clip_grads_with_norm_(own, self.options.clip, norm)
        optimizer = self.optimizer(phase)
        for group in optimizer.param_groups:
            group["lr"] = self.base_lr[phase.optimizer or phase.name] * lr_factor
        masked_step(optimizer, good)
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

    def backward(self, number: int, phase: Phase, batch: Batch, clock: Clock) -> tuple[list[str], list[Tensor]]:
        """Accumulates the gradients shard by shard; returns the names and values of the loss and its parts."""
        shards = batch_shards(batch, self.options.accumulate)
        totals: list[Tensor] = []
        names: list[str] = []
        for shard, piece in enumerate(shards):
            share = len(piece) / len(batch)
            with rng.forked(self.device, self.options.seed, "noise", self.stage.name, clock.step, number, shard):
                with autocast(self.options, self.device):
                    terms = phase.loss(piece, clock)
                (terms.loss * share if share < 1 else terms.loss).backward()
            names, values = term_values(terms)
            if len(shards) > 1:
                values = [value * share for value in values]
                values = [a + b for a, b in zip(totals, values, strict=True)] if totals else values
            totals = values
        return names, totals


def batch_shards(batch: Batch, count: int) -> list[Batch]:
    """The batch, and its unpaired sets, cut into at most ``count`` parts of nearly equal size."""
    if count == 1:
        return [batch]
    count = min(count, len(batch), *(len(other) for other in batch.beside.values()))
    beside = {name: batch_shards(other, count) for name, other in batch.beside.items()}
    cuts = [slice(len(batch) * i // count, len(batch) * (i + 1) // count) for i in range(count)]
    shards = [replace(batch, beside={}).map(lambda t, cut=cut: t[cut]) for cut in cuts]  # type: ignore[misc]
    return [replace(shard, beside={k: v[i] for k, v in beside.items()}) for i, shard in enumerate(shards)]


def term_values(terms: Terms) -> tuple[list[str], list[Tensor]]:
    """The loss, the means of the parts, and the scalars: names and 0-d values of one type, of at least float32."""
    dtype = torch.float64 if terms.loss.dtype == torch.float64 else torch.float32
    values = [terms.loss.detach(), *(part.mean() for part in terms.parts.values()), *terms.scalars.values()]
    return ["loss", *terms.parts, *terms.scalars], [v.to(dtype) for v in values]
