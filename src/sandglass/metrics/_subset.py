"""Random subsets of the examples for slow metrics."""

from __future__ import annotations

import dataclasses

import numpy as np

from sandglass import rng
from sandglass.core import Model
from sandglass.data.dataset import Split
from sandglass.metrics.evaluation import Evaluation
from sandglass.metrics.latent import points_of

MOST = 10_000
"""Maximum number of examples to fit or test a classifier on, or to cluster."""

_FEW = 20  # the note warns about classes with fewer examples


def subset(split: Split, *key: int | str) -> Split:
    """The split, or 10,000 random examples of a larger one."""
    if len(split) <= MOST:
        return split
    return split.take(rng.permutation(len(split), *key)[:MOST].to(split.x.device))


def marked(split: Split) -> Split:
    """The examples with a label; the split itself where all have one.

    Example:
        >>> import torch
        >>> marked(Split(torch.arange(3.0)[:, None], torch.tensor([1, -1, 0]))).x.flatten()
        tensor([0., 2.])
    """
    if split.y is None or bool((split.y >= 0).all()):
        return split
    return split.take((split.y >= 0).nonzero()[:, 0].to(split.x.device))


def points_and_inputs(model: Model, evaluation: Evaluation, split: Split) -> tuple[np.ndarray, np.ndarray]:
    """``(N, E)`` codes of a split as points in float64, and ``(N, spec.size)`` flattened model inputs."""
    same = split is evaluation.split
    codes = points_of(model, evaluation if same else dataclasses.replace(evaluation, split=split, memo={}))
    return codes.numpy(), split.batch(slice(0, len(split))).x.flatten(1).cpu().numpy()


def scarce(y: np.ndarray) -> str:
    """A warning to append to a note where a class has few examples, else an empty string.

    Example:
        >>> scarce(np.array([0] * 30 + [1] * 3)), scarce(np.array([0] * 30))
        ('; few examples: a class has 3', '')
    """
    fewest = int(np.unique(y, return_counts=True)[1].min())
    return f"; few examples: a class has {fewest}" if fewest < _FEW else ""
