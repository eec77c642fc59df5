"""Random splits of the training examples: disjoint, seeded, stratified, and with duplicates kept together."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sandglass.data.rows import Rows, digests
from sandglass.rng import permutation


def carve(
    n: int,
    fractions: dict[str, float],
    seed: int,
    y: Tensor | None = None,
    groups: Tensor | None = None,
    stream: Sequence[str] = (),
) -> dict[str, Tensor]:
    """Splits ``n`` examples into ``train`` and the named parts.

    Args:
        n: number of examples.
        fractions: the fraction of ``n`` for each part, 0 to 1.
        seed: seed of the shuffle.
        y: ``(n,)`` class indices for stratification.
        groups: ``(n,)`` group numbers; a group stays together, and is stratified by the class of one of its members. A
            part for which every group is too large gets the smallest, if another is left for training.
        stream: random stream of the shuffle, in addition to the seed.

    Returns:
        The indices of each part in ascending order; every index from 0 to n - 1 is in exactly one part.

    Example:
        >>> {k: len(v) for k, v in carve(100, {"validation": 0.1, "test": 0.2}, seed=0).items()}
        {'validation': 10, 'test': 20, 'train': 70}
    """
    order = permutation(n, seed, "split", *stream)
    strata = torch.zeros(n, dtype=torch.int64) if y is None else y
    groups = torch.arange(n) if groups is None else groups
    members: dict[int, list[int]] = {}
    for i, g in zip(order.tolist(), groups[order].tolist(), strict=True):
        members.setdefault(g, []).append(i)
    queues: dict[int, list[list[int]]] = {}
    for group in members.values():
        queues.setdefault(int(strata[group[0]]), []).append(group)
    parts: dict[str, list[int]] = {}
    sizes = {s: sum(map(len, queue)) for s, queue in queues.items()}
    for part, fraction in fractions.items():
        parts[part] = []
        left = {s: sum(map(len, queue)) for s, queue in queues.items()}
        total = max(0, min(_count(n, fraction), sum(left.values()) - 1))  # at least one is left for training
        for stratum, quota in _quotas(sizes, total, left).items():
            parts[part] += _draw(queues[stratum], quota)
    _at_least_one(queues, [parts[part] for part, fraction in fractions.items() if _count(n, fraction)])
    parts["train"] = [i for queue in queues.values() for group in queue for i in group]
    return {part: torch.tensor(sorted(index), dtype=torch.int64) for part, index in parts.items()}


def duplicates(*xs: Tensor | Rows) -> list[Tensor]:
    """Group numbers ``(N,)`` for each tensor ``(N, ...)``, equal for identical examples.

    Example:
        >>> duplicates(torch.tensor([[1, 2], [3, 4], [1, 2]]), torch.tensor([[3, 4]]))
        [tensor([0, 1, 0]), tensor([1])]
    """
    seen: dict[bytes, int] = {}
    found = []
    for x in xs:
        found.append(torch.tensor([seen.setdefault(key, len(seen)) for key in digests(x)], dtype=torch.int64))
    return found


def _count(n: int, fraction: float) -> int:
    """The number of examples for a fraction: at least one if there are three, and never all."""
    if fraction == 0 or n < 3:
        return 0
    return max(1, min(round(n * fraction), n - 1))


def _quotas(sizes: dict[int, int], total: int, left: dict[int, int]) -> dict[int, int]:
    """Distributes ``total`` in proportion to ``sizes`` by largest remainders, limited by the examples left."""
    n = sum(sizes.values())
    exact = {s: total * size / n for s, size in sizes.items()}
    quotas = {s: min(int(e), left[s]) for s, e in exact.items()}
    by_remainder = sorted(sizes, key=lambda s: (quotas[s] - exact[s], s))
    short = total - sum(quotas.values())
    while short > 0:
        for s in by_remainder:
            if short > 0 and quotas[s] < left[s]:
                quotas[s] += 1
                short -= 1
    return quotas


def _at_least_one(queues: dict[int, list[list[int]]], parts: list[list[int]]) -> None:
    """Gives an empty part the smallest group, unless that is the last one."""
    for part in parts:
        left = [(len(group), stratum, i) for stratum, queue in queues.items() for i, group in enumerate(queue)]
        if not part and len(left) > 1:
            _, stratum, i = min(left)
            part += queues[stratum].pop(i)


def _draw(queue: list[list[int]], quota: int) -> list[int]:
    """Takes the groups that fit into the quota, in order; the others stay in the queue."""
    taken: list[int] = []
    left: list[list[int]] = []
    for group in queue:
        if len(taken) + len(group) <= quota:
            taken += group
        else:
            left.append(group)
    queue[:] = left
    return taken
