"""Whether a classifier can tell samples from examples."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sandglass import rng
from sandglass.core import Batch, Clock, Model, Phase, Spec, Terms
from sandglass.data.dataset import Split
from sandglass.engine.learn import learn
from sandglass.engine.options import Settled
from sandglass.errors import CapabilityError, ConfigError, DivergedError
from sandglass.metrics._bootstrap import sklearn_seed
from sandglass.metrics.evaluation import Better, Evaluation, Requirement, UnsuitableError
from sandglass.metrics.images import quantised
from sandglass.metrics.measure import share_result
from sandglass.metrics.samples import drawn, order, with_conditions, worth_while
from sandglass.registry import register
from sandglass.runs.result import Result

_LEAST = 20  # examples, so that each part has some of both kinds
_SOUND = 200
_FOLDS = 5
_THIN = 3  # pixels of the shorter side: a pixel has neighbours on both sides
_SIDE = 48  # larger images are seen as a crop of this side in full resolution, and whole at this size
_WIDTH = 32
_NETS = 3  # trained from different weights, and averaged
_UPDATES, _EPOCHS, _BATCH, _RATE, _DECAY = 75, 20, 64, 3e-3, 1e-2  # the fewer of updates and epochs


@register("two_sample", kind="metric")
class TwoSample:
    """Classifier two-sample test: how well a small classifier tells samples from unseen examples; .5 is by chance.

    Lopez-Paz and Oquab 2017, "Revisiting Classifier Two-Sample Tests" (arXiv 1610.06545). The classifier, a
    convolutional network on the pixels of images and boosted trees on rows, is trained on one part of both and tested
    on the rest. Samples of images are rounded to the levels of the data.

    Args:
        samples: maximum number of samples and of examples.
        folds: 1 trains on one half and tests on the other; with more, each part is tested once by cross-validation.
            When not given, 5, and 1 where figures are to be quick: at the end of training, and to compare runs.
    """

    needs: tuple[str, ...] = ()
    figures = ("two_sample_auc", "two_sample_accuracy")
    quick = True
    better: Mapping[str, Better] = {"two_sample_auc": "lower", "two_sample_accuracy": "lower"}
    requires: tuple[Requirement, ...] = ("complete",)
    by_default = staticmethod(worth_while)

    def __init__(self, *, samples: int = 500, folds: int | None = None) -> None:
        if samples < _LEAST or (folds is not None and folds < 1):
            raise ConfigError(
                f"two_sample needs at least {_LEAST} samples and 1 fold, not {samples} samples and {folds} folds."
            )
        self.samples, self.folds = samples, folds

    def __call__(self, model: Model, evaluation: Evaluation) -> Sequence[Result]:
        """Area under the ROC curve and accuracy on examples and samples that the classifier was not trained on."""
        n, spec = min(len(evaluation.split), self.samples), evaluation.spec
        if n < _LEAST:
            raise UnsuitableError(f"The metric 'two_sample' needs at least {_LEAST} examples.")
        if spec.is_image and min(spec.shape[1:]) < _THIN:
            raise UnsuitableError(f"The metric 'two_sample' needs images of at least {_THIN} pixels a side.")
        real = evaluation.split.batch(order(evaluation.split, "real", n)).x.cpu()
        fake = drawn(model, evaluation, n)
        if not bool(torch.isfinite(fake).all()):
            note = "the model generates values that are not finite"
            return [Result(name, math.nan, None, n, "1", note) for name in self.figures]
        if spec.is_image:
            real, fake = (small(quantised(x, spec)) for x in (real, fake))
        folds = self.folds or (1 if evaluation.quick else _FOLDS)
        tested = cross_validated(real.float(), fake.float(), max(2, folds), folds, evaluation.seed)
        return with_conditions(model, self.results(tested, spec.is_image))

    def results(self, tested: Sequence[Scores], images: bool) -> list[Result]:
        """The figures over the tested parts."""
        areas, errors = zip(*(part.area for part in tested), strict=True)
        error = math.sqrt(sum(e**2 for e in errors)) / len(errors)
        hits = torch.cat([(part.real < 0) for part in tested] + [(part.fake >= 0) for part in tested])
        how = f"{_NETS} small convolutional networks" if images else "boosted trees"
        folds = (
            f"{len(tested)}-fold cross-validation" if len(tested) > 1 else "trained on one half, tested on the other"
        )
        few = f"; {len(hits)} are few" if len(hits) < _SOUND else ""
        note = f"{how}, {folds}; .5 is by chance, 1 is visibly different{few}"
        return [
            Result("two_sample_auc", sum(areas) / len(areas), error, len(hits), "1", note),
            share_result("two_sample_accuracy", hits, f"share of samples and unseen examples told apart{few}"),
        ]


@dataclass(frozen=True)
class Scores:
    """Log odds of being a sample, by K classifiers that were trained on others.

    Args:
        each_real: ``(K, N)`` of examples.
        each_fake: ``(K, M)`` of samples.
    """

    each_real: Tensor
    each_fake: Tensor

    @property
    def real(self) -> Tensor:
        """``(N,)``, the mean over the classifiers."""
        return self.each_real.mean(0)

    @property
    def fake(self) -> Tensor:
        """``(M,)``, the mean over the classifiers."""
        return self.each_fake.mean(0)

    @property
    def area(self) -> tuple[float, float]:
        """The area of the mean, and its standard error, in which is how much the classifiers differ in theirs."""
        value, error = area(self.real, self.fake)
        alone = [area(*pair)[0] for pair in zip(self.each_real, self.each_fake, strict=True)]
        return value, math.hypot(error, float(np.std(alone, ddof=1)) / len(alone) ** 0.5 if len(alone) > 1 else 0.0)


def cross_validated(real: Tensor, fake: Tensor, parts: int, tested: int, seed: int) -> list[Scores]:
    """Scores of the first ``tested`` of ``parts`` parts, each by a classifier trained on all other parts.

    Args:
        real: ``(N, *shape)``, in random order.
        fake: ``(N, *shape)``, in random order.
        parts: to cut both into.
        tested: number of parts that are tested.
        seed: of the classifiers.
    """
    part = torch.arange(len(real)) * parts // len(real)
    found = []
    for fold in range(tested):
        x = torch.cat([real[part != fold], fake[part != fold]])
        y = torch.cat([torch.full((int((part != fold).sum()),), float(kind)) for kind in (0, 1)])
        classify = on_images if x.dim() == 4 else on_rows
        scores = classify(x, y, torch.cat([real[part == fold], fake[part == fold]]), seed, fold)
        found.append(Scores(*scores.chunk(2, 1)))
    return found


def area(real: Tensor, fake: Tensor) -> tuple[float, float]:
    """Area under the ROC curve of scores, and its standard error.

    By the placement values of DeLong, DeLong and Clarke-Pearson 1988, "Comparing the Areas under Two or More Correlated
    Receiver Operating Characteristic Curves"; where it vanishes, as for sets that are told apart without an error, that
    of Agresti and Coull for a share of as many.

    Args:
        real: ``(N,)`` scores.
        fake: ``(M,)`` scores.

    Example:
        >>> area(torch.tensor([0.0, 1.0]), torch.tensor([0.5, 2.0]))[0]
        0.75
    """
    higher = (fake[:, None] > real).double() + 0.5 * (fake[:, None] == real).double()
    n, m = len(real), len(fake)
    value = float(higher.mean())
    delong = float(higher.mean(0).var()) / n + float(higher.mean(1).var()) / m if min(n, m) > 1 else 0.25
    fewer = min(n, m) + 4
    share = (value * min(n, m) + 2) / fewer
    floor = share * (1 - share) / fewer if value in (0.0, 1.0) else 0.0
    return value, math.sqrt(max(delong, floor))


def on_rows(x: Tensor, y: Tensor, new: Tensor, seed: int, fold: int) -> Tensor:
    """``(1, M)`` log odds of new rows by boosted trees, which do not depend on chance."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    trees = HistGradientBoostingClassifier(
        max_iter=60, max_leaf_nodes=8, min_samples_leaf=10, learning_rate=0.1, early_stopping=False,
        random_state=sklearn_seed(seed, "two_sample", fold),
    )  # fmt: skip
    trees.fit(x.flatten(1).double().numpy(), y.numpy())
    return torch.from_numpy(np.asarray(trees.decision_function(new.flatten(1).double().numpy())))[None]


