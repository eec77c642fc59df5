"""The likelihood of tables with columns of several kinds."""

from __future__ import annotations

import abc
import math
from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, NegativeBinomial, Normal, constraints
from torch.types import _size

from sandglass.core import Column, FigureKind, Spec
from sandglass.distributions.categorical import Choice
from sandglass.distributions.levels import OnLevels
from sandglass.distributions.likelihood import Likelihood
from sandglass.distributions.location_scale import scale_from
from sandglass.errors import ConfigError
from sandglass.registry import register

_NORMAL = ("numeric", "positive", "date", "sequence")


class OneHot(Distribution):
    """A categorical distribution over one-hot vectors, with an elementwise ``log_prob``.

    ``log_prob`` returns K values, the log-probability at the index of the category and 0 elsewhere: they sum to the
    log-probability of the category, and masking all K removes it.

    Args:
        logits: ``(..., K)``.

    Example:
        >>> p = OneHot(torch.zeros(4))
        >>> p.log_prob(torch.tensor([0.0, 0.0, 1.0, 0.0])).exp()
        tensor([1.0000, 1.0000, 0.2500, 1.0000])
    """

    arg_constraints: ClassVar = {}
    support = constraints.one_hot

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits.log_softmax(-1)
        super().__init__(logits.shape, validate_args=False)

    @property
    def mean(self) -> Tensor:
        """The probabilities."""
        return self.logits.exp()

    def log_prob(self, value: Tensor) -> Tensor:
        """``(..., K)`` in nats."""
        return value * self.logits

    def sample(self, sample_shape: _size = ()) -> Tensor:
        """One-hot codes ``(*sample_shape, ..., K)``."""
        with torch.no_grad():
            drawn = torch.distributions.Categorical(logits=self.logits, validate_args=False).sample(sample_shape)
            return F.one_hot(drawn, self.logits.shape[-1]).to(self.logits.dtype)


def cumulative_logits(location: Tensor, cuts: Tensor) -> Tensor:
    """Log-probabilities of ordered values ``0 .. K - 1`` where ``P(value <= k) = sigmoid(threshold[k] - location)``.

    The proportional-odds model of McCullagh 1980, "Regression Models for Ordinal Data" (Journal of the Royal
    Statistical Society B 42). With ``a < b`` the edges of a value, ``log(sigmoid(b) - sigmoid(a))`` is computed as
    ``log sigmoid(b) + log sigmoid(-a) + log(1 - exp(a - b))``, which avoids cancellation.

    Args:
        location: ``(...)``.
        cuts: ``(..., K - 1)``, the first threshold and the positive differences between consecutive thresholds.

    Returns:
        ``(..., K)`` normalised log-probabilities in nats.

    Example:
        >>> cumulative_logits(torch.zeros(()), torch.tensor([-1.0, 2.0])).exp()
        tensor([0.2689, 0.4621, 0.2689])
    """
    edges = cuts.cumsum(-1) - location[..., None]
    below, above = F.pad(F.logsigmoid(edges), (0, 1)), F.pad(F.logsigmoid(-edges), (1, 0))
    inner = F.pad(torch.log(-torch.expm1(-cuts[..., 1:])), (1, 1))  # the first and last value have only one edge
    return below + above + inner[..., : below.shape[-1]]


class Row(Distribution):
    """A row made of independent parts.

    Args:
        parts: for each part the indices ``(n,)`` in the row that it fills, and a distribution over ``(..., n)`` whose
            elementwise log-probabilities sum to the log-probability of each column.
        order: ``(D,)`` for each value of the row, its index in the concatenated parts.
        dtype: of the row.
    """

    arg_constraints: ClassVar = {}
    support = constraints.real

    def __init__(self, parts: Sequence[tuple[Tensor, Distribution]], order: Tensor, dtype: torch.dtype) -> None:
        self.parts, self.order, self.dtype = parts, order, dtype
        super().__init__(torch.Size((*parts[0][1].batch_shape[:-1], len(order))), validate_args=False)

    def _joined(self, pieces: Iterable[Tensor]) -> Tensor:
        return torch.cat([piece.to(self.dtype) for piece in pieces], -1)[..., self.order]

    @property
    def mean(self) -> Tensor:
        """``(..., D)``: the mean of numeric, count and ordinal columns, the probabilities of categorical ones."""
        return self._joined(p.mean for _, p in self.parts)

    def log_prob(self, value: Tensor) -> Tensor:
        """``(..., D)`` in nats; the values of a one-hot code sum to the log-probability of its category."""
        return self._joined(p.log_prob(value[..., place]) for place, p in self.parts)

    def sample(self, sample_shape: _size = ()) -> Tensor:
        """Rows ``(*sample_shape, ..., D)``, encoded like the rows of a transformed table."""
        with torch.no_grad():
            return self._joined(p.sample(torch.Size(sample_shape)) for _, p in self.parts)


