"""Stacked MNIST: three digits in one picture, with a thousand modes."""

from __future__ import annotations

import numpy as np
import torch

from sandglass.data.sets._options import whole
from sandglass.data.sets.idx import Mnist
from sandglass.data.sources.raw import Part, Raw
from sandglass.data.transform import ImageTransform
from sandglass.registry import register
from sandglass.rng import key


@register("stacked-mnist", kind="dataset")
class StackedMnist:
    """Three random MNIST digits as the red, green and blue of one picture: a thousand modes; made of MNIST.

    The label is the three-digit number. L. Metz et al., Unrolled generative adversarial networks, 2017. Training
    pictures use MNIST's training digits, test pictures its test digits.

    Args:
        examples: number of training pictures; there are a sixth as many test pictures.
        seed: random seed.

    Raises:
        ConfigError: an invalid value.
    """

    size = "60,000 + 10,000"
    shape = (3, *Mnist.shape[1:])
    licence = Mnist.licence
    origin = "made of mnist, after L. Metz et al., Unrolled generative adversarial networks, 2017"

    def __init__(self, *, examples: int = 60_000, seed: int = 0) -> None:
        self.examples = whole("stacked-mnist", "examples", examples, 6)
        self.seed = whole("stacked-mnist", "seed", seed, 0)

    def read(self) -> Raw:
        """The two splits; raises as :meth:`sandglass.data.sets.idx.Mnist.read`."""
        digits = Mnist().read().parts
        parts = {}
        for split, n in (("train", self.examples), ("test", self.examples // 6)):
            draws = np.random.default_rng(key(self.seed, "stacked-mnist", split))
            drawn = digits[split].take(torch.from_numpy(draws.integers(len(digits[split]), size=3 * n)))
            assert drawn.y is not None
            parts[split] = Part(drawn.x.view(n, *self.shape), drawn.y.view(n, 3) @ torch.tensor([100, 10, 1]))
        return Raw(parts, ImageTransform(self.shape[1:], 3), classes=tuple(f"{i:03}" for i in range(1000)))
