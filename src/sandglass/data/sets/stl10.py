"""STL-10: 96x96 colour pictures, few of them labelled; read from the binary archive without unpacking it."""

from __future__ import annotations

from torch import Tensor

from sandglass.data.sets.archives import read_tar
from sandglass.data.sets.download import File, locate
from sandglass.data.sources.raw import Part, Raw
from sandglass.data.transform import ImageTransform
from sandglass.registry import register

_FILE = File(
    "stl10_binary.tar.gz",
    2_640_397_119,
    "f31fd99273a1acb8609c8db427cebb1de3f71de77758cdc0e22956e1289b9866",
    ("https://cs.stanford.edu/~acoates/stl10/",),
)
_COUNTS = {"train": 5_000, "test": 8_000, "unlabeled": 100_000}
_SIDE = 96
_CLASSES = "airplane bird car cat deer dog horse monkey ship truck"


@register("stl10", kind="dataset")
@register("stl10-unlabelled", kind="dataset", unlabelled=True)
class Stl10:
    """STL-10: photographs of ten kinds of things, few of them labelled; downloaded once (2.6 GB).

    Args:
        unlabelled: use the 100,000 unlabelled pictures as the training set in place of the 5,000 labelled ones; takes
            2.8 GB of memory, and twice that while it is read.
    """

    size = "5,000 + 8,000 (+ 100,000)"
    shape = (3, _SIDE, _SIDE)
    licence = "none stated"
    origin = "A. Coates, H. Lee and A. Y. Ng, An Analysis of Single-Layer Networks in Unsupervised Learning, 2011"

    def __init__(self, *, unlabelled: bool = False) -> None:
        self.unlabelled = bool(unlabelled)

    def read(self) -> Raw:
        """The training and test split in their original order; neither has labels if ``unlabelled``.

        Raises:
            NotFoundError: there is no local copy, and the download failed.
            DataError: the archive is not that of the dataset.
        """
        source = {"train": "unlabeled" if self.unlabelled else "train", "test": "test"}
        sizes = {f"stl10_binary/{s}_X.bin": _COUNTS[s] * 3 * _SIDE**2 for s in source.values()}
        if not self.unlabelled:
            sizes |= {f"stl10_binary/{s}_y.bin": _COUNTS[s] for s in source.values()}
        found = read_tar(locate("stl10", _FILE), sizes)
        parts = {}
        for split, name in source.items():
            y = found.get(f"stl10_binary/{name}_y.bin")
            parts[split] = Part(_pictures(found[f"stl10_binary/{name}_X.bin"]), None if y is None else y.long() - 1)
        return Raw(parts, ImageTransform((_SIDE, _SIDE), 3), classes=() if self.unlabelled else tuple(_CLASSES.split()))


def _pictures(values: Tensor) -> Tensor:
    """``(N, 3, 96, 96)`` from column-major bytes, transposed in place to save memory."""
    x = values.view(-1, 3, _SIDE, _SIDE)
    for block in x.split(1000):
        block.copy_(block.transpose(2, 3).clone())
    return x
