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

    def one(example: dict[str, Tensor]) -> Tensor:
        return model.log_prob(Batch(**{name: part[None] for name, part in example.items()}), draws)[0]  # type: ignore[arg-type]

    def reseed() -> None:
        rng.reseed(rng.key(seed, "score"), model.device)

    def bound(batch: Batch) -> Tensor:
        parts = {name: part for name in ("x", "y", "mask") if (part := getattr(batch, name)) is not None}
        with rng.forked(model.device):
            try:
                reseed()
                with warnings.catch_warnings():
                    warnings.filterwarnings("ignore", "There is a performance drop")  # the result is the same
                    return torch.func.vmap(one, randomness="same")(parts)
            except RuntimeError:  # operations that vmap does not support; a loop gives the same result
                found = []
                for place in range(len(batch)):
                    reseed()
                    found.append(one({name: part[place] for name, part in parts.items()}))
                return torch.stack(found)

    return bound
