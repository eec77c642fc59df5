"""One step: every phase that is due takes its turn on one batch."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from sandglass import rng
from sandglass.core import Batch, Clock, Model, Phase, Terms
from sandglass.engine.meter import Meter
from sandglass.engine.optimizers import (
    load_optimizer_tensors,
    make_optimizer,
    masked_step,
    optimizer_tensors,
)
from sandglass.engine.options import Training
from sandglass.registry import require_masks


class Stepper:
    """The model, its optimisers, the moving average and the meter: all that a step changes.

    Noise is drawn under a key of (seed, step, phase, shard), and a batch is always cut into the same shards. A loss,
    gradient or part that is not finite leaves weights, optimiser, average and running statistics as they were; that is
    decided on the device, and the meter keeps the count.

    Args:
        model: on its device already.
        options: settled ones.
    """

    def __init__(self, model: Model, options: Training) -> None:
        self.model, self.options, self.device = model, options, model.device
        self.phases = list(model.phases())
        self.optimizers = {p.name: make_optimizer(p, options) for p in self.phases}
        self.base_lr = {name: o.param_groups[0]["lr"] for name, o in self.optimizers.items()}
        self.meter = Meter(options.log_every, self.device)
        self.params: list[Tensor] = list(model.parameters())
        self.own = {p.name: p.parameters() for p in self.phases}
        self.buffers = [t for t in model.buffers() if t.is_floating_point()]
        self.ema = [p.detach().clone() for p in self.params] if options.ema else []

    def __call__(self, batch: Batch, clock: Clock, lr_factor: float) -> None:
        """Every due phase takes its turn.

        Raises:
            CapabilityError: a mask, and a model whose losses do not take one.
        """
        if batch.mask is not None:
            require_masks(self.model)
        for number, phase in enumerate(self.phases):
            if phase.due(clock):
                self.turn(number, phase, batch, clock, lr_factor)

    def turn(self, number: int, phase: Phase, batch: Batch, clock: Clock, lr_factor: float) -> None:
        """One phase: loss, gradient, masked update, record."""
        own = self.own[phase.name]
        self.clear(own)
        before = [b.clone() for b in self.buffers]
        names, values = self.backward(number, phase, batch, clock)
        norm = total_norm([p.grad for p in own if p.grad is not None])
        good = self.meter.add(phase.name, clock.step, [*names, "grad_norm"], [*values, norm], len(batch))
        if self.options.clip is not None:
            torch.nn.utils.clip_grads_with_norm_(own, self.options.clip, norm)
        optimizer = self.optimizers[phase.name]
        for group in optimizer.param_groups:
            group["lr"] = self.base_lr[phase.name] * lr_factor
        masked_step(optimizer, good)
        for buffer, old in zip(self.buffers, before, strict=True):
            buffer.copy_(torch.where(good, buffer, old))
        if self.ema and number == len(self.phases) - 1:
            self.average(good)

    def clear(self, own: list[torch.nn.Parameter]) -> None:
        """Lets gradients flow to these parameters only, and clears them."""
        if len(own) != len(self.params):
            for p in self.params:
                p.requires_grad_(False)
        for p in own:
            p.requires_grad_(True)
            p.grad = None

    def backward(self, number: int, phase: Phase, batch: Batch, clock: Clock) -> tuple[list[str], list[Tensor]]:
        """Gradients of the batch, shard by shard; the loss and the means of the parts."""
        shards = batch_shards(batch, self.options.accumulate)
        totals: list[Tensor] = []
        names: list[str] = []
        for shard, piece in enumerate(shards):
            rng.reseed(rng.key(self.options.seed, "noise", clock.step, number, shard), self.device)
            with autocast(self.options, self.device):
                terms = phase.loss(piece, clock)
            share = len(piece) / len(batch)
            (terms.loss * share if share < 1 else terms.loss).backward()
            names, values = term_values(terms)
            if len(shards) > 1:
                values = [value * share for value in values]
                values = [a + b for a, b in zip(totals, values, strict=True)] if totals else values
            totals = values
        return names, totals

    @torch.no_grad()
    def average(self, good: Tensor) -> None:
        """Moves the average towards the weights, if the update was good."""
        weight = good.to(self.ema[0].dtype) * (1 - self.options.ema)
        difference = torch._foreach_sub(self.params, self.ema)
        torch._foreach_mul_(difference, weight)
        torch._foreach_add_(self.ema, difference)

    def swap_average(self) -> None:
        """Exchanges weights and average, for validating and keeping the average; twice is nothing."""
        for p, average in zip(self.params, self.ema, strict=True):
            kept = p.detach().clone()
            p.data.copy_(average)
            average.copy_(kept)

    def finite(self) -> bool:
        """Whether every weight and every buffer is finite."""
        tensors = [*self.params, *self.buffers, *self.ema]
        return bool(torch.stack([torch.isfinite(t).all() for t in tensors]).all())

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """Everything a step changes, by file."""
        optim: dict[str, Tensor] = {}
        for name, optimizer in self.optimizers.items():
            optim |= optimizer_tensors(optimizer, name)
        files = {"model": dict(self.model.state_dict()), "optim": optim, "meter": self.meter.tensors()}
        return files | ({"ema": self.kept()} if self.ema else {})

    def kept(self) -> dict[str, Tensor]:
        """The weights that validation saw and that are worth keeping: the average if there is one."""
        state = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
        if self.ema:
            names = [name for name, _ in self.model.named_parameters()]
            state |= dict(zip(names, self.ema, strict=True))
        return state

    def load(self, tensors: Mapping[str, Mapping[str, Tensor]], meter: Mapping[str, Any]) -> None:
        """The inverse of :meth:`tensors`; the model's own weights are put in by the caller."""
        for name, optimizer in self.optimizers.items():
            load_optimizer_tensors(optimizer, name, tensors["optim"])
        self.meter.load(tensors["meter"], meter)
        for average, (name, _) in zip(self.ema, self.model.named_parameters(), strict=False):
            average.copy_(tensors["ema"][name])


def batch_shards(batch: Batch, count: int) -> list[Batch]:
    """The batch cut into at most ``count`` parts of nearly equal size."""
    if count == 1:
        return [batch]
    bounds = [len(batch) * i // count for i in range(count + 1)]
    pieces = [slice(a, b) for a, b in pairwise(bounds) if b > a]
    return [batch.map(lambda t, piece=piece: t[piece]) for piece in pieces]  # type: ignore[misc]


def term_values(terms: Terms) -> tuple[list[str], list[Tensor]]:
    """The loss and the means of the parts: names and 0-d values of at least float32, all of the loss's type."""
    dtype = torch.float64 if terms.loss.dtype == torch.float64 else torch.float32
    values = [terms.loss.detach(), *(part.mean() for part in terms.parts.values())]
    return ["loss", *terms.parts], [v.to(dtype) for v in values]


def total_norm(gradients: list[Tensor]) -> Tensor:
    """The Euclidean norm of all gradients together; on a CPU by BLAS, which is twice as fast as the norm kernel."""
    if gradients[0].device.type != "cpu":
        return torch.nn.utils.get_total_norm(gradients)
    flat = [g.reshape(-1) for g in gradients]
    return torch.stack([torch.dot(g, g) for g in flat]).sum().sqrt()


def autocast(options: Training, device: torch.device) -> AbstractContextManager[object]:
    """The precision of a forward pass."""
    return torch.autocast(device.type, torch.bfloat16) if options.precision == "bf16" else nullcontext()
