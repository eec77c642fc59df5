"""The vocabulary of the whole package: data, training, and what a model can do.

A model is built from a :class:`Spec` alone. It is trained in a list of :class:`Stage` objects, each with
:class:`Phase` objects whose losses turn a :class:`Batch` and the :class:`Clock` into :class:`Terms`. It does not depend
on files, the training loop or metrics. It is one file because it is read as a whole.
"""

from __future__ import annotations

import abc
import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from html import escape
from types import MappingProxyType
from typing import Any, Literal

import torch
from torch import Tensor, nn

from sandglass.conversion import taking_arrays
from sandglass.errors import CapabilityError, ConfigError

Support = Literal["real", "unit", "binary", "levels", "index"]
Layout = Literal["row", "image", "sequence"]
FigureKind = Literal["density", "mass", "cross-entropy", "cost"]
ColumnKind = Literal["numeric", "positive", "count", "categorical", "ordinal", "date", "sequence"]

CAPABILITIES = (
    *("encode", "decode", "reconstruct", "posterior", "prior", "interpolate", "bound", "log_prob", "score"),
    *("classify", "embed", "complete", "translate"),
)
"""What a model may offer in addition to :meth:`Model.sample`; each is a method of that name."""

_OF_EXAMPLES = {"encode", "reconstruct", "posterior", "bound", "log_prob", "score", "classify", "complete", "translate"}
_TAKES = {"decode": Tensor, "embed": Tensor, "sample": int}  # the others


@dataclass(frozen=True)
class Column:
    """One column of a table, and how it is encoded.

    Args:
        name: the header.
        kind: ``"numeric"``, ``"positive"`` (its logarithm), ``"count"``, ``"categorical"`` (one-hot), ``"ordinal"`` (a
            rank), ``"date"`` or ``"sequence"``.
        width: how many numbers of the encoded row it takes.
        categories: the values of a categorical or ordinal column, in the order of their codes.
        mean: subtracted first from a number, logarithm, count, rank or date; 0 for categories.
        scale: then divided by; 1 for categories.
    """

    name: str
    kind: ColumnKind = "numeric"
    width: int = 1
    categories: tuple[str, ...] = ()
    mean: float = 0.0
    scale: float = 1.0

    @property
    def real(self) -> bool:
        """Whether its values are real numbers of either sign."""
        return self.kind in ("numeric", "date", "sequence")

    @property
    def discrete(self) -> bool:
        """Whether it has finitely or countably many values."""
        return self.kind in ("count", "categorical", "ordinal")


@dataclass(frozen=True)
class Spec:
    """The shape and type of one example: all of the data that a model is built from.

    Args:
        shape: ``(C, H, W)`` for images, ``(D,)`` for rows.
        support: ``"real"`` (any number), ``"unit"`` (in [0, 1]), ``"binary"`` (0 or 1), ``"levels"`` (``levels``
            equally spaced values in [0, 1], modelled as discrete) or ``"index"`` (whole numbers below ``levels``).
        levels: how many values a unit, level-valued or index element can take (256 for bytes).
        classes: number of classes, 0 without labels.
        columns: names and kinds of a table's columns.
        layout: ``"image"``, ``"row"`` or ``"sequence"``; from the shape by default.
        given: companions of each example, by name: another picture, a vector, another modality.
        beside: other, unpaired sets of examples, by name: another domain, unlabelled pictures.

    Example:
        >>> Spec((1, 28, 28), "unit").size, Spec((1, 28, 28), "unit").layout
        (784, 'image')
        >>> Spec((1, 28, 28), "levels", classes=10)
        Spec((1, 28, 28), 'levels', levels=256, classes=10)
    """

    shape: tuple[int, ...]
    support: Support = "real"
    levels: int = 256
    classes: int = 0
    columns: tuple[Column, ...] = ()
    layout: Layout | Literal[""] = ""
    given: Mapping[str, Spec] = field(default_factory=dict)
    beside: Mapping[str, Spec] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.layout:
            object.__setattr__(self, "layout", "image" if len(self.shape) == 3 else "row")

    def __repr__(self) -> str:
        parts = [repr(self.shape), repr(self.support)]
        parts += [f"levels={self.levels}"] if self.support in ("levels", "index") else []
        parts += [f"classes={self.classes}"] if self.classes else []
        parts += [f"columns: {len(self.columns):,}"] if self.columns else []
        parts += [f"{name}: {', '.join(specs)}" for name in ("given", "beside") if (specs := getattr(self, name))]
        return f"Spec({', '.join(parts)})"

    def _repr_html_(self) -> str:  # of a table, the first columns
        columns = "".join(f"<li>{escape(c.name)}: {c.kind}</li>" for c in self.columns[:20])
        return f"<p>{escape(repr(self))}</p><ul>{columns}</ul>"

    @property
    def size(self) -> int:
        """Numbers in one example."""
        return math.prod(self.shape)

    @property
    def is_image(self) -> bool:
        """Whether examples are ``(C, H, W)``."""
        return self.layout == "image"


