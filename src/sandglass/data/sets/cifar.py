"""CIFAR-10 and CIFAR-100: 32x32 colour pictures, read from their binary archives without unpacking them."""

from __future__ import annotations

import torch
from torch import Tensor

from sandglass.data.sets.archives import read_tar
from sandglass.data.sets.download import File, locate
from sandglass.data.sources.raw import Part, Raw
from sandglass.data.transform import ImageTransform
from sandglass.registry import register

_MIRRORS = ("https://www.cs.toronto.edu/~kriz/",)
_TEN = File(
    "cifar-10-binary.tar.gz",
    170_052_171,
    "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
    _MIRRORS,
)
_HUNDRED = File(
    "cifar-100-binary.tar.gz",
    168_513_733,
    "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
    _MIRRORS,
)
_BATCH = 10_000
_PIXELS = 3 * 32 * 32
_CLASSES_10 = "airplane automobile bird cat deer dog frog horse ship truck"
_CLASSES_100 = """
    apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
    caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant
    flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree
    motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate
    poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider
    squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle
    wardrobe whale willow_tree wolf woman worm
"""


@register("cifar10", kind="dataset")
class Cifar10:
    """CIFAR-10: small colour photographs of ten kinds of things; downloaded once (170 MB)."""

    size = "50,000 + 10,000"
    shape = (3, 32, 32)
    licence = "none stated"
    origin = "A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009"

    def read(self) -> Raw:
        """The two splits in their original order.

        Raises:
            NotFoundError: there is no local copy, and the download failed.
            DataError: the archive is not that of the dataset.
        """
        batches = {
            "train": [f"cifar-10-batches-bin/data_batch_{i}.bin" for i in range(1, 6)],
            "test": ["cifar-10-batches-bin/test_batch.bin"],
        }
        record = 1 + _PIXELS  # label, red, green, blue
        sizes = {name: _BATCH * record for names in batches.values() for name in names}
        found = read_tar(locate("cifar10", _TEN), sizes)
        parts = {split: _part([found[name] for name in names], record) for split, names in batches.items()}
        return Raw(parts, ImageTransform((32, 32), 3), classes=tuple(_CLASSES_10.split()))


@register("cifar100", kind="dataset")
class Cifar100:
    """CIFAR-100: small colour photographs of a hundred kinds of things; downloaded once (169 MB)."""

    size = "50,000 + 10,000"
    shape = (3, 32, 32)
    licence = "none stated"
    origin = Cifar10.origin

    def read(self) -> Raw:
        """The two splits in their original order, with the hundred fine labels; raises as :meth:`Cifar10.read`."""
        record = 2 + _PIXELS  # coarse label, fine label, red, green, blue
        sizes = {"cifar-100-binary/train.bin": 5 * _BATCH * record, "cifar-100-binary/test.bin": _BATCH * record}
        train, test = read_tar(locate("cifar100", _HUNDRED), sizes).values()
        return Raw(
            {"train": _part([train], record), "test": _part([test], record)},
            ImageTransform((32, 32), 3),
            classes=tuple(_CLASSES_100.split()),
        )


def _part(batches: list[Tensor], record: int) -> Part:
    """Pictures and labels from records that end in a label and the pixels, in channel-first, row-major order."""
    rows = torch.cat(batches).view(-1, record)
    return Part(rows[:, -_PIXELS:].reshape(-1, 3, 32, 32), rows[:, -_PIXELS - 1].long())