class _Part(nn.Module, abc.ABC):
    """Columns of a row that are modelled together.

    Args:
        place: indices in the row that they fill.
        columns: number of columns with a learned spread.
        learn: see :class:`Mixed`.
    """

    place: Tensor
    spreads = True
    """Whether the decoder may output a spread for every value."""

    def __init__(self, place: Sequence[int], columns: int, learn: str) -> None:
        super().__init__()
        self.places = tuple(place)
        self.register_buffer("place", torch.tensor(self.places), persistent=False)
        self.spread = nn.Parameter(torch.zeros(columns)) if columns and learn == "column" else None

    @abc.abstractmethod
    def forward(self, h: Tensor, spread: Tensor | None) -> Distribution:
        """Decoder outputs ``(..., n)``, and spreads of that shape or None, to a distribution over that shape."""


class _Numbers(_Part):
    """Normals around the decoder's output: numeric, log-transformed, date and sequence columns."""

    which: Tensor

    def __init__(self, place: Sequence[int], columns: Sequence[Column], learn: str) -> None:
        super().__init__(place, len(columns), learn)
        which = [i for i, column in enumerate(columns) for _ in range(column.width)]
        self.register_buffer("which", torch.tensor(which), persistent=False)

    def forward(self, h: Tensor, spread: Tensor | None) -> Distribution:
        """The spread is the logarithm of the standard deviation."""
        if self.spread is not None:
            spread = self.spread[self.which].expand_as(h)
        assert spread is not None
        return Normal(h, scale_from(spread), validate_args=False)


class _Counts(_Part):
    """Negative binomials whose mean is the exponential of the decoder's output, in units of a typical count."""

    shift: Tensor
    scale: Tensor
    usual: Tensor

    def __init__(self, place: Sequence[int], columns: Sequence[Column], learn: str) -> None:
        super().__init__(place, len(columns), learn)
        self.register_buffer("shift", torch.tensor([c.mean for c in columns]), persistent=False)
        self.register_buffer("scale", torch.tensor([c.scale for c in columns]), persistent=False)
        usual = [max(c.mean, c.scale / 2) for c in columns]  # the mean, except for counts that are mostly 0
        self.register_buffer("usual", torch.tensor(usual), persistent=False)

    def forward(self, h: Tensor, spread: Tensor | None) -> Distribution:
        """The spread is the logarithm of ``1 / r``: the variance is ``mean + mean^2 exp(spread)``."""
        if self.spread is not None:
            spread = self.spread.expand_as(h)
        assert spread is not None
        # In float32 the log factorial of a million is wrong by a nat; only mps has no float64.
        wide = torch.float32 if h.device.type == "mps" else torch.float64
        mean, r = scale_from(h.to(wide)) * self.usual, scale_from(-spread.to(wide))
        base = NegativeBinomial(r, logits=(mean / r).log(), validate_args=False)
        return OnLevels(base, self.scale.to(wide), self.shift.to(wide))


class _Ranks(_Part):
    """One ordinal column: thresholds shared by all rows, and a location from the decoder."""

    def __init__(self, place: Sequence[int], column: Column, learn: str) -> None:
        super().__init__(place, 0, learn)
        self.shift, self.scale, k = column.mean, column.scale, len(column.categories)
        even = [math.log(i / (k - i)) for i in range(1, k)]  # makes all values equally probable at location 0
        start = [*even[:1], *(math.log(b - a) for a, b in pairwise(even))]
        self.cuts = nn.Parameter(torch.tensor(start)) if start else None

    def forward(self, h: Tensor, spread: Tensor | None) -> Distribution:
        """The spread is the logarithm of the logistic scale."""
        cuts = h.new_zeros(0) if self.cuts is None else torch.cat([self.cuts[:1], scale_from(self.cuts[1:])])
        if spread is not None:
            scale = scale_from(spread)
            h, cuts = h / scale, cuts / scale[..., None]
        return OnLevels(Choice(logits=cumulative_logits(h, cuts), validate_args=False), self.scale, self.shift)


class _Category(_Part):
    """One categorical column, one-hot encoded."""

    spreads = False

    def forward(self, h: Tensor, spread: Tensor | None) -> Distribution:
        """The decoder's outputs are logits."""
        return OneHot(h)


