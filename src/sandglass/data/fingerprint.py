"""One number that says whether data is the same as it was."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

from sandglass.core import Spec
from sandglass.data.dataset import Split


def fingerprint(spec: Spec, splits: Mapping[str, Split], classes: tuple[str, ...] = ()) -> str:
    """SHA-256 over the spec, the class names, and each split's name, types, shapes, examples, labels and mask.

    Example:
        >>> import torch
        >>> a = {"train": Split(torch.zeros(2, 1, 2, 2, dtype=torch.uint8))}
        >>> len(fingerprint(Spec((1, 2, 2), "unit"), a))
        64
    """
    digest = hashlib.sha256(json.dumps([spec.to_dict(), list(classes)], sort_keys=True).encode())
    for name in sorted(splits):
        split = splits[name]
        for part, tensor in (("x", split.x), ("y", split.y), ("mask", split.mask)):
            if tensor is not None:
                digest.update(f"|{name}.{part} {tensor.dtype} {tuple(tensor.shape)} {split.levels}|".encode())
                digest.update(tensor.contiguous().cpu().numpy().data.cast("B"))
    return digest.hexdigest()