@dataclass(frozen=True)
class Batch:
    """Examples with their labels, masks and companions, as a loss or a capability gets them.

    Args:
        x: ``(B, *spec.shape)``, what is modelled; images in [0, 1]. None in a batch of conditions alone.
        y: ``(B,)`` class numbers, -1 where unknown; None without labels.
        mask: ``(B, *spec.shape)``, True where observed; None if nothing is missing.
        index: ``(B,)`` positions in the split, or None.
        given: companions of the examples, by name, ``(B, *spec.given[name].shape)``. A damaged, grey or small copy of
            ``x`` is ``given["damaged"]``, ``given["grey"]`` and so on.
        absent: ``(B,)`` by name, True where an example has no such companion; by default all have it.
        beside: batches of the unpaired sets, of their own lengths.

    Example:
        >>> len(Batch(torch.zeros(5, 2), given={"tag": torch.zeros(5, 3)}))
        5
    """

    x: Tensor = None  # type: ignore[assignment]  # a loss always gets it
    y: Tensor | None = None
    mask: Tensor | None = None
    index: Tensor | None = None
    given: Mapping[str, Tensor] = field(default_factory=dict)
    absent: Mapping[str, Tensor] = field(default_factory=dict)
    beside: Mapping[str, Batch] = field(default_factory=dict)

    def __len__(self) -> int:
        return next((len(t) for t in (self.x, self.y, self.index, *self.given.values()) if isinstance(t, Tensor)), 0)

    def map(self, f: Callable[[Tensor], Tensor]) -> Batch:
        """The batch with ``f`` applied to every tensor, those of unpaired sets included."""
        changes: dict[str, Any] = {k: f(t) for k, t in vars(self).items() if isinstance(t, Tensor)}
        changes |= {k: {n: f(t) for n, t in getattr(self, k).items()} for k in ("given", "absent")}
        return replace(self, **changes, beside={k: b.map(f) for k, b in self.beside.items()})