@register("mixed", kind="likelihood")
class Mixed(Likelihood):
    """A distribution per table column, by its kind: normal, log-normal, negative binomial, categorical or ordinal.

    Columns are independent given the latent, so the log-probability of a row is the sum over its columns, without
    missing ones. Nazabal, Olmos, Ghahramani and Valera 2020, "Handling incomplete heterogeneous data using VAEs"
    (arXiv 1807.03653), with a negative binomial instead of the Poisson, and ordinal thresholds that do not depend on
    the latent. With any real-valued column the figure is a density with respect to the product of Lebesgue and counting
    measures, otherwise a probability mass.

    Args:
        spec: specification of the table.
        learn: ``column`` learns one spread per column, ``cell`` has the decoder output one for every cell, as in the
            paper. The spread is the standard deviation of numeric, date and log-transformed columns, ``1 / r`` of
            counts with variance ``mean + mean^2 / r``, and the logistic scale of ordinal columns (``cell`` only).

    Raises:
        ConfigError: the data is not a table.

    Example:
        >>> columns = (Column("income", "positive"), Column("town", "categorical", 3, ("Bern", "Graz", "Ulm")))
        >>> p = Mixed(Spec((4,), columns=columns))(torch.zeros(1, 4))
        >>> round(p.log_prob(torch.tensor([[0.0, 0, 0, 1]])).item(), 4)  # -ln(2 pi) / 2 - ln 3
        -2.0176
        >>> p.mean
        tensor([[0.0000, 0.3333, 0.3333, 0.3333]])
    """

    order: Tensor

    def __init__(self, spec: Spec, *, learn: Literal["column", "cell"] = "column") -> None:
        super().__init__()
        if learn not in ("column", "cell"):
            raise ConfigError(f"The option learn of mixed must be column or cell, not '{learn}'.")
        _check(spec)
        self.width, self.learn = spec.shape[0], learn
        starts = [0, *accumulate(c.width for c in spec.columns)]
        placed = [(list(range(*ends)), column) for ends, column in zip(pairwise(starts), spec.columns, strict=True)]
        parts: dict[str, _Part] = {}
        for name, make, kinds in (("numbers", _Numbers, _NORMAL), ("counts", _Counts, ("count",))):
            if own := [(place, column) for place, column in placed if column.kind in kinds]:
                parts[name] = make([k for place, _ in own for k in place], [column for _, column in own], learn)
        for place, column in placed:
            if column.kind == "categorical":
                parts[f"category-{place[0]}"] = _Category(place, 0, learn)
            elif column.kind == "ordinal":
                parts[f"ranks-{place[0]}"] = _Ranks(place, column, learn)
        self.parts = nn.ModuleDict(parts)
        places = [k for part in parts.values() for k in part.places]
        order = torch.tensor(sorted(range(len(places)), key=places.__getitem__))
        self.register_buffer("order", order, persistent=False)

    @staticmethod
    def natural(spec: Spec) -> bool:
        """Whether ``"auto"`` selects this: for a table with columns that are not real-valued."""
        return spec.support == "real" and not all(c.real for c in spec.columns)

    @staticmethod
    def kind(spec: Spec) -> FigureKind:
        """A probability mass where every column is discrete, else a density."""
        return "mass" if spec.columns and all(c.discrete for c in spec.columns) else "density"

    def channels(self, spec: Spec) -> int:
        """One per value of a row, and with ``learn="cell"`` another for each that has a spread."""
        return self.width + sum(self._spreads())

    def _spreads(self) -> list[int]:
        return [len(part.place) if part.spreads and self.learn == "cell" else 0 for part in self._each()]

    def _each(self) -> list[_Part]:
        return list(self.parts.values())  # type: ignore[arg-type]

    def forward(self, h: Tensor) -> Distribution:
        """``(B, channels)`` to the distribution over rows ``(B, D)``."""
        each, spreads = self._each(), h[..., self.width :].split(self._spreads(), -1)
        parts = [
            (part.place, part(h[..., part.place], spread if spread.shape[-1] else None))
            for part, spread in zip(each, spreads, strict=True)
        ]
        return Independent(Row(parts, self.order, h.dtype), 1, validate_args=False)


def _check(spec: Spec) -> None:
    """Checks that the columns are known and fill the rows as the transform of a table does."""
    if not spec.columns or len(spec.shape) != 1 or spec.support != "real":
        raise ConfigError("mixed is for tables with several kinds of columns; use gaussian, or bernoulli in [0, 1].")
    scalar = [c for c in spec.columns if c.kind not in ("categorical", "sequence")]
    valid = all(c.width == 1 for c in scalar) and all(c.width > 0 for c in spec.columns)
    valid &= all(c.categories for c in scalar if c.kind == "ordinal")
    if not valid or sum(c.width for c in spec.columns) != spec.shape[0]:
        raise ConfigError(f"The columns of this table do not match its rows of {spec.shape[0]} values.")