def on_images(x: Tensor, y: Tensor, new: Tensor, seed: int, fold: int) -> Tensor:
    """``(K, M)`` log odds of new images by convolutional networks, trained on the CPU."""
    size = min(_BATCH, len(x))
    updates = min(_UPDATES, _EPOCHS * math.ceil(len(x) / size))
    scores = []
    for number in range(_NETS):
        own = rng.key(seed, "two_sample", fold, number) % 2**31
        with rng.forked("cpu", own):
            net = Judge(x.shape[1:])
        net.mean.copy_(x.mean((0, 2, 3), keepdim=True)[0])
        net.scale.copy_(x.std((0, 2, 3), keepdim=True)[0].clamp(min=1e-4))
        options = Settled(
            epochs=math.ceil(updates * size / len(x)), batch_size=size, lr=_RATE, optimizer="adamw",
            weight_decay=_DECAY, schedule="cosine", seed=own, device="cpu",
        )  # fmt: skip
        try:
            learn(Learner(net, Spec(tuple(x.shape[1:]))), Split(x, y.long()), options, updates)
        except DivergedError:
            scores.append(torch.zeros(len(new)).double())
            continue
        with torch.no_grad():
            scores.append(torch.cat([net(part) for part in new.split(256)]).double())
    return torch.stack(scores)


