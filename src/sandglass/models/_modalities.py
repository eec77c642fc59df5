"""Several modalities of one example: each with an encoder and a likelihood of its own, any of them possibly absent."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, constraints

from sandglass.core import Batch, Column, Spec
from sandglass.distributions.conditional import Network, Observation
from sandglass.distributions.evidence import log_likelihoods
from sandglass.distributions.likelihood import Likelihood
from sandglass.distributions.observed import fill, observing
from sandglass.errors import ConfigError
from sandglass.models._condition import companion_of, one_hot
from sandglass.models._experts import Expert
from sandglass.nets.net import Net

LABELS = "labels"
"""The name of the classes as a modality."""


@dataclass(frozen=True)
class View:
    """What a batch holds of a modality.

    Args:
        value: ``(B, *shape)``, 0 where nothing was observed.
        present: ``(B,)``, True where the example has it.
        mask: ``(B, *shape)``, True where observed; None where all of it is that is present.
    """

    value: Tensor
    present: Tensor
    mask: Tensor | None = None

    @property
    def seen(self) -> Tensor:
        """``(B, *shape)``, True where observed."""
        return observed(self.present, self.value) if self.mask is None else self.mask


def observed(present: Tensor, value: Tensor) -> Tensor:
    """``(B,)`` spread over ``(B, *shape)``."""
    return present.view(-1, *[1] * (value.dim() - 1)).expand_as(value)


class Modality(nn.Module):
    """One thing known of an example: its expert for the latents, and its likelihood given them.

    Args:
        name: ``"x"``, ``"labels"``, or that of a companion.
        spec: of it.
        net: the family of its networks.
        likelihood: the head of p(it | its part of the code).
        shared: places of the shared latent in the code.
        private: places of its private one; none without.

    Example:
        >>> from sandglass import registry
        >>> spec = spec_of("labels", Spec((2,), classes=3))
        >>> net, head = (registry.resolve(k, "auto", *a, spec=spec) for k, a in [("net", ()), ("likelihood", (spec,))])
        >>> labels = Modality("labels", spec, net, head, range(2), ())
        >>> labels.read(Batch(y=torch.tensor([2, -1])), torch.float32)
        View(value=tensor([[0., 0., 1.],
                [0., 0., 0.]]), present=tensor([ True, False]), mask=None)
    """

    def __init__(
        self, name: str, spec: Spec, net: Net, likelihood: Likelihood, shared: Sequence[int], private: Sequence[int]
    ) -> None:
        super().__init__()
        self.name, self.spec, self.sizes = name, spec, (len(shared), len(private))
        part = [*shared, *private]
        self.q = Network.encoder(net, spec.shape, 2 * len(part))
        self.p = Observation(net, len(part), spec, likelihood, part=part)

    def read(self, batch: Batch, dtype: torch.dtype) -> View:
        """What the batch holds of it; an x of which nothing was observed is absent."""
        raw = {"x": batch.x, LABELS: batch.y}.get(self.name, batch.given.get(self.name))
        if raw is None:
            n = batch.x.shape[0] if isinstance(batch.x, Tensor) else len(batch)  # len() would fix it in a graph
            device = next(self.parameters()).device
            return View(
                torch.zeros(n, *self.spec.shape, dtype=dtype, device=device),
                torch.zeros(n, dtype=torch.bool, device=device),
            )
        gone = batch.absent.get(self.name)
        present = torch.ones(raw.shape[0], dtype=torch.bool, device=raw.device) if gone is None else ~gone
        if self.name == LABELS:
            present = present & (raw >= 0)
            return View(one_hot(raw.where(present, -1), self.spec.size).to(dtype), present)
        mask = batch.mask if self.name == "x" else None
        if mask is not None:
            mask = mask & observed(present, mask)
            present = mask.flatten(1).any(1)
        value = fill(raw.to(dtype), observed(present, raw) if mask is None else mask)
        return View(value, present, mask)

    def experts(self, view: View) -> tuple[Expert, Expert]:
        """Its factors for the shared latent and for its private one, constant where it is absent."""
        both = Expert.of(self.q(view.value)).where(view.present)
        precisions, shifts = both.precision.split(self.sizes, -1), both.shift.split(self.sizes, -1)
        return Expert(precisions[0], shifts[0]), Expert(precisions[1], shifts[1])

    def distortion(self, codes: Tensor, view: View) -> Tensor:
        """``(k, B)`` minus log p of what was observed of it given codes ``(k, B, D)``, in nats; 0 where absent."""
        return -log_likelihoods(codes, self.p, view.value, view.mask).masked_fill(~view.present, 0)

    def filled(self, batch: Batch, p: Distribution, draw: bool) -> Batch:
        """The batch with it filled in where it is absent or not observed.

        Args:
            batch: the examples.
            p: of it given their codes.
            draw: whether it is drawn; else it is its mean, and of a class the likeliest.
        """
        value = p.sample() if draw else p.mean
        view = self.read(batch, value.dtype)
        absent = {k: t for k, t in batch.absent.items() if k != self.name}
        if self.name == LABELS:
            y = value.argmax(-1)
            return replace(batch, y=y if batch.y is None else batch.y.where(view.present, y), absent=absent)
        value = torch.where(view.seen, view.value, value)
        if self.name == "x":
            return replace(batch, x=value, mask=None, absent=absent)
        return replace(batch, given={**batch.given, self.name: value}, absent=absent)


class Together(Distribution):
    """Several observations as one row, each flattened, one after the other.

    ``log_prob`` has a number for each element, whose sum is that of the row. What does not factorise over its elements
    has all of it at the first of them, so a mask may take it out as a whole.

    Args:
        parts: distributions over ``(B, *shape)``.

    Example:
        >>> from torch.distributions import Normal
        >>> p = Together([Independent(Normal(torch.zeros(5, *shape), 1.0), len(shape)) for shape in [(2,), (1, 3, 3)]])
        >>> p.log_prob(torch.zeros(5, 11)).shape
        torch.Size([5, 11])
    """

    arg_constraints: ClassVar = {}
    support = constraints.real

    def __init__(self, parts: Sequence[Distribution]) -> None:
        self.parts, self.widths = parts, [p.event_shape.numel() for p in parts]
        super().__init__(torch.Size((*parts[0].batch_shape, sum(self.widths))), validate_args=False)

    def observing(self, mask: Tensor) -> Together:
        """The same, whose parts know which elements are observed, ``(B, N)``."""
        told = [
            Independent(
                observing(p.base_dist, part.unflatten(-1, p.event_shape)), len(p.event_shape), validate_args=False
            )
            if isinstance(p, Independent)
            else p
            for p, part in zip(self.parts, mask.split(self.widths, -1), strict=True)
        ]
        return Together(told)

    def log_prob(self, value: Tensor) -> Tensor:
        """``(B, N)`` in nats."""
        each = []
        for p, part in zip(self.parts, value.split(self.widths, -1), strict=True):
            part = part.unflatten(-1, p.event_shape)
            if isinstance(p, Independent):
                each.append(p.base_dist.log_prob(part).flatten(-len(p.event_shape)))
            else:
                each.append(F.pad(p.log_prob(part)[..., None], (0, p.event_shape.numel() - 1)))
        return torch.cat(each, -1)


def spec_of(name: str, spec: Spec) -> Spec:
    """What a modality looks like; classes are a one-hot row.

    Raises:
        ConfigError: the data has no such thing.

    Example:
        >>> spec_of("labels", Spec((1, 8, 8), "unit", classes=3)).shape
        (3,)
    """
    if name == "x":
        return spec
    if name != LABELS:
        return companion_of(spec, name)
    if not spec.classes:
        raise ConfigError("A model of labels needs data with classes; name their column with --labels.")
    names = tuple(str(k) for k in range(spec.classes))
    return Spec((spec.classes,), columns=(Column(LABELS, "categorical", spec.classes, names),))


def variables(spec: Spec) -> int:
    """How many variables an example has: columns of a table, of which a class is one, else its numbers.

    Example:
        >>> spec = Spec((1, 8, 8), "unit", classes=3)
        >>> variables(spec), variables(spec_of("labels", spec))
        (64, 1)
    """
    return len(spec.columns) or spec.size


def named(names: Sequence[str], spec: Spec) -> tuple[str, ...]:
    """The modalities beside x; when none are named, the labels of data with classes, else all of its companions.

    Raises:
        ConfigError: there is none, one is named twice, or x is among them.

    Example:
        >>> named((), Spec((2,), given={"tag": Spec((3,))}))
        ('tag',)
    """
    if isinstance(names, str):
        raise ConfigError(f"The modalities are a list of names, such as ['{names}'], not '{names}'.")
    found = tuple(names) or ((LABELS,) if spec.classes else tuple(spec.given))
    if not found:
        raise ConfigError(
            "A joint model needs a second modality: data with classes, or with a companion of each example."
        )
    if "x" in found or len(set(found)) < len(found):
        raise ConfigError(f"The modalities beside x are each named once, and x is not: {', '.join(found)}.")
    return found


def without(batch: Batch, name: str) -> Batch:
    """The batch, that modality being absent."""
    device = next(t.device for t in (batch.x, batch.y, batch.index, *batch.given.values()) if t is not None)
    gone = torch.ones(len(batch), dtype=torch.bool, device=device)
    return replace(batch, absent={**batch.absent, name: gone})


def each_of(what: str, given: Sequence[Any], default: Sequence[Any]) -> list[Any]:
    """A number for each modality; one alone is that of them all.

    Raises:
        ConfigError: another number of them, or one that is negative or not finite.

    Example:
        >>> each_of("private", (0,), (8, 8)), each_of("private", (), (8, 8))
        ([0, 0], [8, 8])
    """
    found = list(given) or list(default)
    found = found * len(default) if len(found) == 1 else found
    if len(found) != len(default) or not all(0 <= v < math.inf for v in found):
        raise ConfigError(
            f"The option {what} has a number from 0 on for each of {len(default)} modalities, or one for all of them, "
            f"not {list(given)}."
        )
    return found
