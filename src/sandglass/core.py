"""The vocabulary that every room speaks: what data looks like, what a model owes, and what goes wrong by name.

A model is mathematics. It is built from a :class:`Spec` alone and says what is to be minimised as a list of
:class:`Phase` objects; each phase turns a :class:`Batch` and the :class:`Clock` into :class:`Terms`. Nothing here knows
a file, a device, a loop or a metric.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol, get_args, overload, runtime_checkable

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from sandglass.errors import CapabilityError

Support = Literal["real", "unit", "binary", "levels"]
FigureKind = Literal["density", "mass", "cross-entropy"]
ColumnKind = Literal["numeric", "positive", "count", "categorical", "ordinal", "date", "sequence"]

CAPABILITIES = ("encode", "decode", "reconstruct", "posterior", "prior", "interpolate", "log_prob", "bound_parts")
"""What a model may offer beyond :meth:`Model.sample`; each is a method of that name."""


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

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Column:
        """From plain values; a mean and a scale were not always written.

        Raises:
            ValueError, KeyError, TypeError: values that no column has.
        """
        mean, scale = float(values.get("mean", 0.0)), float(values.get("scale", 1.0))
        if values["kind"] not in get_args(ColumnKind) or not (math.isfinite(mean) and 0 < scale < math.inf):
            raise ValueError(f"a column of kind {values['kind']!r}, mean {mean}, scale {scale}")
        return cls(values["name"], values["kind"], int(values["width"]), tuple(values["categories"]), mean, scale)


@dataclass(frozen=True)
class Spec:
    """The shape and nature of one example; all that a model is told about the data.

    Args:
        shape: ``(C, H, W)`` for images, ``(D,)`` for rows.
        support: ``"real"`` (any number), ``"unit"`` (in [0, 1]), ``"binary"`` (0 or 1) or ``"levels"`` (``levels``
            equally spaced values in [0, 1], to be modelled as such).
        levels: how many values a unit or level-valued element can take in the source (256 for bytes).
        classes: number of classes, 0 without labels.
        columns: names and kinds for a table.

    Example:
        >>> Spec((1, 28, 28), "unit").size
        784
    """

    shape: tuple[int, ...]
    support: Support = "real"
    levels: int = 256
    classes: int = 0
    columns: tuple[Column, ...] = ()

    @property
    def size(self) -> int:
        """Numbers in one example."""
        return math.prod(self.shape)

    @property
    def is_image(self) -> bool:
        """Whether examples are ``(C, H, W)``."""
        return len(self.shape) == 3

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON and YAML."""
        columns = [vars(c) | {"categories": list(c.categories)} for c in self.columns]
        return vars(self) | {"shape": list(self.shape), "columns": columns}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Spec:
        """The inverse of :meth:`to_dict`.

        Raises:
            ValueError, KeyError, TypeError: values that no data has.
        """
        if values["support"] not in get_args(Support) or int(values["levels"]) < 2 or int(values["classes"]) < 0:
            raise ValueError(f"support {values['support']!r}, levels {values['levels']}, classes {values['classes']}")
        if not values["shape"] or min(int(n) for n in values["shape"]) < 1:
            raise ValueError(f"shape {values['shape']}")
        columns = tuple(map(Column.from_dict, values.get("columns", ())))
        return cls(
            tuple(int(n) for n in values["shape"]),
            values["support"],
            int(values["levels"]),
            int(values["classes"]),
            columns,
        )


@dataclass(frozen=True)
class Batch:
    """Examples as they reach a loss.

    Args:
        x: ``(B, *spec.shape)``, floats; images in [0, 1].
        y: ``(B,)`` class numbers, or None.
        mask: ``(B, *spec.shape)``, True where observed, or None when everything is.
        index: ``(B,)`` positions in the split, or None.
        target: ``(B, *spec.shape)`` what a reconstruction is compared with where ``x`` was damaged on purpose, or None
            when it is ``x`` itself.
    """

    x: Tensor
    y: Tensor | None = None
    mask: Tensor | None = None
    index: Tensor | None = None
    target: Tensor | None = None

    @property
    def clean(self) -> Tensor:
        """``target`` where there is one, ``x`` otherwise."""
        return self.x if self.target is None else self.target

    def __len__(self) -> int:
        return len(self.x)

    def map(self, f: Callable[[Tensor], Tensor]) -> Batch:
        """The batch with ``f`` applied to every tensor in it."""
        parts = (None if t is None else f(t) for t in (self.x, self.y, self.mask, self.index, self.target))
        return Batch(*parts)  # type: ignore[arg-type]


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
    """

    loss: Tensor
    parts: Mapping[str, Tensor]


@dataclass(frozen=True)
class Phase:
    """One player's turn in a step.

    Args:
        name: names the optimiser and the logged terms.
        trains: modules whose parameters this phase moves; no others move.
        loss: from a batch and the clock to :class:`Terms`.
        every: run on every n-th step only.
        active: run only while this holds of the clock.
        optim: this phase's optimiser settings where the run leaves them open (``{"lr": 2e-4, "betas": (0.5, 0.999)}``).
        scheduled: whether the loss depends on the clock; then it is also validated at the final one.
    """

    name: str
    trains: tuple[nn.Module, ...]
    loss: Callable[[Batch, Clock], Terms]
    every: int = 1
    active: Callable[[Clock], bool] | None = None
    optim: Mapping[str, Any] = field(default_factory=dict)
    scheduled: bool = True

    def due(self, clock: Clock) -> bool:
        """Whether this phase runs at this step."""
        return clock.step % self.every == 0 and (self.active is None or self.active(clock))

    def parameters(self) -> list[nn.Parameter]:
        """The parameters this phase moves, each once."""
        return list(dict.fromkeys(p for module in self.trains for p in module.parameters()))


@runtime_checkable
class Net(Protocol):
    """A family of networks in both directions, for any example shape."""

    def encoder(self, shape: tuple[int, ...], out: int) -> nn.Module:
        """A module ``(B, *shape) -> (B, out)``."""
        ...

    def decoder(self, dim: int, shape: tuple[int, ...]) -> nn.Module:
        """A module ``(B, dim) -> (B, *shape)``; the channels of ``shape`` are what the likelihood asks for."""
        ...


class Conditional(nn.Module, abc.ABC):
    """A distribution that may depend on something: ``q(z|x)``, ``p(x|z)`` and ``p(z)`` are one type."""

    @abc.abstractmethod
    def forward(self, c: Tensor | None = None) -> Distribution:
        """The distribution given ``c``."""


class Likelihood(nn.Module, abc.ABC):
    """How a network's output becomes a distribution over ``x``; made from a :class:`Spec`."""

    @staticmethod
    def natural(spec: Spec) -> bool:
        """Whether this is what ``"auto"`` stands for with such data."""
        return False

    @staticmethod
    def kind(spec: Spec) -> FigureKind:
        """What its figure is of: a ``"density"``, a probability (``"mass"``), or neither (``"cross-entropy"``)."""
        return "density"

    @abc.abstractmethod
    def channels(self, spec: Spec) -> int:
        """Channels (or columns, for a row) that the decoder must put out for this data."""

    @abc.abstractmethod
    def forward(self, h: Tensor) -> Distribution:
        """``(B, channels, ...)`` to a distribution over ``(B, *spec.shape)``, the event being the whole example."""