def small(x: Tensor) -> Tensor:
    """``(N, C, H, W)``, or for larger images ``(N, 2C, 48, 48)``: a crop at full resolution, and the whole image.

    The crop shows texture, grids and blur as they are; the whole image, average-pooled, shows the rest.
    """
    height, width = x.shape[2:]
    if max(height, width) <= _SIDE:
        return x
    h, w = min(height, _SIDE), min(width, _SIDE)
    top, left = (height - h) // 2, (width - w) // 2
    return torch.cat([x[:, :, top : top + h, left : left + w], F.adaptive_avg_pool2d(x, (h, w))], 1)


class Judge(nn.Module):
    """A small convolutional network from images to the log odds of being a sample.

    The energies of its first filters enter the last layer as they are, for texture is a matter of these; the rest sees
    shapes and where they are.

    Args:
        shape: ``(C, H, W)``.
    """

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        channels, height, width = shape
        self.mean, self.scale = nn.Buffer(torch.zeros(channels, 1, 1)), nn.Buffer(torch.ones(channels, 1, 1))
        self.filters = nn.Conv2d(channels, _WIDTH, 4, stride=2, padding=1)
        layers: list[nn.Module] = [nn.SiLU()]
        inputs, outputs, height, width = _WIDTH, _WIDTH, height // 2, width // 2
        while min(height, width) > 4:
            outputs = min(outputs + 16, 64)
            layers += [nn.Conv2d(inputs, outputs, 3, stride=2, padding=1), nn.GroupNorm(4, outputs), nn.SiLU()]
            height, width, inputs = -(-height // 2), -(-width // 2), outputs
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.3))
        self.head = nn.Linear(inputs * height * width + 2 * _WIDTH + 2 * channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W) -> (B,)``."""
        x = (x - self.mean) / self.scale
        h = self.filters(x)
        energy = (h.var((2, 3), correction=0) + 1e-3).log()
        odds: Tensor = self.head(torch.cat([self.body(h), energy, h.mean((2, 3)), residual(x)], 1))
        return odds.squeeze(1)


def residual(x: Tensor) -> Tensor:
    """``(B, 2C)`` log variance, and log lower quartile, of each pixel's squared difference from its four neighbours.

    Noise shows in the smooth parts of an image, which the quartile is of.
    """
    middle = x[:, :, 1:-1, 1:-1]
    mean = (x[:, :, :-2, 1:-1] + x[:, :, 2:, 1:-1] + x[:, :, 1:-1, :-2] + x[:, :, 1:-1, 2:]) / 4
    squares = (middle - mean).square().flatten(2)
    low = squares.kthvalue(max(1, squares.shape[2] // 4), 2).values
    return (torch.cat([squares.mean(2), low], 1) + 1e-4).log()


class Learner(Model):
    """Trains the network by cross-entropy.

    Args:
        net: the network.
        spec: of the images.
    """

    def __init__(self, net: Judge, spec: Spec) -> None:
        super().__init__()
        self.net, self.spec = net, spec

    def phases(self) -> Sequence[Phase]:
        """One phase, which trains the network."""
        return (Phase("two_sample", (self.net,), self.loss, scheduled=False),)

    def loss(self, batch: Batch, clock: Clock) -> Terms:
        """The cross-entropy, in nats."""
        assert batch.y is not None
        return Terms(F.binary_cross_entropy_with_logits(self.net(batch.x), batch.y.to(batch.x.dtype)), {})

    def sample(self, n: int, given: Batch | None = None, *, noise: bool = False) -> Tensor:
        """Not supported.

        Raises:
            CapabilityError: always; a classifier does not generate.
        """
        raise CapabilityError("The classifier of 'two_sample' cannot generate samples.")
