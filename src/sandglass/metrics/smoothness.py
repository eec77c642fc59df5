"""Length and energy of a model's interpolation paths."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from sandglass import rng
from sandglass.core import Model
from sandglass.errors import ConfigError
from sandglass.metrics._bootstrap import bootstrap
from sandglass.metrics.evaluation import Evaluation, UnsuitableError
from sandglass.registry import register
from sandglass.running import placed
from sandglass.runs.result import Result

_FRAMES = 2**22  # values of decoder output in memory at once
_FEW = 100  # with fewer examples, pairs share examples and their standard error is too small


@register("smoothness", kind="metric")
class Smoothness:
    """Length and energy of decoded interpolations between two examples, relative to the straight line.

    The length is that of Chen et al. 2018, "Metrics for Deep Generative Models" (arXiv 1711.01204), discretised; the
    energy is the path length of Karras, Laine and Aila 2019, "A Style-Based Generator Architecture for Generative
    Adversarial Networks" (arXiv 1812.04948), on raw values instead of network features.

    Args:
        pairs: number of pairs of examples.
        steps: number of steps per path.

    Raises:
        ConfigError: fewer than 2 pairs or 2 steps.
    """

    needs = ("interpolate", "codes")
    figures = ("path_length", "path_energy")

    def __init__(self, *, pairs: int = 500, steps: int = 16) -> None:
        if pairs < 2 or steps < 2:
            raise ConfigError(f"smoothness needs pairs >= 2 and steps >= 2, not {pairs} and {steps}.")
        self.pairs, self.steps = pairs, steps

    def __call__(self, model: Model, evaluation: Evaluation) -> Sequence[Result]:
        """Both ratios over all pairs, between reconstructions of the two examples; errors bootstrap the pairs.

        Raises:
            DataError: there is only one example.
        """
        paths = self.paths(model, evaluation)

        def ratios(weights: np.ndarray) -> np.ndarray:
            length, energy, chord, chord_squared = weights @ paths
            return np.array([length / chord, energy / chord_squared]) if chord else np.ones(2)

        values, errors = bootstrap(ratios, len(paths), evaluation.seed, "smoothness")
        note = f"pairs of examples, {self.steps} steps each; 1 is straight"
        if len(evaluation.split) < _FEW:
            note += f"; few examples: pairs drawn from {len(evaluation.split)}"
        if not paths[:, 2].any():
            note = f"undefined: all reconstructions are identical; {note}"
        pairs = zip(self.figures, values, errors, strict=True)
        return [Result(name, float(value), float(error), len(paths), "1", note) for name, value, error in pairs]

    def paths(self, model: Model, evaluation: Evaluation) -> np.ndarray:
        """``(pairs, 4)`` length, energy, chord and squared chord of each path."""
        n = len(evaluation.split)
        if n < 2:
            raise UnsuitableError("The metric 'smoothness' needs at least 2 examples.")
        generator = rng.generator(evaluation.seed, "smoothness", "pairs")
        first = torch.randint(n, (self.pairs,), generator=generator)
        second = (first + torch.randint(1, n, (self.pairs,), generator=generator)) % n  # different from the first
        at_once = max(1, _FRAMES // (evaluation.spec.size * (self.steps + 1)))
        found = []
        for a, b in zip(first.split(at_once), second.split(at_once), strict=True):
            ends = (placed(model, evaluation.split.batch(i.to(evaluation.split.x.device))) for i in (a, b))
            frames = model.interpolate(*ends, self.steps + 1).flatten(2).double()
            step = frames.diff(dim=1).norm(dim=2)
            chord = (frames[:, -1] - frames[:, 0]).norm(dim=1)
            found.append(torch.stack([step.sum(1), self.steps * step.square().sum(1), chord, chord.square()], 1).cpu())
        return torch.cat(found).numpy()
