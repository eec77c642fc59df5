"""The vocabulary that every room speaks: what data looks like, what a model is trained by, and what it can do.

A model is mathematics. It is built from a :class:`Spec` alone and says how it is trained as a list of :class:`Stage`
objects, each of :class:`Phase` objects that turn a :class:`Batch` and the :class:`Clock` into :class:`Terms`. Nothing
here knows a file, a loop or a metric.
"""

from __future__ import annotations

import abc
import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from sandglass.errors import CapabilityError, ConfigError

Support = Literal["real", "unit", "binary", "levels", "index"]
Layout = Literal["row", "image", "sequence"]
FigureKind = Literal["density", "mass", "cross-entropy"]
ColumnKind = Literal["numeric", "positive", "count", "categorical", "ordinal", "date", "sequence"]

CAPABILITIES = (
    "encode",
    "decode",
    "reconstruct",
    "posterior",
    "prior",
    "interpolate",
    "bound",
    "log_prob",
    "score",
    "classify",
    "embed",
    "complete",
    "translate",
)
"""What a model may offer beyond :meth:`Model.sample`; each is a method of that name."""

_OF_EXAMPLES = {"encode", "reconstruct", "posterior", "bound", "log_prob", "score", "classify", "complete", "translate"}


@dataclass(frozen=True)
class Column:
    """One column of a table, or one group of columns that a category was spread over.

    Args:
        name: the header.
        kind: ``"numeric"``, ``"positive"`` (its logarithm), ``"count"``, ``"categorical"`` (one-hot), ``"ordinal"`` (a
            rank), ``"date"`` or ``"sequence"``.
        width: how many numbers of the encoded row it fills.
        categories: the values of a categorical or ordinal column, in the order of its code.
        mean: of a number, logarithm, count, rank or date, what was subtracted first; 0 for categories.
        scale: what it was divided by next; 1 for categories.
    """

    name: str
    kind: ColumnKind = "numeric"
    width: int = 1
    categories: tuple[str, ...] = ()
    mean: float = 0.0
    scale: float = 1.0

    @property
    def real(self) -> bool:
        """Whether it holds any real numbers."""
        return self.kind in ("numeric", "date", "sequence")

    @property
    def discrete(self) -> bool:
        """Whether it holds one of finitely or countably many values."""
        return self.kind in ("count", "categorical", "ordinal")


