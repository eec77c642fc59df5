"""Features learnt from the data itself, once, and cached."""

from __future__ import annotations

import hashlib
import json
import math
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from sandglass import rng
from sandglass.core import Batch, Clock, Model, Phase, Spec, Terms
from sandglass.data.augment import Augmentation
from sandglass.data.dataset import Split
from sandglass.engine.learn import learn
from sandglass.engine.options import Settled
from sandglass.errors import CapabilityError, CheckpointError, ConfigError, SaveError
from sandglass.metrics.evaluation import Evaluation
from sandglass.metrics.extractor import FEW, Extractor
from sandglass.metrics.features._network import Network, some
from sandglass.registry import register
from sandglass.runs import storage
from sandglass.runs.specification import to_plain
from sandglass.runs.weights import fill, read_tensors, tensor_file

_VERSION = 3  # of the network and its training; weights cached by another version are not used
_MOST = 20_000  # maximum training examples
_BATCH, _RATE, _DECAY = 128, 2e-3, 1e-2
_WARMUP = 0.3  # share of the updates over which the learning rate rises
_PROJECTION = 64
_TEXTURE = 16  # features of it
_TEMPERATURE = 0.5
_SWAPPED = 0.4  # share of columns that the second view of a row takes from another row
_PATIENCE = 3.0  # seconds before a line is printed


@register("own", kind="features")
class Own:
    """A small network trained on the data itself: as a classifier where most have labels, contrastively otherwise.

    With labels the features are the last hidden layer of a classifier. Without, they are learnt as in Chen et al.
    2020, "A Simple Framework for Contrastive Learning of Visual Representations" (arXiv 2002.05709), with random
    crops, rotations, brightness and contrast for images, and columns swapped between rows for rows (Bahri et al. 2022,
    "SCARF", arXiv 2106.15147). Morozov et al. 2021, "On Self-Supervised Image Representations for GAN Evaluation"
    (ICLR), find such self-supervised features suitable for evaluating generators. The network is trained on nine
    tenths of the training examples and validated on the rest; its weights are cached by the fingerprint of the data.
    For Fréchet distances of images, features of texture are added: the energies of the first filters, and the mean
    colour.

    Args:
        dim: number of features.
        size: larger images are average-pooled to at most this many pixels a side, which removes finer detail.
        updates: training updates, with batches of about 128.

    Example:
        >>> from sandglass.data.dataset import Split
        >>> split = Split(torch.rand(30, 1, 8, 8), torch.arange(30) % 2)
        >>> evaluation = Evaluation(split=split, spec=Spec((1, 8, 8), "unit"))
        >>> Own(dim=5, updates=2)(evaluation, torch.device("cpu")).classes
        '2 classes of the data'
    """

    def __init__(self, *, dim: int = 32, size: int = 32, updates: int = 400) -> None:
        if dim < 1 or size < 1 or updates < 1:
            raise ConfigError(
                f"The features 'own' need dim, size and updates of at least 1, not {dim}, {size} and {updates}."
            )
        self.dim, self.size, self.updates = dim, size, updates

    @staticmethod
    def natural(spec: Spec) -> bool:
        """Whether ``"auto"`` selects this: for images, and for rows of more than 64 values."""
        return spec.is_image or spec.size > FEW

    def __call__(self, evaluation: Evaluation, device: torch.device) -> Extractor:
        """Trains the network, or loads its cached weights."""
        source = evaluation.train if evaluation.train is not None else evaluation.split
        # With few labels the contrastive network knows more of the data; most batches would have none.
        most = source.y is not None and bool(2 * (source.y >= 0).sum() >= len(source))
        classes = int(source.y.max()) + 1 if most and source.y is not None else 0
        labelled = classes > 1
        with rng.forked("cpu", 0, "features", "own"):
            outputs = classes if labelled else _PROJECTION
            net = Network(evaluation.spec, dim=self.dim, outputs=outputs, size=self.size, texture=_TEXTURE)
        place = self.place(evaluation, classes) if evaluation.fingerprint and evaluation.train is not None else None
        if place is None or not _read(place, net):
            _learn(net, source, self.updates, labelled)
            if place is not None:
                with suppress(SaveError):  # they are then trained again next time
                    _write(place, net)
        net = net.to(device).eval().requires_grad_(False)
        if not labelled:
            about = f"contrastive network, which matches {float(net.score):.0%} of the views of held-out examples"
            return Extractor(net, f"own features, {self.dim} of a {about}", content=self.dim)

        def classify(features: Tensor) -> Tensor:
            return F.log_softmax(net.logits(features.to(device, torch.float32)), 1).double().cpu()

        about = f"own features, {self.dim} of a classifier with {float(net.score):.1%} held-out accuracy"
        return Extractor(net, about, classify, f"{classes} classes of the data", self.dim, labels=True)

    def place(self, evaluation: Evaluation, classes: int) -> Path:
        """Cache folder of the weights for this data and these options."""
        what = [_VERSION, evaluation.fingerprint, to_plain(evaluation.spec), classes, self.dim, self.size, self.updates]
        name = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:32]
        return storage.cache_folder("features") / name


def _read(place: Path, net: Network) -> bool:
    """Loads cached weights into the network; False where they are missing, damaged or do not match it."""
    try:
        storage.verify_folder(place)
        fill(net, read_tensors(place / "net.safetensors", net), str(place))
    except (CheckpointError, OSError):
        return False
    return True


