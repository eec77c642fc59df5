"""The stage in which a sampler is fitted to the codes of a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.distributions import Distribution

from sandglass.core import Batch, Batches, Clock, Phase, Stage, Terms
from sandglass.samplers.sampler import STAGE, Sampler, TrainedSampler, codes_of

_EMA = 0.999


def sampling(sampler: Sampler | None, code: Callable[[Batch], Distribution | Tensor]) -> tuple[Stage, ...]:
    """The stage in which a sampler is fitted, and trained if it is one that is; none without a sampler.

    Args:
        sampler: the module of the model.
        code: q(z|x) or the codes of a batch.
    """
    if sampler is None:
        return ()

    def fit(train: Batches, validation: Batches | None) -> Mapping[str, float]:
        with torch.no_grad():
            return sampler.fit(codes_of(code(batch) for batch in train()))

    def loss(batch: Batch, clock: Clock) -> Terms:
        assert isinstance(sampler, TrainedSampler)
        with torch.no_grad():
            q = code(batch)
            z = q if isinstance(q, Tensor) else q.sample()
        each = sampler.loss(z)
        return Terms(each.mean(), {"codes": each.detach()})

    if not isinstance(sampler, TrainedSampler):
        return (Stage(STAGE, fit=fit, of_codes=True),)
    phase = Phase(STAGE, (sampler,), loss, scheduled=False)
    return (Stage(STAGE, (phase,), fit, STAGE, ema=_EMA, of_codes=True),)
