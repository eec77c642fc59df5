"""The configuration of a run: the model, the data, the options and the environment."""

from __future__ import annotations

import csv
import io
import os
import platform
from collections.abc import Mapping
from typing import Any

import torch

import sandglass
from sandglass import registry
from sandglass.core import Model
from sandglass.data.dataset import Dataset
from sandglass.engine.options import Training
from sandglass.runs import storage
from sandglass.runs.run import Run
from sandglass.runs.specification import to_plain

BAD_FILES = "bad_files.csv"
"""File in the run folder that lists the source files left out of the data, and why."""


def describe(model: Model, data: Dataset, training: Training, recipe: str | None) -> dict[str, Any]:
    """The complete configuration of a run, in plain values."""
    return {
        "format": 2,
        "model": model.config,
        "data": {
            "name": data.name,
            "source": dict(data.source) if data.source else None,
            "fingerprint": data.fingerprint,
            "examples": {name: len(split) for name, split in data.splits.items()},
            "notes": list(data.notes),
        },
        "training": training.to_dict(),
        "recipe": recipe,
        "imports": registry.origins(model.config),
        "spec": to_plain(model.spec),
        "transform": data.transform.to_dict(),
        "classes": list(data.classes),
        "environment": environment(),
    }


def write_bad_files(run: Run, data: Dataset) -> None:
    """Lists the files that were left out of the data, each with its reason, in ``bad_files.csv``, if there are any."""
    if data.bad:
        lines = io.StringIO(newline="")
        csv.writer(lines).writerows([("path", "reason"), *data.bad])
        storage.write_file(run.path / BAD_FILES, lines.getvalue().encode())


def environment() -> dict[str, Any]:
    """The versions and the machine, as far as results depend on them."""
    import numpy

    values = {
        "sandglass": sandglass.__version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": numpy.__version__,
        "machine": platform.machine(),
        "system": platform.system(),
        "cores": os.cpu_count(),
    }
    return values | ({"gpu": torch.cuda.get_device_name()} if torch.cuda.is_available() else {})


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The differences between two environments, one line each."""
    return [f"{k} was {before.get(k)}, is {v}" for k, v in now.items() if before.get(k) != v]