def _write(place: Path, net: Network) -> None:
    with storage.saving(place):
        place.parent.mkdir(parents=True, exist_ok=True)
    storage.write_folder(place, {"net.safetensors": tensor_file(net.state_dict())}, {"torch": str(torch.__version__)})


class Learner(Model):
    """Trains the network: by cross-entropy of the classes, or contrastively without labels.

    Args:
        net: the network to train.
        spec: of the shrunk examples.
        labelled: whether to train it as a classifier.
    """

    def __init__(self, net: Network, spec: Spec, labelled: bool) -> None:
        super().__init__()
        self.net, self.spec, self.labelled = net, spec, labelled

    def phases(self) -> Sequence[Phase]:
        """One phase, which trains the network."""
        return (Phase("features", (self.net,), self.loss, scheduled=False),)

    def loss(self, batch: Batch, clock: Clock) -> Terms:
        """The cross-entropy of the classes, or the contrastive loss of two views."""
        if self.labelled:
            assert batch.y is not None
            loss = F.cross_entropy(self.project(batch.x), batch.y, ignore_index=-1)
        else:
            assert batch.index is not None
            loss = contrast(*(self.project(view) for view in views(batch.x, batch.index, clock.step)))
        return Terms(loss, {})

    def project(self, x: Tensor) -> Tensor:
        """``(B, ...)`` shrunk examples to ``(B, outputs)``."""
        projected: Tensor = self.net.head(self.net.encode(x))
        return projected

    def sample(self, n: int, given: Batch | None = None, *, noise: bool = False) -> Tensor:
        """Not supported.

        Raises:
            CapabilityError: always; a feature extractor does not generate.
        """
        raise CapabilityError("The network of the features 'own' cannot generate samples.")


def _learn(net: Network, source: Split, updates: int, labelled: bool) -> None:
    """Trains the network in place on the CPU; deterministic for the same examples and thread count."""
    index = some(source, _MOST)
    x = net.gather(source, index)
    y = source.y[index].cpu() if source.y is not None and labelled else None
    held_out = min(max(1, len(x) // 10), 2_000)
    kept = slice(held_out, None) if len(x) > held_out else slice(None)
    net.fit_input(x[kept])
    examples = Split(x[kept], None if y is None else y[kept])
    batches = max(1, round(len(examples) / _BATCH))
    batch, epochs = math.ceil(len(examples) / batches), updates / batches  # the contrastive loss needs equal batches
    options = Settled(
        epochs=math.ceil(epochs), batch_size=batch, lr=_RATE, optimizer="adamw", weight_decay=_DECAY,
        schedule="cosine", lr_warmup=_WARMUP * epochs, device="cpu",
    )  # fmt: skip
    learn(Learner(net, Spec(tuple(x.shape[1:])), labelled), examples, options, updates, _Patience(updates))
    net.fit_output(x[kept])
    net.score.copy_(_score(net, x[:held_out], None if y is None else y[:held_out]))


class _Patience:
    """Prints one progress message, in a terminal, when training takes longer than :data:`_PATIENCE`."""

    def __init__(self, updates: int) -> None:
        self.updates, self.start, self.printed = updates, time.monotonic(), not sys.stderr.isatty()

    def __call__(self, done: int) -> None:
        if self.printed or time.monotonic() - self.start <= _PATIENCE:
            return
        self.printed = True
        print(
            f"Training a feature network on the data to compare samples, once: {done} of {self.updates} updates done",
            file=sys.stderr,
            flush=True,
        )


@torch.no_grad()
def _score(net: Network, x: Tensor, y: Tensor | None) -> Tensor:
    """Share of labelled held-out examples classified correctly, or of up to 128 whose second view is nearest."""
    if y is not None:
        known = y >= 0
        return (net.head(net.encode(x)).argmax(1) == y)[known].double().mean()
    one, two = (
        F.normalize(net.head(net.encode(v)), dim=1) for v in views(x[:_BATCH], torch.arange(len(x[:_BATCH])), -1)
    )
    return ((one @ two.T).argmax(1) == torch.arange(len(one))).double().mean()


def views(x: Tensor, index: Tensor, update: int) -> tuple[Tensor, Tensor]:
    """Two augmented views of each example, the positive pairs of the contrastive loss.

    Args:
        x: ``(B, C, H, W)`` images, or ``(B, D)`` rows.
        index: ``(B,)`` positions of the examples.
        update: number of the update; random draws are keyed by it and the position.
    """
    if x.dim() == 4:
        change = Augmentation(crop=0.7, rotate=15.0, brightness=0.2, contrast=0.4, unit=False)
        return change(x, index, 0, 2 * update), change(x, index, 0, 2 * update + 1)
    others = x[torch.arange(len(x)).roll(1)]
    swapped = rng.uniform(index, x.shape[1], 0, "features", "views", update) < _SWAPPED
    return x, torch.where(swapped, others, x)


def contrast(one: Tensor, two: Tensor) -> Tensor:
    """The normalised temperature-scaled cross-entropy (NT-Xent) of two views.

    Args:
        one: ``(B, P)`` projections of the first views.
        two: ``(B, P)`` of the second.

    Example:
        >>> far = 10 * torch.eye(4)
        >>> bool(contrast(far, far) < contrast(far, far.roll(1, 0)))
        True
    """
    z = F.normalize(torch.cat([one, two]), dim=1)
    similarity = (z @ z.T / _TEMPERATURE).fill_diagonal_(float("-inf"))
    n = len(one)
    return F.cross_entropy(similarity, torch.arange(2 * n).roll(n))
