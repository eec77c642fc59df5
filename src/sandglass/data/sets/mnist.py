"""MNIST, from a folder of one's own or downloaded once; every byte is checked against a known sum."""

from __future__ import annotations

import gzip
import hashlib
import os
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sandglass.data.sources.raw import Part, Raw
from sandglass.data.transform import ImageTransform
from sandglass.errors import DataError, MissingPackageError, NotFoundError
from sandglass.registry import register

_MIRRORS = (
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
)
# For each file: SHA-256 of what the mirrors serve, and of what is inside it. Only the second is asked of a file in
# one's own folder, for the same content can have been compressed again.
_FILES = {
    "train-images-idx3-ubyte.gz": (
        "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    ),
    "train-labels-idx1-ubyte.gz": (
        "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    ),
    "t10k-images-idx3-ubyte.gz": (
        "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    ),
    "t10k-labels-idx1-ubyte.gz": (
        "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
}
_LARGEST = 64 * 2**20


@register("mnist", kind="dataset")
class Mnist:
    """MNIST: handwritten digits, 28x28 grey pixels; read from $SANDGLASS_DATA/mnist or downloaded once (11 MB)."""

    size = "60,000 + 10,000"
    shape = (1, 28, 28)
    licence = "CC BY-SA 3.0"
    origin = "Y. LeCun, C. Cortes and C. J. C. Burges, The MNIST database of handwritten digits, 1998"

    def read(self) -> Raw:
        """The two splits in their original order.

        Raises:
            NotFoundError: neither at hand nor to be downloaded.
            DataError: a file whose content is not that of MNIST.
        """
        parts = {
            "train": Part(_read("train-images-idx3-ubyte.gz"), _read("train-labels-idx1-ubyte.gz").long()),
            "test": Part(_read("t10k-images-idx3-ubyte.gz"), _read("t10k-labels-idx1-ubyte.gz").long()),
        }
        return Raw(parts, ImageTransform((28, 28), 1), tuple("0123456789"))


def _read(name: str) -> Tensor:
    """Pictures ``(N, 1, 28, 28)`` or labels ``(N,)``, uint8, from one IDX file."""
    path = _locate(name)
    try:
        with gzip.open(path) as file:
            content = file.read(_LARGEST)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be unpacked ({error}); delete it and download it again.") from error
    if hashlib.sha256(content).hexdigest() != _FILES[name][1]:
        raise DataError(f"{path} does not hold MNIST's {name}: its SHA-256 differs; delete it and download it again.")
    axes = content[3]
    shape = np.frombuffer(content, ">u4", axes, 4).astype(int).tolist()
    values = torch.frombuffer(bytearray(content), dtype=torch.uint8, offset=4 + 4 * axes).view(shape)
    return values[:, None] if axes == 3 else values


def _locate(name: str) -> Path:
    """The file in $SANDGLASS_DATA, in the cache, or after a download into the cache."""
    own = os.environ.get("SANDGLASS_DATA")
    if own and (path := Path(own, "mnist", name)).is_file():
        return path
    try:
        import platformdirs
        import pooch
    except ImportError as error:
        raise MissingPackageError("Downloading 'mnist' needs pooch; install it with `pip install pooch`.") from error
    cache = Path(os.environ.get("SANDGLASS_CACHE") or platformdirs.user_cache_dir("sandglass"), "mnist")
    failures = []
    pooch.get_logger().setLevel("WARNING")
    for mirror in _MIRRORS:
        try:
            return Path(pooch.retrieve(mirror + name, f"sha256:{_FILES[name][0]}", name, cache))
        except (OSError, ValueError) as error:
            failures.append(" ".join(str(error).split())[:80])
    raise NotFoundError(
        f"'mnist' is not at hand and {name} cannot be downloaded ({failures[-1]}); "
        "set SANDGLASS_DATA to a folder that holds mnist/ with its four .gz files."
    )
