"""Duplicate pictures, exact and near.

Exact duplicates share a digest. Near duplicates are found by their grey 16x16 thumbnails, standardised so that
brightness and contrast do not matter: two pictures are near duplicates if the correlation exceeds a threshold. All
pairs are covered: thumbnails are sorted along their first principal component, and because a small distance is small in
every direction, each is compared only with those close to it in that order.

Mirrored, rotated and cropped copies are not found.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

BARS = (0.985, 0.99, 0.9945)
"""Correlation thresholds for near duplicates. Photographs of different things stay far below the first; digits and
icons can be similar by chance, so if many pairs lie just below a threshold, the next one is used."""

LARGEST = 200_000
"""Largest number of pictures to search for near duplicates; the time grows with its square."""

_STEP = 0.005
_MANY = 500_000
_BLOCK = 1024
_CONTRAST = 4.0
_COLOUR = 16.0

Vector = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Near:
    """Near duplicates.

    Args:
        pairs: ``(P, 2)`` positions, the smaller first.
        similarity: ``(P,)`` correlations in descending order.
        bar: the threshold.
        whole: whether all pairs were compared and kept.
    """

    pairs: npt.NDArray[np.int64]
    similarity: Vector
    bar: float
    whole: bool = True


def exact_groups(digests: Sequence[bytes]) -> list[list[int]]:
    """Groups of two or more positions with the same digest, ordered by their first position.

    Example:
        >>> exact_groups([b"a", b"b", b"a", b"c", b"b"])
        [[0, 2], [1, 4]]
    """
    where: dict[bytes, list[int]] = {}
    for i, digest in enumerate(digests):
        where.setdefault(digest, []).append(i)
    return [group for group in where.values() if len(group) > 1]


def near_pairs(grey: npt.NDArray[np.uint8], colour: Vector) -> Near:
    """Pairs of near duplicates.

    Args:
        grey: ``(N, SIDE * SIDE)`` grey thumbnails, preferably without exact duplicates.
        colour: ``(N, 3)`` mean red, green and blue, 0 to 255; pictures of different tints are not duplicates.

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
    """Positions of the thumbnails with sufficient contrast, and these with mean 0 and norm 1."""
    x = grey.astype(np.float32)
    x -= x.mean(1, keepdims=True)
    length = np.linalg.norm(x, axis=1)
    some = np.flatnonzero(length > _CONTRAST * np.sqrt(x.shape[1]))
    return some, x[some] / length[some, None]


def _above(x: Vector, bar: float) -> tuple[npt.NDArray[np.int64], Vector, bool]:
    """Pairs of unit vectors ``(N, D)`` with inner products of at least ``bar``, the products, and if these are all."""
    empty = np.zeros((0, 2), np.int64), np.zeros(0, np.float32), True
    if len(x) < 2:
        return empty
    _, axes = np.linalg.eigh(np.cov(x.T))
    place = x @ axes[:, -1].astype(np.float32)
    order = np.argsort(place, kind="stable")
    x, place = x[order], place[order]
    reach = float(np.sqrt(2 * (1 - bar))) + 1e-4  # the distance between unit vectors with that inner product
    pairs, products, found = [], [], 0
    for start in range(0, len(x), _BLOCK):
        stop = min(start + _BLOCK, len(x))
        end = int(np.searchsorted(place, place[stop - 1] + reach, "right"))
        for left in range(start, end, 16 * _BLOCK):  # in blocks, to bound memory
            right = min(left + 16 * _BLOCK, end)
            product = x[start:stop] @ x[left:right].T
            a, b = np.nonzero(product >= bar)
            later = b + left > a + start
            a, b = a[later], b[later]
            pairs.append(np.stack([order[a + start], order[b + left]], 1))
            products.append(product[a, b])
            found += len(a)
        if found > _MANY:  # thousands of pictures are similar to each other; more pairs add no information
            return np.concatenate(pairs), np.concatenate(products), False
    return np.concatenate(pairs), np.concatenate(products), True
