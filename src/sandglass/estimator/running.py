"""Running a model over examples so that what comes out for one does not depend on the others."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sandglass import rng
from sandglass.core import Model

ROWS = 256
"""Examples at once, at most."""

_ELEMENTS = 2**22  # numbers of model output held at once


@torch.no_grad()
def over(model: Model, f: Callable[..., Tensor], x: Tensor, mask: Tensor | None = None, *, draws: int = 1) -> Tensor:
    """``f`` of all examples, on the CPU.

    Every call is over the same number of examples, the last filled up with copies of its first: matrix products of
    another size may round in another way, and an example's figures are not to depend on what else was asked.

    Args:
        model: to run.
        f: from ``(B, ...)`` (and a mask of that shape) to ``(B, ...)``.
        x: ``(n, ...)``.
        mask: of that shape, or None.
        draws: how many outputs ``f`` makes of an example on its way.
    """
    rows = max(1, min(ROWS, _ELEMENTS // (draws * model.spec.size)))
    dtype = next(model.parameters()).dtype
    found = []
    for start in range(0, len(x), rows):
        n = min(rows, len(x) - start)
        piece = [p[start : start + rows] for p in (x, mask) if p is not None]
        piece = [torch.cat([p, p[:1].expand(rows - n, *p.shape[1:])]) for p in piece]
        piece = [p.to(model.device, dtype if p.is_floating_point() else p.dtype) for p in piece]
        found.append(f(*piece)[:n].cpu())
    return torch.cat(found)


def alone(model: Model, draws: int, seed: int) -> Callable[..., Tensor]:
    """The bound on log p(x) of ``(B, *shape)``, and a mask, as ``(B,)``: each example by itself, under the same noise.

    Args:
        model: with ``log_prob``.
        draws: of the latent an example.
        seed: of the noise.
    """

    def one(*example: Tensor) -> Tensor:
        return model.log_prob(example[0][None], draws, *(m[None] for m in example[1:]))[0]

    def reseed() -> None:
        rng.reseed(rng.key(seed, "score"), model.device)

    def bound(*parts: Tensor) -> Tensor:
        with rng.forked(model.device):
            try:
                reseed()
                return torch.func.vmap(one, randomness="same")(*parts)
            except RuntimeError:  # a model may do what cannot be vectorised; one after the other is the same
                found = []
                for example in zip(*parts, strict=True):
                    reseed()
                    found.append(one(*example))
                return torch.stack(found)

    return bound
