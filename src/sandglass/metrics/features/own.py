"""Features learnt from the data at hand, once, and kept in the cache."""

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

_VERSION = 2  # of the network and its training; what another version learnt is learnt anew
_MOST = 20_000  # examples learnt from
_BATCH, _RATE, _DECAY = 128, 2e-3, 1e-2
_WARMUP = 0.3  # share of the updates over which the learning rate rises
_PROJECTION = 64
_TEMPERATURE = 0.5
_SWAPPED = 0.4  # share of a row's columns that its second view takes from other rows
_PATIENCE = 3.0  # seconds before a line is printed


@register("own", kind="features")
class Own:
    """A small network trained on the data at hand: as a classifier where it has labels, else contrastively.

    With labels the features are the last hidden layer of a classifier. Without, they are those of Chen et al. 2020, "A
    Simple Framework for Contrastive Learning of Visual Representations" (arXiv 2002.05709), by cut-outs, turns and
    changes of light of pictures; of rows, by columns taken from other rows (Bahri et al. 2022, "SCARF", arXiv
    2106.15147). That features learnt without labels serve to judge generators is found by Morozov et al. 2021, "On
    Self-Supervised Image Representations for GAN Evaluation" (ICLR). It learns from nine tenths of the training
    examples and is tried on the rest; the weights are kept under the fingerprint of the data.

    Args:
        dim: features.
        size: sides in pixels that larger pictures are averaged down to; what is finer is not seen.
        updates: of the training, in batches of about 128.

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
        """Whether ``"auto"`` picks this: for pictures, and for rows of more than 64 numbers."""
        return spec.is_image or spec.size > FEW

    def __call__(self, evaluation: Evaluation, device: torch.device) -> Extractor:
        """Learns, or reads what was learnt from this data before."""
        source = evaluation.train if evaluation.train is not None else evaluation.split
        classes = int(source.y.max()) + 1 if source.y is not None else 0
        labelled = classes > 1
        with rng.forked("cpu", 0, "features", "own"):
            outputs = classes if labelled else _PROJECTION
            net = Network(evaluation.spec, dim=self.dim, outputs=outputs, size=self.size)
        place = self.place(evaluation, classes) if evaluation.fingerprint and evaluation.train is not None else None
        if place is None or not _read(place, net):
            _learn(net, source, self.updates, labelled)
            if place is not None:
                with suppress(SaveError):  # then they are learnt again next time
                    _write(place, net)
        net = net.to(device).eval().requires_grad_(False)
        if not labelled:
            about = f"contrastive network, which finds {float(net.score):.0%} of unseen examples again"
            return Extractor(net, f"{self.dim} features of a {about}")

        def classify(features: Tensor) -> Tensor:
            return F.log_softmax(net.logits(features.to(device, torch.float32)), 1).double().cpu()

        about = f"{self.dim} features of a classifier, right on {float(net.score):.1%} of unseen examples"
        return Extractor(net, about, classify, f"{classes} classes of the data")

    def place(self, evaluation: Evaluation, classes: int) -> Path:
        """Where the weights for this data and these options are kept."""
        what = [_VERSION, evaluation.fingerprint, to_plain(evaluation.spec), classes, self.dim, self.size, self.updates]
        name = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:32]
        return storage.cache_folder("features") / name


def _read(place: Path, net: Network) -> bool:
    """Puts the kept weights into the network, if they are there, whole, and fit."""
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
    """The network with what it is trained by: classes where there are any, else views that are to be found alike.

    Args:
        net: changed by training.
        spec: of the examples as the network shrinks them.
        labelled: whether it learns classes.
    """

    def __init__(self, net: Network, spec: Spec, labelled: bool) -> None:
        super().__init__()
        self.net, self.spec, self.labelled = net, spec, labelled

    def phases(self) -> Sequence[Phase]:
        """One player: the network."""
        return (Phase("features", (self.net,), self.loss, scheduled=False),)

    def loss(self, batch: Batch, clock: Clock) -> Terms:
        """The cross-entropy of the classes, or of finding each view's other."""
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
        """Nothing.

        Raises:
            CapabilityError: always; features are no generator.
        """
        raise CapabilityError("The network of the features 'own' draws no samples.")


def _learn(net: Network, source: Split, updates: int, labelled: bool) -> None:
    """Trains the network in place, on the CPU: the same weights for the same examples and thread count."""
    index = some(source, _MOST)
    x = net.gather(source, index)
    y = source.y[index].cpu() if source.y is not None and labelled else None
    tried = min(max(1, len(x) // 10), 2_000)
    kept = slice(tried, None) if len(x) > tried else slice(None)
    net.fit_input(x[kept])
    examples = Split(x[kept], None if y is None else y[kept])
    batches = max(1, round(len(examples) / _BATCH))
    batch, epochs = math.ceil(len(examples) / batches), updates / batches  # all of one size, as contrasts need
    options = Settled(
        epochs=math.ceil(epochs), batch_size=batch, lr=_RATE, optimizer="adamw", weight_decay=_DECAY,
        schedule="cosine", lr_warmup=_WARMUP * epochs, device="cpu",
    )  # fmt: skip
    learn(Learner(net, Spec(tuple(x.shape[1:])), labelled), examples, options, updates, _Patience(updates))
    net.fit_output(x[kept])
    net.score.copy_(_score(net, x[:tried], None if y is None else y[:tried]))


class _Patience:
    """Says once, in a terminal, what takes so long."""

    def __init__(self, updates: int) -> None:
        self.updates, self.begun, self.said = updates, time.monotonic(), not sys.stderr.isatty()

    def __call__(self, done: int) -> None:
        if self.said or time.monotonic() - self.begun <= _PATIENCE:
            return
        self.said = True
        print(
            f"Learning features of the data to compare samples by, once: {done} of {self.updates} updates done",
            file=sys.stderr,
            flush=True,
        )


@torch.no_grad()
def _score(net: Network, x: Tensor, y: Tensor | None) -> Tensor:
    """Share of unseen examples that are classified rightly, or whose other view is found among 128 of them."""
    if y is not None:
        return (net.head(net.encode(x)).argmax(1) == y).double().mean()
    one, two = (
        F.normalize(net.head(net.encode(v)), dim=1) for v in views(x[:_BATCH], torch.arange(len(x[:_BATCH])), -1)
    )
    return ((one @ two.T).argmax(1) == torch.arange(len(one))).double().mean()


def views(x: Tensor, index: Tensor, update: int) -> tuple[Tensor, Tensor]:
    """Two views of each example, which a network is to find alike.

    Args:
        x: ``(B, C, H, W)`` pictures, or ``(B, D)`` rows.
        index: ``(B,)`` the examples' positions.
        update: which time it is; the draws are keyed by it and the position.
    """
    if x.dim() == 4:
        change = Augmentation(crop=0.7, rotate=15.0, brightness=0.2, contrast=0.4, unit=False)
        return change(x, index, 0, 2 * update), change(x, index, 0, 2 * update + 1)
    others = x[torch.arange(len(x)).roll(1)]
    swapped = rng.uniform(index, x.shape[1], 0, "features", "views", update) < _SWAPPED
    return x, torch.where(swapped, others, x)


def contrast(one: Tensor, two: Tensor) -> Tensor:
    """The normalised temperature-scaled cross-entropy of two views: each is to find the other among all.

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