@dataclass(frozen=True)
class Latent:
    """A part of a model's code, a ``(B, D)`` tensor in which the parts are concatenated.

    Args:
        name: ``"z"``, ``"z2"``, ``"shared"``, ``"codes"``.
        shape: ``(d,)``, or ``(h, w)`` for a map.
        support: ``"real"``, ``"simplex"`` (shares of 1), ``"sphere"`` (unit vectors) or ``"index"`` (whole numbers
            below ``levels``).
        levels: number of values of an index.
    """

    name: str
    shape: tuple[int, ...]
    support: Literal["real", "simplex", "sphere", "index"] = "real"
    levels: int = 0

    @property
    def size(self) -> int:
        """Numbers in it."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Bound:
    """A lower bound on log p(x) of each example, in nats, by its parts.

    Args:
        distortions: ``(B,)`` by what is reconstructed (``"x"``, a companion, the labels): ``-E[log p]``.
        rates: ``(B,)`` by latent: its KL to the prior.
        per_dimension: ``(B, d)`` by latent, where its rate is a sum over dimensions.

    Example:
        >>> Bound({"x": torch.tensor([2.0])}, {"z": torch.tensor([0.5])}).elbo
        tensor([-2.5000])
    """

    distortions: Mapping[str, Tensor]
    rates: Mapping[str, Tensor]
    per_dimension: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def distortion(self) -> Tensor:
        """``(B,)``, the sum of the distortions."""
        return total(self.distortions)

    @property
    def rate(self) -> Tensor:
        """``(B,)``, the sum of the rates."""
        return total(self.rates)

    @property
    def elbo(self) -> Tensor:
        """``(B,)``, the evidence lower bound."""
        return -(self.distortion + self.rate)


def total(parts: Mapping[str, Tensor]) -> Tensor:
    """The sum of parts, in their order."""
    first, *rest = parts.values()
    return functools.reduce(torch.add, rest, first)


@dataclass(frozen=True)
class Clock:
    """The progress of training.

    ``step`` and ``total`` are Python numbers, for control flow. ``epoch`` and ``update`` are 0-d tensors on the model's
    device, for arithmetic in a loss: a captured graph would freeze a Python number.

    Args:
        step: updates done before this one.
        total: updates planned.
        epoch: ``step`` in epochs, fractional; infinite in the final clock.
        update: ``step`` as a tensor; infinite in the final clock.

    Example:
        >>> float((Clock.final().epoch / 10).clamp(max=1))  # a warm-up over ten epochs has ended
        1.0
    """

    step: int = 0
    total: int = 1
    epoch: Tensor = field(default_factory=lambda: torch.zeros(()))
    update: Tensor = field(default_factory=lambda: torch.zeros(()))

    @classmethod
    def final(cls, total: int = 1, device: torch.device | str = "cpu") -> Clock:
        """The clock after every schedule has ended, for objectives at their final weights."""
        end = torch.tensor(math.inf, device=device)
        return cls(total, total, end, end)


@dataclass(frozen=True)
class Terms:
    """A loss and its parts.

    Args:
        loss: ``()``, the scalar that is minimised.
        parts: per-example values ``(B,)`` by name, detached, in nats where they are likelihoods.
        scalars: other values ``()`` by name: beta, the perplexity of a codebook.
        statistics: of the examples, detached, for :attr:`Phase.follow`.
    """

    loss: Tensor
    parts: Mapping[str, Tensor]
    scalars: Mapping[str, Tensor] = field(default_factory=dict)
    statistics: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Phase:
    """A loss and the parameters that it updates.

    Args:
        name: of its logged terms.
        trains: modules and parameters that this phase updates; it changes no others.
        loss: from a batch and the clock to :class:`Terms`.
        every: run on every n-th step only.
        optim: optimiser settings of :data:`OPTIM`, such as ``{"lr": 2e-4}``, that hold unless the run sets them.
        optimizer: name of its optimiser, which phases may share; its own by default.
        scheduled: whether the loss depends on the clock; then it is also validated at the final clock.
        follow: moves buffers after an update, by the statistics of its :class:`Terms`: a batch may be computed in
            shards, by several processes, so each statistic is given as ``(S, ...)``, that of every shard.

    Raises:
        ConfigError: an unknown optimiser setting.
    """

    name: str
    trains: tuple[nn.Module | nn.Parameter, ...]
    loss: Callable[[Batch, Clock], Terms]
    every: int = 1
    optim: Mapping[str, Any] = field(default_factory=dict)
    optimizer: str = ""
    scheduled: bool = True
    follow: Callable[[Mapping[str, Tensor]], None] | None = None

    def __post_init__(self) -> None:
        check_optim(self.optim, f"The phase '{self.name}'")

    def parameters(self) -> list[nn.Parameter]:
        """The parameters that this phase updates, each once."""
        found = (t.parameters() if isinstance(t, nn.Module) else (t,) for t in self.trains)
        return list(dict.fromkeys(p for some in found for p in some))


Batches = Callable[[], Iterable[Batch]]
"""The batches of a split: every call iterates over them from the first, in order, without augmentation."""


@dataclass(frozen=True)
class Stage:
    """Phases that train together, a fit in closed form, or a fit followed by training.

    Each stage begins from the best weights of the one before, and has its own epochs, clock, optimisers, average, best
    weights and early stopping.

    Args:
        name: ``--stage.NAME.epochs`` and the like set its options.
        phases: in the order of their updates; empty if the stage is only fitted.
        fit: from the batches of training, and of validation or None, to figures; it sets tensors of the model.
        objective: name of the phase whose loss, at the final clock, chooses the best weights; None: the last are kept.
        epochs: passes over the data, unless the run sets them.
        optim: settings of :data:`OPTIM` that hold unless the run or a phase sets them.
        ema: decay of the moving average of the weights, unless the run sets it; 0 for none.
        labelled_share: least share of every batch that is examples with a known label, unless the run sets it.
        least: examples of a batch, or of a shard of it: 2 for statistics of a batch, 4 for squares of covariances.
        of_codes: whether it fits a distribution to the codes of a model that is trained: examples are neither augmented
            nor corrupted, and hyperparameters are not chosen by its objective.
    """

    name: str
    phases: tuple[Phase, ...] = ()
    fit: Callable[[Batches, Batches | None], Mapping[str, float]] | None = None
    objective: str | None = None
    epochs: int | None = None
    optim: Mapping[str, Any] = field(default_factory=dict)
    ema: float = 0.0
    labelled_share: float = 0.0
    least: int = 1
    of_codes: bool = False

    def __post_init__(self) -> None:
        check_optim(self.optim, f"The stage '{self.name}'")
        if self.objective is not None and self.objective not in [p.name for p in self.phases]:
            raise ConfigError(f"The stage '{self.name}' has no phase '{self.objective}' to choose weights by.")


OPTIM = ("lr", "betas", "weight_decay", "momentum")
"""Optimiser settings of a phase or stage."""


def check_optim(optim: Mapping[str, Any], whose: str) -> None:
    """Checks the names of optimiser settings.

    Raises:
        ConfigError: an unknown one.
    """
    for name in optim:
        if name not in OPTIM:
            raise ConfigError(f"{whose} sets '{name}' of its optimiser; the settings are {', '.join(OPTIM)}.")


class Model(nn.Module, abc.ABC):
    """A generative model: the stages of its training, samples, and the capabilities it declares.

    A capability takes a :class:`Batch`; bare examples, a tensor or array ``(B, *spec.shape)``, are converted to one,
    bytes of pictures to [0, 1]. A code is ``(B, D)``, a tensor or array, for every model; ``latents`` has its parts.

    Attributes:
        spec: the data it was built for.
        config: ``{"name": ..., "options": {...}}`` in plain values, from which it can be built again; set by
            :func:`sandglass.registry.build`.
        custom: objects of your own among its options, such as a net; set by the same.
        latents: the parts of its code, in order; empty if it has no code.
        provides: the names of :data:`CAPABILITIES` that it offers as methods.
        needs: what the data must have: ``"labels"``, ``"complete"`` (no missing values), ``"NAME:image"`` (a companion
            of that name and layout), ``"beside:NAME"`` (an unpaired set).
        modelled: those of its needs that it also models, so that they may be absent and samples do not require them.
        kind: whether its likelihood is a density, a probability or neither; None if it has none.
        earlier: of options that were added to it, what a model was that was saved without them.
        moved_options: options that have become those of a nested choice: its name, and their earlier default, which a
            choice without such an option ignores.
        evaluations: of a network for one sample; where many, measures draw fewer samples and leave codes out.
        precision: that it was trained in, ``"fp32"`` or ``"bf16"``, in which costly samples are drawn as well.
    """

    latents: tuple[Latent, ...] = ()
    provides: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    modelled: tuple[str, ...] = ()
    kind: FigureKind | None = None
    earlier: Mapping[str, Any] = MappingProxyType({})
    moved_options: Mapping[str, tuple[str, Any]] = MappingProxyType({})
    evaluations: int = 1
    precision: str = "fp32"
    spec: Spec
    config: dict[str, Any]
    custom: Mapping[str, Any] = MappingProxyType({})

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name in (_OF_EXAMPLES | _TAKES.keys()) & vars(cls).keys():
            setattr(cls, name, taking_arrays(vars(cls)[name], _TAKES.get(name, Batch)))

    def stages(self) -> Sequence[Stage]:
        """The stages of its training; by default one, of its phases, with the loss of a single phase as objective."""
        phases = tuple(self.phases())
        return (Stage("train", phases, objective=phases[0].name if len(phases) == 1 else None),)

    def phases(self) -> Sequence[Phase]:
        """The phases of its only stage, in the order of their updates."""
        raise TypeError(f"{type(self).__name__} overrides neither stages() nor phases().")

    @abc.abstractmethod
    def sample(self, n: int, given: Batch | None = None, *, noise: bool = False) -> Tensor:
        """Draws ``(n, *spec.shape)``.

        Args:
            n: number of samples.
            given: labels and companions ``(n, ...)`` of a conditional model.
            noise: whether x is drawn from p(x|z); otherwise it is the mean.
        """

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name not in CAPABILITIES:
                raise
        raise CapabilityError(f"{type(self).__name__} has no '{name}'. `sandglass models` shows which models have it.")

    @property
    def conditions(self) -> tuple[str, ...]:
        """The labels and companions that its examples and samples require: those it needs and does not model."""
        own = {"complete", *self.modelled}
        return tuple(n for need in self.needs if need not in own and (n := need.partition(":")[0]) != "beside")

    @property
    def device(self) -> torch.device:
        """The device of its parameters."""
        return next(iter(self.parameters())).device

    @property
    def dtype(self) -> torch.dtype:
        """The type of its parameters."""
        return next(iter(self.parameters())).dtype

    @property
    def code_size(self) -> int:
        """Size D of a code, 0 without latents."""
        return sum(latent.size for latent in self.latents)

    def split_code(self, code: Tensor) -> dict[str, Tensor]:
        """The parts ``(B, *shape)`` of codes ``(B, D)``, by latent."""
        parts = code.split([latent.size for latent in self.latents], 1)
        return {k.name: part.unflatten(1, k.shape) for k, part in zip(self.latents, parts, strict=True)}
