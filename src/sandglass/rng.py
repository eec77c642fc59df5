"""Keyed randomness: every draw is a function of its place in the run, so no generator state is stored.

Noise inside a step is a function of (seed, stage, step, phase, shard); the order of the data of (seed, epoch); an
example's augmentation of (seed, epoch, index). So stopping and resuming cannot change a draw.

The generators are those of the process: while one thread draws inside :func:`forked`, others wait to enter it. A shard
of a step is such a turn, and so are a validation and a metric.
"""

from __future__ import annotations

import hashlib
import math
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15, the increment of splitmix64, as a signed integer
_MIX1 = -4658895280553007687  # 0xBF58476D1CE4E5B9
_MIX2 = -7723592293110705685  # 0x94D049BB133111EB

_drawing = threading.RLock()


def _renew() -> None:
    """In a forked process: the thread that held the lock is not there."""
    global _drawing
    _drawing = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)


def key(*parts: int | str) -> int:
    """A 63-bit seed from a sequence of names and numbers.

    Example:
        >>> key(0, "noise", 3) == key(0, "noise", 3), key(0, "noise", 3) == key(0, "noise", 4)
        (True, False)
    """
    text = "\x1f".join(f"{type(p).__name__}:{p}" for p in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def generator(*parts: int | str) -> torch.Generator:
    """A CPU generator seeded by :func:`key`."""
    return torch.Generator().manual_seed(key(*parts))


def reseed(seed: int, device: torch.device) -> None:
    """Seeds the global generators of ``device``; call it inside :func:`forked`."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)


@contextmanager
def forked(device: torch.device | str = "cpu", *parts: int | str) -> Iterator[None]:
    """Restores the global generators on exit; with ``parts``, seeds them by that key on entry.

    One thread at a time: another waits until this one has left, so that its draws do not come between.

    Example:
        >>> with forked("cpu", 0, "a"):
        ...     a = torch.rand(())
        >>> with forked("cpu", 0, "a"):
        ...     print(bool(torch.rand(()) == a))
        True
    """
    device = torch.device(device)
    with _drawing:
        before = _states(device)
        try:
            if parts:
                reseed(key(*parts), device)
            yield
        finally:
            _restore(before, device)


def _states(device: torch.device) -> tuple[Tensor, ...]:
    """The states of the global generators: that of the CPU, and that of another device."""
    if device.type == "cuda":
        return torch.get_rng_state(), torch.cuda.get_rng_state(device)
    if device.type == "mps":
        return torch.get_rng_state(), torch.mps.get_rng_state()
    return (torch.get_rng_state(),)


def _restore(states: tuple[Tensor, ...], device: torch.device) -> None:
    torch.set_rng_state(states[0])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states[1], device)
    elif device.type == "mps":
        torch.mps.set_rng_state(states[1])


def permutation(n: int, *parts: int | str) -> Tensor:
    """A permutation ``(n,)`` that depends on the key alone."""
    return torch.randperm(n, generator=generator(*parts))


def uniform(index: Tensor, n: int, *parts: int | str) -> Tensor:
    """``(B, n)`` numbers in [0, 1) that depend, row by row, on the key and that row's index alone.

    A counter-based generator (splitmix64: Steele, Lea and Flood, "Fast splittable pseudorandom number generators",
    OOPSLA 2014), so that an example's draws do not depend on the rest of the batch.

    Args:
        index: ``(B,)`` integers.
        n: draws an example.
        parts: the key.

    Example:
        >>> a = uniform(torch.tensor([5, 9]), 3, 0, "flip")
        >>> b = uniform(torch.tensor([9]), 3, 0, "flip")
        >>> bool((a[1] == b[0]).all())
        True
    """
    return _shift(_words(index, n, key(*parts)), 40).to(torch.float32) * 2.0**-24


def normal(index: Tensor, n: int, *parts: int | str) -> Tensor:
    """``(B, n)`` standard normal numbers that depend, row by row, on the key and that row's index alone.

    Pairs of uniform numbers, the halves of one word each, by the formula of Box and Muller 1958, "A Note on the
    Generation of Random Normal Deviates"; with their 24 bits no number is beyond 5.8.

    Example:
        >>> a = normal(torch.tensor([5, 9]), 3, 0, "noise")
        >>> bool(torch.allclose(a[1], normal(torch.tensor([9]), 3, 0, "noise")[0]))
        True
    """
    words = _words(index, -(-n // 2), key(*parts))
    radius = _shift(words, 40).to(torch.float32).mul_(-(2.0**-24)).log1p_().mul_(-2).sqrt_()
    angle = (words & 0xFFFFFF).to(torch.float32).mul_(2.0**-24 * 2 * math.pi)
    return torch.cat([radius * angle.cos(), radius * angle.sin()], dim=1)[:, :n]


def _words(index: Tensor, n: int, seed: int) -> Tensor:
    """``(B, n)`` integers of 64 random bits."""
    counter = index.to(torch.int64)[:, None] * n + torch.arange(n, device=index.device)
    z = (counter + 1) * _GOLDEN + seed
    z = (z ^ _shift(z, 30)) * _MIX1
    z = (z ^ _shift(z, 27)) * _MIX2
    return z ^ _shift(z, 31)


def _shift(z: Tensor, bits: int) -> Tensor:
    """A logical right shift of a signed integer."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)
