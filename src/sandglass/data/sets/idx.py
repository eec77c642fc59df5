"""MNIST and two datasets in its format: 28x28 grey pictures of ten classes in four IDX files."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence

import torch
from torch import Tensor

from sandglass.data.sets.download import File, unpack
from sandglass.data.sources.raw import Part, Raw
from sandglass.data.transform import ImageTransform
from sandglass.errors import DataError
from sandglass.registry import register

_NAMES = (
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
)
_CLOTHES = "T-shirt/top, Trouser, Pullover, Dress, Coat, Sandal, Shirt, Sneaker, Bag, Ankle boot"
_KANA = "o ki su tsu na ha ma ya re wo"
_COUNTS = {"train": 60_000, "test": 10_000}
_SIDE = 28


def _files(mirrors: tuple[str, ...], *pins: tuple[int, str, str | None]) -> tuple[File, ...]:
    """The four files, from the size, SHA-256 and content SHA-256 of each."""
    return tuple(
        File(name, size, sha256, mirrors, content) for name, (size, sha256, content) in zip(_NAMES, pins, strict=True)
    )


_MNIST = _files(
    (
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
    ),
    (
        9_912_422,
        "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    ),
    (
        28_881,
        "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    ),
    (
        1_648_877,
        "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    ),
    (
        4_542,
        "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
)
_FASHION = _files(
    (
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
    ),
    (26_421_880, "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84", None),
    (29_515, "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845", None),
    (4_422_102, "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073", None),
    (5_148, "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5", None),
)
_KMNIST = _files(
    ("https://codh.rois.ac.jp/kmnist/dataset/kmnist/",),
    (18_165_135, "51467d22d8cc72929e2a028a0428f2086b092bb31cfb79c69cc0a90ce135fde4", None),
    (29_497, "e38f9ebcd0f3ebcdec7fc8eabdcdaef93bb0df8ea12bee65224341c8183d8e17", None),
    (3_041_136, "edd7a857845ad6bb1d0ba43fe7e794d164fe2dce499a1694695a792adfac43c5", None),
    (5_120, "20bb9a0ef54c7db3efc55a92eef5582c109615df22683c380526788f98e42a1c", None),
)


@register("mnist", kind="dataset")
class Mnist:
    """MNIST: handwritten digits, 28x28 grey pixels; read from $SANDGLASS_DATA/mnist or downloaded once (11 MB)."""

    size = "60,000 + 10,000"
    shape = (1, _SIDE, _SIDE)
    licence = "CC BY-SA 3.0"
    origin = "Y. LeCun, C. Cortes and C. J. C. Burges, The MNIST database of handwritten digits, 1998"

    def read(self) -> Raw:
        """The two splits in their original order.

        Raises:
            NotFoundError: there is no local copy, and the download failed.
            DataError: a file is not that of the dataset.
        """
        return _read("mnist", _MNIST, tuple("0123456789"))


@register("fashion-mnist", kind="dataset")
class FashionMnist:
    """Fashion-MNIST: photographs of clothes in MNIST's format; downloaded once (31 MB)."""

    size = "60,000 + 10,000"
    shape = (1, _SIDE, _SIDE)
    licence = "MIT"
    origin = "H. Xiao, K. Rasul and R. Vollgraf, Fashion-MNIST, arXiv:1708.07747, 2017"

    def read(self) -> Raw:
        """The two splits in their original order; raises as :meth:`Mnist.read`."""
        return _read("fashion-mnist", _FASHION, _CLOTHES.split(", "))


@register("kmnist", kind="dataset")
class Kmnist:
    """Kuzushiji-MNIST: cursive Japanese characters in MNIST's format; downloaded once (21 MB)."""

    size = "60,000 + 10,000"
    shape = (1, _SIDE, _SIDE)
    licence = "CC BY-SA 4.0"
    origin = "T. Clanuwat et al., Deep Learning for Classical Japanese Literature, arXiv:1812.01718, 2018"

    def read(self) -> Raw:
        """The two splits in their original order; raises as :meth:`Mnist.read`."""
        return _read("kmnist", _KMNIST, _KANA.split())


def _read(dataset: str, files: Sequence[File], classes: Sequence[str]) -> Raw:
    parts = {}
    for (split, count), images, labels in zip(_COUNTS.items(), files[::2], files[1::2], strict=True):
        x = _idx(dataset, images, (count, _SIDE, _SIDE))
        parts[split] = Part(x[:, None], _idx(dataset, labels, (count,)).long())
    return Raw(parts, ImageTransform((_SIDE, _SIDE), 1), classes=tuple(classes))


def _idx(dataset: str, file: File, shape: tuple[int, ...]) -> Tensor:
    """uint8 values of this shape from an IDX file, whose header holds the type and the shape."""
    header = struct.pack(f">4B{len(shape)}I", 0, 0, 8, len(shape), *shape)
    content = unpack(dataset, file, len(header) + math.prod(shape))
    if not content.startswith(header):
        raise DataError(f"'{dataset}': {file.name} is not an IDX file of shape {shape}; download it again.")
    return torch.frombuffer(bytearray(content), dtype=torch.uint8, offset=len(header)).view(shape)
