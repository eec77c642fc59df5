"""Per-example bounds that do not depend on the rest of the batch."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from sandglass import rng
from sandglass.core import Batch, Model


def alone(model: Model, draws: int, seed: int) -> Callable[[Batch], Tensor]:
    """The bound on log p(x) of a batch in nats, ``(B,)``: each example separately, with the same noise.

    Args:
        model: a model with ``log_prob``.
        draws: latent draws per example.
        seed: of the noise.
    """

    def one(x: Tensor, *mask: Tensor) -> Tensor:
        return model.log_prob(Batch(x[None], mask=mask[0][None] if mask else None), draws)[0]

    def reseed() -> None:
        rng.reseed(rng.key(seed, "score"), model.device)

    def bound(batch: Batch) -> Tensor:
        parts = (batch.x,) if batch.mask is None else (batch.x, batch.mask)
        with rng.forked(model.device):
            try:
                reseed()
                with warnings.catch_warnings():
                    warnings.filterwarnings("ignore", "There is a performance drop")  # the result is the same
                    return torch.func.vmap(one, randomness="same")(*parts)
            except RuntimeError:  # operations that vmap does not support; a loop gives the same result
                found = []
                for example in zip(*parts, strict=True):
                    reseed()
                    found.append(one(*example))
                return torch.stack(found)

    return bound
