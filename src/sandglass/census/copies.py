"""Pictures that are there more than once: the same pixels, or nearly the same.

Exact copies share a digest. Near copies are found by their grey squares of 16x16, standardised, so that brightness and
contrast do not count: two pictures are near copies where these correlate above a bar. All pairs are compared, not a
sample of them: the squares are sorted along the direction in which they differ most, and since a short distance is
short in every direction, each needs to be held only against those close to it in that order.

Mirrored, turned and cropped copies are not found.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

BARS = (0.985, 0.99, 0.9945)
"""Correlations above which two pictures are near copies. Photographs of different things stay far below the first;
digits and icons come close to each other by chance, so where many pairs lie just below a bar the next one is used."""

LARGEST = 200_000
"""Near copies are looked for among so many pictures at most: the time grows with the square of their number."""

_STEP = 0.005
_MANY = 500_000
_BLOCK = 1024
_CONTRAST = 4.0
_COLOUR = 16.0

Vector = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Near:
    """Near copies.

    Args:
        pairs: ``(P, 2)`` positions, the first smaller.
        similarity: ``(P,)`` their correlations, falling.
        bar: what they lie above.
        whole: whether every pair was looked at and kept.
    """

    pairs: npt.NDArray[np.int64]
    similarity: Vector
    bar: float
    whole: bool = True


def exact_groups(digests: Sequence[bytes]) -> list[list[int]]:
    """Positions that share a digest, where two or more do, in the order of their first.

    Example:
        >>> exact_groups([b"a", b"b", b"a", b"c", b"b"])
        [[0, 2], [1, 4]]
    """
    where: dict[bytes, list[int]] = {}
    for i, digest in enumerate(digests):
        where.setdefault(digest, []).append(i)
    return [group for group in where.values() if len(group) > 1]


def near_pairs(grey: npt.NDArray[np.uint8], colour: Vector) -> Near:
    """Pairs of pictures that are nearly the same.

    Args:
        grey: ``(N, SIDE * SIDE)``, pictures that differ; exact copies are better left out.
        colour: ``(N, 3)`` mean red, green and blue, 0 to 255: pictures of different colours are no copies.

    Example:
        >>> ramp = np.arange(256, dtype=np.uint8)
        >>> brighter = (ramp // 2 + 90).astype(np.uint8)
        >>> near_pairs(np.stack([ramp, ramp[::-1], brighter]), np.zeros((3, 3), np.float32)).pairs.tolist()
        [[0, 2]]
    """
    whole = len(grey) <= LARGEST
    grey, colour = grey[:LARGEST], colour[:LARGEST]
    some, x = _standard(grey)
    pairs, similarity, kept = _above(x, BARS[0] - _STEP)
    pairs = some[pairs]
    tint = colour[:, [0, 2]] - colour[:, [1]]
    alike = (np.abs(tint[pairs[:, 0]] - tint[pairs[:, 1]]) <= _COLOUR).all(1)
    pairs, similarity = np.sort(pairs[alike], axis=1), similarity[alike]
    bar = BARS[-1]
    for candidate in BARS[:-1]:
        below = ((similarity >= candidate - _STEP) & (similarity < candidate)).sum()
        if kept and below <= len(grey) / 100:
            bar = candidate
            break
    above = np.flatnonzero(similarity >= bar)
    order = above[np.lexsort((pairs[above, 1], pairs[above, 0], -similarity[above]))]
    return Near(pairs[order], similarity[order], bar, whole and kept)


def _standard(grey: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.int64], Vector]:
    """Positions of the pictures with any contrast, and their squares with mean 0 and length 1."""
    x = grey.astype(np.float32)
    x -= x.mean(1, keepdims=True)
    length = np.linalg.norm(x, axis=1)
    some = np.flatnonzero(length > _CONTRAST * np.sqrt(x.shape[1]))
    return some, x[some] / length[some, None]


def _above(x: Vector, bar: float) -> tuple[npt.NDArray[np.int64], Vector, bool]:
    """All pairs of unit vectors ``(N, D)`` with a product of at least ``bar``, those products, and whether all fit."""
    empty = np.zeros((0, 2), np.int64), np.zeros(0, np.float32), True
    if len(x) < 2:
        return empty
    _, axes = np.linalg.eigh(np.cov(x.T))
    place = x @ axes[:, -1].astype(np.float32)
    order = np.argsort(place, kind="stable")
    x, place = x[order], place[order]
    reach = float(np.sqrt(2 * (1 - bar))) + 1e-4  # the distance between unit vectors that have that product
    pairs, products, found = [], [], 0
    for start in range(0, len(x), _BLOCK):
        stop = min(start + _BLOCK, len(x))
        end = int(np.searchsorted(place, place[stop - 1] + reach, "right"))
        for left in range(start, end, 16 * _BLOCK):  # in pieces, so that memory stays bounded
            right = min(left + 16 * _BLOCK, end)
            product = x[start:stop] @ x[left:right].T
            a, b = np.nonzero(product >= bar)
            later = b + left > a + start
            a, b = a[later], b[later]
            pairs.append(np.stack([order[a + start], order[b + left]], 1))
            products.append(product[a, b])
            found += len(a)
        if found > _MANY:  # thousands of pictures that are all alike: more of them tell nothing new
            return np.concatenate(pairs), np.concatenate(products), False
    return np.concatenate(pairs), np.concatenate(products), True