@dataclass(frozen=True)
class Spec:
    """The shape and nature of one example; all that a model is told about the data.

    Args:
        shape: ``(C, H, W)`` for images, ``(D,)`` for rows.
        support: ``"real"`` (any number), ``"unit"`` (in [0, 1]), ``"binary"`` (0 or 1), ``"levels"`` (``levels``
            equally spaced values in [0, 1], to be modelled as such) or ``"index"`` (whole numbers below ``levels``).
        levels: how many values a unit, level-valued or index element can take (256 for bytes).
        classes: number of classes, 0 without labels.
        columns: names and kinds for a table.
        layout: ``"image"``, ``"row"`` or ``"sequence"``; by the shape when not given.
        given: what comes with each example, by name: another picture, a vector, another modality.
        beside: another set with examples of its own number, by name: the other domain, unlabelled pictures.

    Example:
        >>> Spec((1, 28, 28), "unit").size, Spec((1, 28, 28), "unit").layout
        (784, 'image')
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
    """Examples, and all that is known of them, as they reach a loss or a capability.

    Args:
        x: ``(B, *spec.shape)``, what is modelled; images in [0, 1]. None where only what comes with it is known.
        y: ``(B,)`` class numbers, -1 where unknown; None without labels.
        mask: ``(B, *spec.shape)``, True where observed; None when everything is.
        index: ``(B,)`` positions in the split, or None.
        given: what comes with each example, by name, ``(B, *spec.given[name].shape)``. A damaged, grey or small copy of
            ``x`` is ``given["damaged"]``, ``given["grey"]`` and so on.
        absent: ``(B,)`` by name, True where an example lacks that companion; none is lacking when not there.
        beside: batches of other sets, of their own lengths.

    Example:
        >>> len(Batch(torch.zeros(5, 2), given={"tag": torch.zeros(5, 3)}))
        5
    """

    x: Tensor = None  # type: ignore[assignment]  # of all batches that a loss sees it is there
    y: Tensor | None = None
    mask: Tensor | None = None
    index: Tensor | None = None
    given: Mapping[str, Tensor] = field(default_factory=dict)
    absent: Mapping[str, Tensor] = field(default_factory=dict)
    beside: Mapping[str, Batch] = field(default_factory=dict)

    def __len__(self) -> int:
        return next((len(t) for t in (self.x, self.y, self.index, *self.given.values()) if isinstance(t, Tensor)), 0)

    def map(self, f: Callable[[Tensor], Tensor]) -> Batch:
        """The batch with ``f`` applied to every tensor in it, and to those of the sets beside it."""
        changes: dict[str, Any] = {k: f(t) for k, t in vars(self).items() if isinstance(t, Tensor)}
        changes |= {k: {n: f(t) for n, t in getattr(self, k).items()} for k in ("given", "absent")}
        return replace(self, **changes, beside={k: b.map(f) for k, b in self.beside.items()})


@dataclass(frozen=True)
class Latent:
    """A part of a model's code; the parts stand one after the other in one ``(B, D)`` tensor.

    Args:
        name: of the part: ``"z"``, ``"z2"``, ``"shared"``, ``"codes"``.
        shape: ``(d,)``, or ``(h, w)`` for a map.
        support: ``"real"``, ``"simplex"``, ``"sphere"`` or ``"index"`` (whole numbers below ``levels``).
        levels: how many values an index can take.
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
    """A bound on log p(x) of each example, in nats, as what it consists of.

    Args:
        distortions: ``(B,)`` by modality, mask or label: ``-E[log p]`` of it.
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
        """``(B,)``, all of them together."""
        return total(self.distortions)

    @property
    def rate(self) -> Tensor:
        """``(B,)``, all of them together."""
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
    """Where training stands.

    ``step`` and ``total`` are Python numbers, for deciding what runs. ``epoch`` is a 0-d tensor on the model's device,
    for arithmetic inside a loss: a captured graph would freeze a Python number.

    Args:
        step: updates done before this one.
        total: updates planned.
        epoch: ``step`` in epochs, fractional; infinite at the end of time.

    Example:
        >>> float((Clock.final().epoch / 10).clamp(max=1))  # a warm-up over ten epochs has ended
        1.0
    """

    step: int = 0
    total: int = 1
    epoch: Tensor = field(default_factory=lambda: torch.zeros(()))

    @classmethod
    def final(cls, total: int = 1, device: torch.device | str = "cpu") -> Clock:
        """The clock after every schedule has ended, for objectives at their final weights."""
        return cls(total, total, torch.tensor(math.inf, device=device))


@dataclass(frozen=True)
class Terms:
    """What a phase minimises, and what it consists of.

    Args:
        loss: ``()``, the scalar that is differentiated.
        parts: named per-example parts ``(B,)``, detached, in nats where they are likelihoods.
        scalars: named ``()`` values that belong to no example: beta, the perplexity of a codebook.
    """

    loss: Tensor
    parts: Mapping[str, Tensor]
    scalars: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Phase:
    """One player's turn in a step.

    Args:
        name: names the logged terms.
        trains: modules and parameters that this phase moves; no others move.
        loss: from a batch and the clock to :class:`Terms`.
        every: run on every n-th step only.
        optim: this phase's optimiser settings where the run leaves them open, of :data:`OPTIM`
            (``{"lr": 2e-4, "betas": (0.5, 0.999)}``).
        optimizer: name of its optimiser, which phases may share; its own when not given.
        scheduled: whether the loss depends on the clock; then it is also validated at the final one.

    Raises:
        ConfigError: a setting that no optimiser has.
    """

    name: str
    trains: tuple[nn.Module | nn.Parameter, ...]
    loss: Callable[[Batch, Clock], Terms]
    every: int = 1
    optim: Mapping[str, Any] = field(default_factory=dict)
    optimizer: str = ""
    scheduled: bool = True

    def __post_init__(self) -> None:
        check_optim(self.optim, f"The phase '{self.name}'")

    def parameters(self) -> list[nn.Parameter]:
        """The parameters this phase moves, each once."""
        found = (t.parameters() if isinstance(t, nn.Module) else (t,) for t in self.trains)
        return list(dict.fromkeys(p for some in found for p in some))


Batches = Callable[[], Iterable[Batch]]
"""A split as often as one asks: every call begins again with its first batch, in order and without changes."""


@dataclass(frozen=True)
class Stage:
    """Phases that train together, or a fit in closed form, or first the one and then the other.

    Stages follow each other, each from the best weights of the one before; each has epochs, a clock, optimisers,
    averages, best weights and early stopping of its own.

    Args:
        name: ``--stage.NAME.epochs`` and the like set its options.
        phases: in the order of their turns; none where it is only fitted.
        fit: from the training batches, and those of validation or None, to figures; it changes the model's tensors.
        objective: name of the phase whose loss at its final weights chooses the best weights; None when no loss can
            (a GAN's): then the last weights are kept.
        epochs: passes over the data where the run leaves them open.
        optim: settings where neither the run nor a phase has them, of :data:`OPTIM`.
    """

    name: str
    phases: tuple[Phase, ...] = ()
    fit: Callable[[Batches, Batches | None], Mapping[str, float]] | None = None
    objective: str | None = None
    epochs: int | None = None
    optim: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_optim(self.optim, f"The stage '{self.name}'")
        if self.objective is not None and self.objective not in [p.name for p in self.phases]:
            raise ConfigError(f"The stage '{self.name}' has no phase '{self.objective}' to choose weights by.")


OPTIM = ("lr", "betas", "weight_decay", "momentum")
"""What a phase or stage may set of its optimiser."""


def check_optim(optim: Mapping[str, Any], whose: str) -> None:
    """Refuses a setting that no optimiser has.

    Raises:
        ConfigError: there is one.
    """
    for name in optim:
        if name not in OPTIM:
            raise ConfigError(f"{whose} sets '{name}' of its optimiser, which has: {', '.join(OPTIM)}.")


class Model(nn.Module, abc.ABC):
    """A generative model: stages to train it by, samples to draw from it, and the capabilities it declares.

    A capability takes a :class:`Batch`, all that is known of the examples; a bare tensor or array of a person's becomes
    one on the way. A code is one ``(B, D)`` tensor, whatever the model; ``latents`` says how it divides.

    Attributes:
        spec: the data it was built for.
        config: ``{"name": ..., "options": {...}}`` in plain values, enough to build it again; set by
            :func:`sandglass.registry.build`.
        latents: the parts of its code, in order; empty where it has none.
        provides: the names out of :data:`CAPABILITIES` that it offers as methods.
        needs: what it asks of the data: ``"labels"``, ``"complete"`` (nothing missing), ``"NAME:image"`` (a companion
            of that name and layout), ``"beside:NAME"`` (a set beside).
        modelled: those of its needs that it models too, so that examples may lack them and samples are drawn with or
            without them.
        kind: what the figures of its likelihood are of, None where it has none.
    """

    latents: tuple[Latent, ...] = ()
    provides: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    modelled: tuple[str, ...] = ()
    kind: FigureKind | None = None
    spec: Spec
    config: dict[str, Any]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name in _OF_EXAMPLES & vars(cls).keys():
            setattr(cls, name, _taking_arrays(vars(cls)[name]))

    def stages(self) -> Sequence[Stage]:
        """How it is trained; one stage of its phases, judged by the loss if there is but one, when not overridden."""
        phases = tuple(self.phases())
        return (Stage("train", phases, objective=phases[0].name if len(phases) == 1 else None),)

    def phases(self) -> Sequence[Phase]:
        """The players of its only stage, in the order of their turns."""
        raise TypeError(f"{type(self).__name__} overrides neither stages() nor phases().")

    @abc.abstractmethod
    def sample(self, n: int, given: Batch | None = None, *, noise: bool = False) -> Tensor:
        """Draws ``(n, *spec.shape)``; with ``noise`` a draw of x, else the mean given the latent.

        Args:
            n: how many.
            given: labels and companions ``(n, ...)`` of a conditional model.
            noise: whether x itself is drawn.
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
        """What its examples and draws must come with: the labels and companions it needs and does not model itself."""
        own = {"complete", *self.modelled}
        return tuple(n for need in self.needs if need not in own and (n := need.partition(":")[0]) != "beside")

    @property
    def device(self) -> torch.device:
        """Where its parameters live."""
        return next(iter(self.parameters())).device

    @property
    def dtype(self) -> torch.dtype:
        """What its parameters are in."""
        return next(iter(self.parameters())).dtype

    @property
    def code_size(self) -> int:
        """Numbers in a code, 0 without latents."""
        return sum(latent.size for latent in self.latents)

    def split_code(self, code: Tensor) -> dict[str, Tensor]:
        """``(B, D)`` codes as ``(B, *shape)`` parts by latent."""
        parts = code.split([latent.size for latent in self.latents], 1)
        return {k.name: part.unflatten(1, k.shape) for k, part in zip(self.latents, parts, strict=True)}


def _taking_arrays(capability: Callable[..., Any]) -> Callable[..., Any]:
    """A capability that also takes bare tensors and arrays of examples."""

    @functools.wraps(capability)
    def call(self: Model, batch: Any, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(batch, Batch):
            batch = Batch(torch.as_tensor(batch, dtype=self.dtype, device=self.device))
        return capability(self, batch, *args, **kwargs)

    return call