class Schedule(abc.ABC):
    """A factor that follows time: a pure function of it, so a run that goes on meets the values it would have met.

    Attributes:
        final: the factor at the end of time; None where it never comes to rest, which suits a learning rate alone.
    """

    final: float | None = None

    @overload
    def __call__(self, t: Tensor) -> Tensor: ...
    @overload
    def __call__(self, t: float) -> float: ...
    def __call__(self, t: Tensor | float) -> Tensor | float:
        """The factor after ``t`` epochs: a 0-d tensor for such a tensor, a number (by float64) for a number."""
        return self.at(t) if isinstance(t, Tensor) else float(self.at(torch.tensor(t, dtype=torch.float64)))

    @abc.abstractmethod
    def at(self, t: Tensor) -> Tensor:
        """The factor after ``t`` epochs, element by element, of the type and device of ``t``; ``final`` at infinity."""


class Model(nn.Module, abc.ABC):
    """A generative model: phases to train it by, samples to draw from it, and the capabilities it declares.

    Attributes:
        spec: the data it was built for.
        config: ``{"name": ..., "options": {...}}`` in plain values, enough to build it again; set by
            :func:`sandglass.registry.build`.
        objective: name of the phase whose loss, at its final weights, chooses the best weights, ``None`` when no
            loss can (a GAN's): then the last weights are kept.
        provides: the names out of :data:`CAPABILITIES` that it offers as methods.
        denoises: whether its loss reads ``Batch.x`` and compares with ``Batch.clean``; it can then be trained on
            damaged inputs.
        masks: whether its losses, ``bound_parts`` and ``log_prob`` take a mask and count observed entries alone.
    """

    objective: ClassVar[str | None] = None
    provides: ClassVar[tuple[str, ...]] = ()
    denoises: ClassVar[bool] = False
    masks: ClassVar[bool] = False
    spec: Spec
    config: dict[str, Any]

    @abc.abstractmethod
    def phases(self) -> Sequence[Phase]:
        """The players, in the order of their turns."""

    @abc.abstractmethod
    def sample(self, n: int, y: Tensor | None = None, *, noise: bool = False) -> Tensor:
        """Draws ``(n, *spec.shape)``; with ``noise`` a draw of x, else the mean given the latent."""

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name not in CAPABILITIES:
                raise
        raise CapabilityError(f"{type(self).__name__} has no '{name}'. `sandglass models` shows which models have it.")

    @property
    def device(self) -> torch.device:
        """Where its parameters live."""
        return next(iter(self.parameters())).device


def capabilities(model: Model | type[Model]) -> tuple[str, ...]:
    """The capabilities a model, or a class of them, declares."""
    return tuple(c for c in CAPABILITIES if c in model.provides)


@dataclass(frozen=True)
class Result:
    """One measured figure.

    Args:
        name: what was measured.
        value: the figure.
        stderr: its standard error, or None where it has none.
        n: examples it is over.
        unit: ``"nats"``, ``"bits/dim"``, ``"1"``, ...
        note: what a reader must know to use it.
        each: ``(n,)`` what it is the mean of, None where it is no mean; two models measured on the same examples are
            compared by the difference of these.

    Example:
        >>> Result("elbo", -102.5, 0.4, 10000, "nats").to_dict()["unit"]
        'nats'
    """

    name: str
    value: float
    stderr: float | None
    n: int
    unit: str
    note: str = ""
    each: Tensor | None = field(default=None, repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Plain values; a non-finite figure becomes None, for JSON has no NaN."""
        value, stderr = (v if v is not None and math.isfinite(v) else None for v in (self.value, self.stderr))
        note = {"note": self.note} if self.note else {}
        return {"value": value, "stderr": stderr, "n": self.n, "unit": self.unit} | note


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, or right, with a run, in plain words.

    Args:
        name: the illness.
        level: ``"info"``, ``"warning"`` or ``"problem"``.
        message: what was seen, with figures.
        advice: what to do about it.
    """

    name: str
    level: Literal["info", "warning", "problem"]
    message: str
    advice: str = ""
