"""How few examples a model can be trained on at once: more than one where there are statistics of the batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from sandglass.core import Stage
from sandglass.data.loading import steps_in_epoch
from sandglass.errors import ConfigError


def modules(stages: Sequence[Stage]) -> list[nn.Module]:
    """All modules that some stages train, which are in train mode then."""
    trained = (part for stage in stages for phase in stage.phases for part in phase.trains)
    return [m for part in trained if isinstance(part, nn.Module) for m in part.modules()]


def fewest(stage: Stage, batch_size: int | None, accumulate: int) -> int:
    """The fewest examples of a batch, or of a shard of it, that a stage is trained on.

    It is at least the stage's own :attr:`~sandglass.core.Stage.least`, and two with batch normalisation, which has no
    statistics of a single example; where every shard has only one, it is left to the layers, which can do with one
    picture as long as their maps have several pixels.

    Example:
        >>> from sandglass.core import Phase, Terms
        >>> layer = nn.BatchNorm1d(3)
        >>> stage = Stage("train", (Phase("loss", (layer,), lambda batch, clock: Terms(batch.x.sum(), {})),))
        >>> fewest(stage, 8, 4), fewest(stage, 8, 8)
        (2, 1)
    """
    shard = 2 if batch_size is None else batch_size // accumulate
    normalised = shard > 1 and any(isinstance(m, _BatchNorm) for m in modules([stage]))
    return max(stage.least, 2 if normalised else 1)


def updates_per_epoch(stage: Stage, batch_size: int, accumulate: int, examples: int) -> int:
    """The updates of an epoch of a stage; a last batch that would be too small belongs to the one before it.

    Example:
        >>> from sandglass.core import Phase, Terms
        >>> def stage(layer):
        ...     return Stage("train", (Phase("loss", (layer,), lambda batch, clock: Terms(batch.x.sum(), {})),))
        >>> [updates_per_epoch(stage(layer), 8, 1, 17) for layer in (nn.Linear(3, 3), nn.BatchNorm1d(3))]
        [3, 2]
    """
    return steps_in_epoch(examples, batch_size, fewest(stage, batch_size, accumulate))


def check_batches(stage: Stage, batch_size: int, accumulate: int, examples: int) -> None:
    """Refuses shards that are too small for the objective, or of one example for layers that certainly need two.

    Raises:
        ConfigError: they would be.
    """
    shard, need = batch_size // accumulate, f"needs {stage.least} examples"
    if stage.phases and examples < stage.least:
        raise ConfigError(
            f"The objective of this model has statistics of a batch and {need} to train on; there "
            f"{'is' if examples == 1 else 'are'} {examples}."
        )
    if stage.phases and shard < stage.least:
        raise ConfigError(
            f"The objective of this model has statistics of a batch and {need} in each batch, or in each shard of it; "
            f"with batch_size {batch_size} and accumulate {accumulate} there {'is' if shard == 1 else 'are'} {shard}. "
            "Raise --batch-size or lower --accumulate."
        )
    if not any(isinstance(m, nn.BatchNorm1d) for m in modules([stage])):
        return
    if examples < 2:
        raise ConfigError("The batch normalisation of this model needs two examples to train on; there is one.")
    if shard < 2:
        raise _too_few(f"with batch_size {batch_size} and accumulate {accumulate} there is one")


@contextmanager
def normalised() -> Iterator[None]:
    """A clear error where a normalisation finds no statistics in a single example.

    Raises:
        ConfigError: it does.
    """
    try:
        yield
    except ValueError as error:
        if "Expected more than 1 value per channel" not in str(error):
            raise
        raise _too_few("there is one") from error


def _too_few(found: str) -> ConfigError:
    return ConfigError(
        f"The batch normalisation of this model needs two examples in each batch, or in each shard of it; {found}. "
        "Raise --batch-size, lower --accumulate, or choose another normalisation."
    )
