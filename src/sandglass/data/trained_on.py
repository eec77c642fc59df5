"""The data of a run or model folder: reading the same data again, and preprocessing new data in the same way."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sandglass.data.dataset import Dataset
from sandglass.data.load import load_data
from sandglass.data.transform import Transform
from sandglass.errors import CheckpointError, ConfigError, DataError
from sandglass.runs.load import config_of
from sandglass.runs.run import Run
from sandglass.runs.specification import from_plain


def run_data(run: Run) -> Dataset:
    """The data that a run was trained on: what it still has in memory, else read again.

    Raises:
        DataError: it was passed as a Python object; pass it again.
        ConfigError: its options are invalid.
    """
    if run.data is not None:
        known: Dataset = run.data
        return known
    source = run.config["data"].get("source")
    if not source:
        raise DataError(f"The data of {run.path} was passed as a Python object; pass it again as data=...")
    options = {k: v for k, v in source.items() if k != "source"}
    try:
        return load_data(source["source"], **options)
    except (KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"The data options in {run.path / 'config.yaml'} are invalid: {error}.") from error


def transform_of(source: Run | str | Path) -> Transform:
    """The transform of a run or model folder; ``.given[name]`` is that of a companion.

    Raises:
        CheckpointError: the configuration is damaged.
    """
    config = config_of(source)
    path = source.path if isinstance(source, Run) else Path(source)
    try:
        transform, spec = Transform.from_dict(config["transform"]), from_plain(config["spec"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{path}: the configuration has no valid transform ({error}).") from error
    made = transform.spec()
    pairs = [("", made, spec)]
    for kind in ("given", "beside"):  # companions added in training, such as a corrupted copy, have no transform
        read = getattr(spec, kind)
        pairs += [(f" of '{n}'", one, read[n]) for n, one in getattr(made, kind).items() if n in read]
    for what, one, wanted in pairs:
        if one.shape != wanted.shape:
            raise CheckpointError(f"{path}: the transform{what} makes {one.shape}, the model reads {wanted.shape}.")
    return transform


def reading_of(source: Run | str | Path) -> dict[str, Any]:
    """The options of :func:`load_data` to read new data for a run or model folder: transform and classes.

    Derived companions are derived again; others must be given again as ``given``.
    """
    return {"transform": transform_of(source), "classes": config_of(source).get("classes") or None}


def as_dataset(data: Any, options: Mapping[str, Any] | None) -> Dataset:
    """Returns a dataset unchanged, and loads other sources with :func:`load_data`."""
    if isinstance(data, Dataset):
        return data
    if data is None:
        raise ConfigError("Say what to train on: a name from `sandglass datasets`, a folder, a file or an array.")
    return load_data(data, **(options or {}))
