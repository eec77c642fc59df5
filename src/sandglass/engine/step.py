"""One step: every phase that is due makes an update on one batch."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sandglass import rng
from sandglass.core import Batch, Clock, Model, Phase, Stage, Terms
from sandglass.engine.average import Average
from sandglass.engine.meter import Meter
from sandglass.engine.optimizers import make_optimizers, masked_step, total_norm
from sandglass.engine.options import Training
from sandglass.engine.precision import autocast
from sandglass.engine.processes import ALONE, Processes, cuts


@dataclass
class Sums:
    """The loss and the parts of a batch, as sums over its shards, and the statistics of every shard."""

    names: list[str]
    values: Tensor
    statistics: dict[str, Tensor]


class Stepper:
    """All that a training step changes: the model in one of its stages, its optimisers, its average and its meter.

    Noise is keyed by (seed, stage, step, phase, shard), and a batch is always cut into the same shards, which several
    processes divide. After a loss, gradient or part that is not finite, weights, optimiser, average and running
    statistics stay as they were; this is decided on the device, and the meter counts it.

    Every shard begins with the buffers as they were before the update, and what the first shard makes of them is kept;
    :attr:`~sandglass.core.Phase.follow` then moves those that follow all of the batch.

    Args:
        model: already on its device.
        stage: one of the model's stages.
        options: of that stage, settled.
        processes: that train the model together.
    """

    def __init__(self, model: Model, stage: Stage, options: Training, processes: Processes = ALONE) -> None:
        self.model, self.stage, self.options, self.device = model, stage, options, model.device
        self.processes = processes
        self.phases = stage.phases
        self.optimizers = make_optimizers(stage, options)
        self.base_lr = {name: o.param_groups[0]["lr"] for name, o in self.optimizers.items()}
        self.meter = Meter(options.log_every, self.device)
        self.params: list[Tensor] = list(model.parameters())
        self.own = {p.name: p.parameters() for p in self.phases}
        stored = model.state_dict().keys()
        self.buffers = [b for name, b in model.named_buffers() if name in stored]
        moved = {id(p) for own in self.own.values() for p in own}
        self.trained = {name: p for name, p in model.named_parameters() if id(p) in moved}
        self.average = Average(self.trained, options.ema or 0.0)

    def rows(self, n: int) -> slice:
        """The rows of a batch of ``n`` examples that this process computes."""
        cut = cuts(n, self.options.accumulate)
        own = self._own(len(cut))
        return slice(cut[own[0]].start, cut[own[-1]].stop)

    def __call__(self, batch: Batch, clock: Clock, lr_factor: float, whole: int | None = None) -> None:
        """Updates every phase that is due; then the average, if any update was finite.

        Args:
            batch: the examples; with several processes those of :meth:`rows`.
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
        whole = len(batch) if whole is None else whole
        own = self.own[phase.name]
        self.clear(own)
        before = [b.clone() for b in self.buffers]
        sums = self.backward(number, phase, batch, clock, whole, before)
        self.exchange(own, sums)
        norm = total_norm([p.grad for p in own if p.grad is not None])
        good = self.meter.add(phase.name, clock.step, [*sums.names, "grad_norm"], [*sums.values, norm], whole)
        if self.options.clip is not None:
            torch.nn.utils.clip_grads_with_norm_(own, self.options.clip, norm)
        optimizer = self.optimizer(phase)
        for group in optimizer.param_groups:
            group["lr"] = self.base_lr[phase.optimizer or phase.name] * lr_factor
        masked_step(optimizer, good)
        if phase.follow is not None and sums.statistics:
            with self.noise("follow", clock, number, 0), torch.no_grad():
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

    def backward(self, number: int, phase: Phase, batch: Batch, clock: Clock, whole: int, before: list[Tensor]) -> Sums:
        """Accumulates the gradients shard by shard; returns the sums over the shards of this process.

        Args:
            number: of the phase.
            phase: to compute.
            batch: the rows of this process.
            clock: of the step.
            whole: number of examples of all processes.
            before: the buffers before the update.
        """
        sums: Sums | None = None
        kept: list[Tensor] = []
        pieces = self.pieces(batch, whole)
        made = len(pieces) if self.processes.count == 1 else len(cuts(whole, self.options.accumulate))
        mine = self.processes.shards(self.options.accumulate, made)
        for shard, piece in pieces.items():
            if sums is not None:
                kept = kept or [b.clone() for b in self.buffers]
                self.restore(before)
            share = len(piece) / whole if shard in mine else 0.0  # a process without a shard only takes part
            with self.noise("noise", clock, number, shard):
                with autocast(self.options, self.device):
                    terms = phase.loss(piece, clock)
                (terms.loss * share if share < 1 else terms.loss).backward()
            names, values = term_values(terms)
            own = torch.stack(values) * share if share < 1 else torch.stack(values)
            sums = sums or Sums(names, torch.zeros_like(own), _rows(terms.statistics, made))
            sums.values += own
            for name, value in terms.statistics.items():
                if shard in mine:
                    sums.statistics[name][shard] = value
        assert sums is not None
        if kept:
            self.restore(kept)
        return sums

    def exchange(self, own: list[torch.nn.Parameter], sums: Sums) -> None:
        """Sums gradients and figures over the processes; buffers become those of the first one."""
        if self.processes.count == 1:
            return
        for p in own:
            if p.grad is None:  # the same messages from every process, whatever its examples
                p.grad = torch.zeros_like(p)
        gradients = [p.grad for p in own if p.grad is not None]
        self.processes.sum([*gradients, sums.values, *sums.statistics.values()])
        self.processes.share(self.buffers)

    def pieces(self, batch: Batch, whole: int) -> dict[int, Batch]:
        """The shards of this process by number: parts of its rows of the batch."""
        if self.processes.count == 1:
            return dict(enumerate(batch_shards(batch, self.options.accumulate)))
        cut = cuts(whole, self.options.accumulate)
        own = self._own(len(cut))
        first = cut[own[0]].start
        return {
            shard: batch.map(lambda t, c=cut[shard]: t[c.start - first : c.stop - first])  # type: ignore[misc]
            for shard in own
        }

    def noise(self, stream: str, clock: Clock, number: int, shard: int) -> AbstractContextManager[None]:
        """In this context, the noise of a shard in a phase of this step."""
        return rng.forked(self.device, self.options.seed, stream, self.stage.name, clock.step, number, shard)

    def restore(self, values: list[Tensor]) -> None:
        """Sets the buffers."""
        with torch.no_grad():
            for buffer, value in zip(self.buffers, values, strict=True):
                buffer.copy_(value)

    def _own(self, made: int) -> range:
        """The numbers of its shards of a batch that was cut into so many; the first one if it has none."""
        return self.processes.shards(self.options.accumulate, made) or range(1)


