"""Random splits of the training examples: disjoint, seeded, stratified, and with duplicates kept together."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sandglass.data.rows import Rows, digests
from sandglass.errors import ConfigError
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


@dataclass(frozen=True)
class Fold:
    """One of the parts of a cross-validation, which is held out for validation; the others are trained on.

    Args:
        number: from 1 to ``of``.
        of: number of parts.
    """

    number: int
    of: int

    @classmethod
    def read(cls, text: Any) -> Fold:
        """Reads ``"2/5"``.

        Raises:
            ConfigError: it is not of that form.

        Example:
            >>> Fold.read("2/5")
            Fold(number=2, of=5)
        """
        match = re.fullmatch(r"\s*(\d{1,9})\s*/\s*(\d{1,9})\s*", text) if isinstance(text, str) else None
        if match is None or not 1 <= int(match[1]) <= int(match[2]) or int(match[2]) < 2:
            raise ConfigError(f"fold must be a part of two or more, such as 2/5 for the second of five, not {text!r}.")
        return cls(int(match[1]), int(match[2]))

    def carve(
        self,
        n: int,
        test: float,
        seed: int,
        y: Tensor | None = None,
        groups: Tensor | None = None,
        stream: Sequence[str] = (),
    ) -> dict[str, Tensor]:
        """Splits ``n`` examples into ``train``, ``validation``, which is this fold, and ``test``.

        The test examples are the same for every fold, and each other example is in the validation split of one fold.

        Args:
            n: number of examples.
            test: fraction held out for testing.
            seed: as for :func:`carve`.
            y: likewise.
            groups: likewise.
            stream: likewise.

        Raises:
            ConfigError: there are more folds than examples.

        Example:
            >>> folds = [Fold(k, 3).carve(20, 0.1, seed=0) for k in (1, 2, 3)]
            >>> [len(f["validation"]) for f in folds], sorted(torch.cat([f["validation"] for f in folds]).tolist()) == (
            ...     sorted(set(range(20)) - set(folds[0]["test"].tolist())))
            ([6, 6, 6], True)
        """
        parts = carve(n, {"test": test}, seed, y, groups, stream)
        rest = parts["train"]
        left = {"y": None if y is None else y[rest], "groups": None if groups is None else groups[rest]}
        if self.of > len(rest):
            raise ConfigError(f"fold={self.number}/{self.of} needs at least {self.of} examples; there are {len(rest)}.")
        held = None
        for number in range(1, self.of):  # a part of what is left each time, so that all are of nearly equal size
            cut = carve(len(rest), {"fold": 1 / (self.of - number + 1)}, seed, left["y"], left["groups"], stream)
            if number == self.number:
                held = rest[cut["fold"]]
                break
            rest = rest[cut["train"]]
            left = {k: None if v is None else v[cut["train"]] for k, v in left.items()}
        held = rest if held is None else held
        train = parts["train"][~torch.isin(parts["train"], held)]
        return {"validation": held, "test": parts["test"], "train": train}


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
