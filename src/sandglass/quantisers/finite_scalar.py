"""Every dimension of a vector rounded to one of a few levels."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from sandglass.distributions.conditional import at_least_single
from sandglass.errors import ConfigError
from sandglass.quantisers.quantiser import Quantised, Quantiser, straight_through
from sandglass.registry import register

_DIMS, _LEAST = 3, 4  # dimensions where each can have so many levels
_MOST = 2**24  # codes
_NEARLY = 0.75  # of the codes asked for must be there before fewer levels a dimension are tried


@register("fsq", kind="quantiser")
class FiniteScalar(Quantiser):
    """Every dimension of a vector rounded to one of a few levels; the code numbers their combinations.

    Mentzer, Minnen, Agustsson and Tschannen 2023, "Finite Scalar Quantization: VQ-VAE Made Simple" (arXiv 2309.15505):
    a dimension with L levels is bounded by ``floor(L / 2) tanh`` (shifted by half a level where L is even), rounded
    with a straight-through gradient, and divided by ``floor(L / 2)``. It has no weights and needs no further term.

    Args:
        size: how many codes there are to be, at most, where no levels are given.
        dim: it has one dimension for each of its levels, whatever this is.
        levels: of each dimension, 2 or more; found from the codebook_size when none are given.

    Raises:
        ConfigError: a value that makes no sense.

    Example:
        >>> fsq = FiniteScalar(levels=(3, 2))
        >>> fsq.size, fsq.dim, fsq.lookup(torch.tensor([0, 1, 5])).tolist()
        (6, 2, [[-1.0, -1.0], [0.0, -1.0], [1.0, 0.0]])
    """

    levels: Tensor
    places: Tensor
    one: Tensor  # of the type of the model, in which the vectors are

    def __init__(self, size: int = 64, dim: int = 0, *, levels: Sequence[int] = ()) -> None:
        super().__init__()
        levels = list(levels) or levels_for(size)
        if any(not isinstance(n, int) or n < 2 for n in levels):
            raise ConfigError(f"The levels are whole numbers from 2 on, one a dimension, not {list(levels)}.")
        if math.prod(levels) > _MOST:
            raise ConfigError(f"The levels {list(levels)} make {math.prod(levels):,} codes; at most 2^24 can be.")
        self.size, self.dim = math.prod(levels), len(levels)
        places = list(itertools.accumulate(levels[:-1], int.__mul__, initial=1))
        self.register_buffer("levels", torch.tensor(levels), persistent=False)
        self.register_buffer("places", torch.tensor(places), persistent=False)
        self.register_buffer("one", torch.ones(()), persistent=False)

    @property
    def middle(self) -> Tensor:
        """``(D,)`` the level that stands for 0."""
        return self.levels // 2

    def bound(self, h: Tensor) -> Tensor:
        """``(..., D)`` real numbers that round to a level of each dimension, 0 being in the middle."""
        reach = (self.levels - 1) * (1 - 1e-3) / 2
        offset = 0.5 * (self.levels % 2 == 0)
        shift = torch.atanh(offset / reach * (self.levels > 2)).to(h.dtype)  # two levels have no middle one
        return torch.tanh(h + shift) * reach.to(h.dtype) - offset.to(h.dtype)

    def forward(self, h: Tensor) -> Quantised:
        """As of every quantiser; the gradient is that of the bounded numbers before they are rounded."""
        bounded = self.bound(at_least_single(h))
        rounded = bounded.round()
        return Quantised(straight_through(rounded, bounded) / self.middle.to(bounded.dtype), self._number(rounded))

    def encode(self, h: Tensor) -> Tensor:
        """``(B, n)`` codes of the encoder's vectors ``(B, n, D)``."""
        return self._number(self.bound(at_least_single(h)).round())

    def nearest(self, points: Tensor) -> Tensor:
        """``(...)`` the codes nearest to points ``(..., D)`` in [-1, 1]."""
        levels = (points * self.middle).round() + self.middle
        return self._number(torch.minimum(levels.clamp(min=0), self.levels - 1) - self.middle)

    def lookup(self, codes: Tensor) -> Tensor:
        """``(..., D)`` the vectors of codes ``(...)``, in [-1, 1]."""
        level = codes[..., None] // self.places % self.levels
        return (level - self.middle) * self.one / self.middle

    def _number(self, rounded: Tensor) -> Tensor:
        """``(...)`` codes of ``(..., D)`` whole numbers around 0."""
        return ((rounded.detach().long() + self.middle) * self.places).sum(-1)


def levels_for(size: int) -> tuple[int, ...]:
    """Levels whose product is nearly ``size`` and no more: 5 to 8 of each dimension where that can be, else fewer.

    There are three dimensions or more from 64 codes on, as in Mentzer et al. 2023 (arXiv 2309.15505, table 1): two
    dimensions of 8 levels leave more combinations unused than three of 4.

    Raises:
        ConfigError: fewer than 2 codes, or more than 2^24.

    Example:
        >>> levels_for(64), levels_for(1024), levels_for(6)
        ((4, 4, 4), (8, 5, 5, 5), (6,))
    """
    if not 2 <= size <= _MOST:
        raise ConfigError(f"A quantiser needs codebook_size >= 2, and at most 2^24, not {size}.")
    found: tuple[int, ...] = ()
    least = _DIMS if size >= _LEAST**_DIMS else 1
    for fewest in (5, 4, 3, 2):
        for dims in range(least, 1 + int(math.log(size, fewest) + 1e-9)):
            choices = itertools.combinations_with_replacement(range(8, fewest - 1, -1), dims)
            fit = [levels for levels in choices if math.prod(levels) <= size]
            found = max([found, *fit], key=lambda levels: (math.prod(levels), -max(levels, default=0)))
        if math.prod(found) >= _NEARLY * size:
            break
    return found