def _rows(statistics: Mapping[str, Tensor], shards: int) -> dict[str, Tensor]:
    """Zeros for the statistics of every shard."""
    return {name: value.new_zeros(shards, *value.shape) for name, value in statistics.items()}


def batch_shards(batch: Batch, count: int) -> list[Batch]:
    """The batch, and its unpaired sets, cut into at most ``count`` parts of nearly equal size."""
    if count == 1:
        return [batch]
    count = min(count, len(batch), *(len(other) for other in batch.beside.values()))
    beside = {name: batch_shards(other, count) for name, other in batch.beside.items()}
    alone = replace(batch, beside={})
    shards = [alone.map(lambda t, cut=cut: t[cut]) for cut in cuts(len(batch), count)]  # type: ignore[misc]
    return [replace(shard, beside={k: v[i] for k, v in beside.items()}) for i, shard in enumerate(shards)]


def term_values(terms: Terms) -> tuple[list[str], list[Tensor]]:
    """The loss, the means of the parts, and the scalars: names and 0-d values of one type, of at least float32."""
    dtype = torch.float64 if terms.loss.dtype == torch.float64 else torch.float32
    values = [terms.loss.detach(), *(part.mean() for part in terms.parts.values()), *terms.scalars.values()]
    return ["loss", *terms.parts, *terms.scalars], [v.to(dtype) for v in values]
