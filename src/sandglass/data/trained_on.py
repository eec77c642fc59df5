"""What a run or model folder knows of its data: the data again, and how new examples are prepared for it."""

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
    """The data a run was trained on, read again from where it came.

    Raises:
        DataError: it was handed over in Python; pass it again.
        ConfigError: its options make no sense.
    """
    source = run.config["data"].get("source")
    if not source:
        raise DataError(f"The data of {run.path} was handed over in Python; pass it again as data=...")
    options = {k: v for k, v in source.items() if k != "source"}
    try:
        return load_data(source["source"], **options)
    except (KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"The data options in {run.path / 'config.yaml'} make no sense: {error}.") from error


def transform_of(source: Run | str | Path) -> Transform:
    """How a run or model folder prepares a picture or row, and the way back; ``.given[name]`` does so for a companion.

    Raises:
        CheckpointError: the configuration is damaged.
    """
    config = config_of(source)
    path = source.path if isinstance(source, Run) else Path(source)
    try:
        transform, spec = Transform.from_dict(config["transform"]), from_plain(config["spec"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{path}: the configuration has no good transform ({error}).") from error
    made = transform.spec()
    pairs = [("", made, spec)]
    for kind in ("given", "beside"):  # what training adds, such as a damaged copy, has no transform
        read = getattr(spec, kind)
        pairs += [(f" of '{n}'", one, read[n]) for n, one in getattr(made, kind).items() if n in read]
    for what, one, wanted in pairs:
        if one.shape != wanted.shape:
            raise CheckpointError(f"{path}: the transform{what} makes {one.shape}, the model reads {wanted.shape}.")
    return transform


def reading_of(source: Run | str | Path) -> dict[str, Any]:
    """The options of :func:`load_data` that read new data as a run or model folder does: transform and classes.

    Companions that the model derives from its examples are derived again; others come with ``given``, as at first.
    """
    return {"transform": transform_of(source), "classes": config_of(source).get("classes") or None}


def as_dataset(data: Any, options: Mapping[str, Any] | None) -> Dataset:
    """A dataset as it is, or whatever :func:`load_data` makes of the source."""
    if isinstance(data, Dataset):
        return data
    if data is None:
        raise ConfigError("Say what to train on: a name from `sandglass datasets`, a folder, a file or an array.")
    return load_data(data, **(options or {}))
