"""scikit-learn's handwritten digits, a real dataset that is included with scikit-learn."""

from __future__ import annotations

import numpy as np
import torch

from sandglass.data.sources.raw import Part, Raw
from sandglass.data.splits import carve
from sandglass.data.transform import ImageTransform
from sandglass.errors import MissingPackageError
from sandglass.registry import register


@register("digits", kind="dataset")
class Digits:
    """Handwritten digits, 8x8 pixels of 17 grey levels, inside scikit-learn; needs no download.

    scikit-learn includes only the test set of the original data, so train and test are a fixed stratified split of it:
    80 and 20 % of each class.
    """

    size = "1,438 + 359"
    shape = (1, 8, 8)
    licence = "CC BY 4.0"
    origin = "E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI 1998, through scikit-learn"

    def read(self) -> Raw:
        """The two splits.

        Raises:
            MissingPackageError: scikit-learn is not installed.
        """
        try:
            from sklearn.datasets import load_digits
        except ImportError as error:
            raise MissingPackageError("'digits' needs scikit-learn; `pip install scikit-learn`.") from error
        bunch = load_digits()
        x = torch.from_numpy(np.asarray(bunch.images, dtype=np.uint8)[:, None].copy())
        y = torch.from_numpy(np.asarray(bunch.target, dtype=np.int64).copy())
        whole = Part(x, y)
        index = carve(len(x), {"test": 0.2}, 0, y)
        parts = {name: whole.take(index[name]) for name in ("train", "test")}
        return Raw(parts, ImageTransform((8, 8), 1, levels=17), classes=tuple("0123456789"))
