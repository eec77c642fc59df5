"""The gradient of a phase for a batch, which is computed in shards, and by several processes together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from sandglass import rng
from sandglass.core import Batch, Clock, Phase, Terms
from sandglass.engine.batches import normalised
from sandglass.engine.optimizers import total_norm
from sandglass.engine.options import Training
from sandglass.engine.precision import autocast
from sandglass.engine.processes import Processes, cuts
from sandglass.engine.sharding import Divided
from sandglass.errors import ConfigError, named_type


@dataclass
class Sums:
    """The loss and the parts of a batch, as sums over its shards.

    Args:
        names: of the loss, the parts and the scalars.
        values: ``(len(names),)``.
        statistics: of every shard, for :attr:`~sandglass.core.Phase.follow`.
        examples: number of examples of all processes.
    """

    names: list[str]
    values: Tensor
    statistics: dict[str, Tensor]
    examples: int


class Gradient:
    """Computes gradients shard by shard.

    Noise is keyed by (seed, stage, step, phase, shard), and a batch is always cut into the same shards, which several
    processes divide. Every shard begins with the buffers as they were before the update, and what the first shard makes
    of them is kept.

    Args:
        stage: name of the stage.
        options: of that stage, settled.
        buffers: of the model.
        device: of the model.
        processes: that train the model together.
        least: examples of a shard, see :func:`~sandglass.engine.batches.fewest`.
        divided: parameters of the model that are divided among the processes, if any.
    """

    def __init__(
        self,
        stage: str,
        options: Training,
        buffers: list[Tensor],
        device: torch.device,
        processes: Processes,
        least: int = 1,
        divided: Divided | None = None,
    ) -> None:
        self.divided = divided or Divided(nn.Module())
        self.stage, self.options, self.buffers, self.device = stage, options, buffers, device
        self.processes, self.least = processes, least

    def __call__(
        self, number: int, phase: Phase, own: Sequence[nn.Parameter], batch: Batch, clock: Clock, whole: int | None
    ) -> Sums:
        """Adds up the gradients of all shards; returns the sums of the terms.

        Args:
            number: of the phase.
            phase: to compute.
            own: its parameters.
            batch: the examples; with several processes those of :meth:`rows`.
            clock: of the step.
            whole: number of examples of all processes; None for those of the batch.
        """
        with self.divided.gradients():
            sums = self.backward(number, phase, batch, clock, len(batch) if whole is None else whole)
        if self.processes.count > 1:
            self.exchange(own, sums)
        return sums

    def exchange(self, own: Sequence[nn.Parameter], sums: Sums) -> None:
        """Sums gradients and terms over the processes; buffers become those of the first one.

        Gradients of divided parameters were summed where they were computed.
        """
        divided = {id(p) for _, p in self.divided.parameters}
        own = [p for p in own if id(p) not in divided]
        without = [place for place, p in enumerate(own) if p.grad is None]
        having = torch.ones(len(own), device=self.device)
        having[without] = 0
        # The same messages from every process, whatever its examples.
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in own]
        self.processes.sum([*gradients, having, sums.values, *sums.statistics.values()])
        self.processes.share(self.buffers)
        for place in without:  # what no process has a gradient of is not updated, as with one process
            own[place].grad = gradients[place] if having[place] > 0 else None

    def norm(self, own: Sequence[nn.Parameter]) -> Tensor:
        """The Euclidean norm of all gradients together, over all processes."""
        gradients = {id(p): p.grad for p in own if p.grad is not None}
        shared = [g for _, p in self.divided.parameters if (g := gradients.pop(id(p), None)) is not None]
        norm = total_norm(list(gradients.values())) if gradients or not self.divided else None
        if not self.divided:
            assert norm is not None
            return norm
        square = (
            torch.stack([g.square().sum() for g in shared]).sum() if shared else torch.zeros((), device=self.device)
        )
        self.processes.sum([square])
        return (square if norm is None else square + norm.square()).sqrt()

    def backward(self, number: int, phase: Phase, batch: Batch, clock: Clock, whole: int) -> Sums:
        """The gradients and sums of the shards of this process."""
        pieces = self.pieces(batch, whole)
        made = len(pieces) if self.processes.count == 1 else len(self.cuts(whole))
        mine = self.processes.shards(self.options.accumulate, made)
        before = [b.clone() for b in self.buffers] if len(pieces) > 1 else []
        kept, sums = before, None
        for shard, piece in pieces.items():
            if sums is not None:
                kept = kept if kept is not before else [b.clone() for b in self.buffers]
                self.restore(before)
            share = len(piece) / whole if shard in mine else 0.0  # a process without a shard only takes part
            with self.noise("noise", clock, number, shard):
                with autocast(self.options, self.device), normalised():
                    terms = phase.loss(piece, clock)
                check_terms(terms, phase.name)
                (terms.loss * share if share < 1 else terms.loss).backward()
            names, values = term_values(terms)
            own = torch.stack(values) * share if share < 1 else torch.stack(values)
            sums = sums or Sums(names, torch.zeros_like(own), _rows(terms.statistics, made), whole)
            sums.values += own
            for name, value in terms.statistics.items():
                if shard in mine:
                    sums.statistics[name][shard] = value
        assert sums is not None
        self.restore(kept)
        return sums

    def rows(self, n: int) -> slice:
        """The rows of a batch of ``n`` examples that this process computes."""
        cut = self.cuts(n)
        own = self._own(len(cut))
        return slice(cut[own[0]].start, cut[own[-1]].stop)

    def pieces(self, batch: Batch, whole: int) -> dict[int, Batch]:
        """The shards of this process by number: parts of its rows of the batch."""
        if self.processes.count == 1:
            return dict(enumerate(batch_shards(batch, self.options.accumulate, self.least)))
        cut = self.cuts(whole)
        own = self._own(len(cut))
        first = cut[own[0]].start
        pieces = {
            shard: batch.map(lambda t, c=cut[shard]: t[c.start - first : c.stop - first])  # type: ignore[misc]
            for shard in own
        }
        if self.divided:  # all processes call every layer equally often
            each = self.options.accumulate // self.processes.count
            pieces |= {-1 - more: pieces[own[0]] for more in range(min(each, len(cut)) - len(pieces))}
        return pieces

    def cuts(self, n: int) -> list[slice]:
        """The shards of a batch of ``n`` examples."""
        return cuts(n, self.options.accumulate, self.least)

    def noise(self, stream: str, clock: Clock, number: int, shard: int) -> AbstractContextManager[None]:
        """In this context, the noise of a shard in a phase of this step."""
        return rng.forked(self.device, self.options.seed, stream, self.stage, clock.step, number, shard)

    def restore(self, values: list[Tensor]) -> None:
        """Sets the buffers, unless there are no values."""
        with torch.no_grad():
            for buffer, value in zip(self.buffers, values, strict=False):
                buffer.copy_(value)

    def _own(self, made: int) -> range:
        """The numbers of its shards of a batch that was cut into so many; the first one if it has none."""
        return self.processes.shards(self.options.accumulate, made) or range(1)


def _rows(statistics: Mapping[str, Tensor], shards: int) -> dict[str, Tensor]:
    """Zeros for the statistics of every shard."""
    return {name: value.new_zeros(shards, *value.shape) for name, value in statistics.items()}


def batch_shards(batch: Batch, count: int, least: int = 1) -> list[Batch]:
    """The batch, and its unpaired sets, cut into at most ``count`` parts of nearly equal size; see :func:`cuts`."""
    if count == 1:
        return [batch]
    count = max(1, min(count, *(len(each) // least for each in (batch, *batch.beside.values()))))
    beside = {name: batch_shards(other, count) for name, other in batch.beside.items()}
    alone = replace(batch, beside={})
    shards = [alone.map(lambda t, cut=cut: t[cut]) for cut in cuts(len(batch), count)]  # type: ignore[misc]
    return [replace(shard, beside={k: v[i] for k, v in beside.items()}) for i, shard in enumerate(shards)]


def check_terms(terms: Any, phase: str) -> None:
    """Checks what the loss of a phase returned.

    Raises:
        ConfigError: it is something else than :class:`~sandglass.core.Terms`, the loss or a scalar is not a single
            number, or a part is not a number per example without a gradient.

    Example:
        >>> check_terms(torch.zeros(16), "elbo")
        Traceback (most recent call last):
        sandglass.errors.ConfigError: The loss of the phase 'elbo' returned a Tensor; it must return Terms(loss, parts).
    """
    it = f"The loss of the phase '{phase}'"
    if not isinstance(terms, Terms):
        raise ConfigError(f"{it} returned {named_type(terms)}; it must return Terms(loss, parts).")
    values = {"its loss": terms.loss, **{f"the scalar '{k}'": v for k, v in terms.scalars.items()}}
    for name, value in values.items():
        if not isinstance(value, Tensor) or value.dim():
            raise ConfigError(
                f"{it} returned Terms in which {name} is {_said(value)}; it must be a tensor of shape ()."
            )
    for name, part in terms.parts.items():
        if not isinstance(part, Tensor) or part.dim() != 1:
            raise ConfigError(
                f"{it} returned Terms in which the part '{name}' is {_said(part)}; it must be a tensor of shape (B,)."
            )
    for name, value in {**terms.parts, **terms.scalars}.items():
        if value.requires_grad:
            raise ConfigError(f"{it} returned Terms in which '{name}' has a gradient; give '{name}': {name}.detach().")


def _said(value: Any) -> str:
    return f"of shape {tuple(value.shape)}" if isinstance(value, Tensor) else named_type(value)


def term_values(terms: Terms) -> tuple[list[str], list[Tensor]]:
    """The loss, the means of the parts, and the scalars: names and 0-d values of one type, of at least float32."""
    dtype = torch.float64 if terms.loss.dtype == torch.float64 else torch.float32
    values = [terms.loss.detach(), *(part.mean() for part in terms.parts.values()), *terms.scalars.values()]
    return ["loss", *terms.parts, *terms.scalars], [v.to(dtype) for v in values]
