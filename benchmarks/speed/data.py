"""The pictures of the benchmark, as arrays of bytes that every library reads."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

import sandglass

Pictures = npt.NDArray[np.uint8]


def pictures(count: int, split: str = "train") -> tuple[str, Pictures]:
    """``(count, 1, 28, 28)`` pictures and where they come from, repeated where there are fewer.

    MNIST where ``SANDGLASS_DATA`` has it, else the digits of scikit-learn, enlarged.
    """
    folder = os.environ.get("SANDGLASS_DATA")
    if folder and (Path(folder) / "mnist").is_dir():
        name, x = "MNIST", sandglass.load_data("mnist", validation=0).splits[split].x
    else:
        name, x = "digits of scikit-learn, enlarged", enlarged(sandglass.load_data("digits").splits[split].x)
    found = np.asarray(x[torch.arange(count) % len(x)].numpy(), dtype=np.uint8)
    return name, found


def enlarged(x: Any) -> Any:
    """Pictures ``(N, 1, 8, 8)`` in bytes or [0, 1] at 28 pixels a side, in bytes."""
    unit = x.float() / (float(x.max()) or 1.0)
    return F.interpolate(unit, (28, 28), mode="bilinear").mul(255).round().byte()


def stored(folder: Path, name: str, x: Any) -> Path:
    """Saves an array as a file for the workers."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.npy"
    np.save(path, x)
    return path
