"""Loads any supported source as a :class:`~sandglass.data.dataset.Dataset`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from sandglass.data.dataset import Dataset
from sandglass.data.opening import Reading, Splitting
from sandglass.data.transform import Transform


def load_data(
    source: Any,
    *,
    labels: Any = None,
    labels_from_names: str | None = None,
    image: str | None = None,
    name: str | None = None,
    size: Any = None,
    fit: str | None = None,
    channels: int | None = None,
    channels_at: Literal["first", "last"] | None = None,
    value_range: Sequence[float] | None = None,
    on_bad: Literal["skip", "stop"] = "skip",
    validation: float = 0.1,
    test: float | None = None,
    fold: str | None = None,
    seed: int = 0,
    limit: int | None = None,
    labelled: int | None = None,
    cache: bool | None = None,
    types: Mapping[str, str | Sequence[str]] | str | None = None,
    drop: Sequence[str] | str | None = None,
    groups: Any = None,
    given: Mapping[str, Any] | Sequence[str] | str | None = None,
    absent: Mapping[str, Any] | None = None,
    beside: Mapping[str, Any] | Sequence[str] | str | None = None,
    pairs: Literal["left", "right", "top", "bottom", "names"] | None = None,
    transform: Transform | Mapping[str, Any] | None = None,
    classes: Sequence[str] | None = None,
) -> Dataset:
    """Reads a source, splits it and fits its transform.

    Args:
        source: a registered name (``"digits"``), alone or with its options (``{"name": "shapes", "side": 64}``); a
            folder of pictures, flat, with class folders, or with ``train``, ``validation`` and ``test`` folders; a zip
            or tar file of one; a saved Hugging Face dataset; one picture; a ``.npy``, ``.npz``, ``.csv``, ``.tsv``,
            ``.parquet`` or ``.feather`` file; an array or tensor, ``(x, y)``, or ``{"train": (x, y), "test": ...}``; a
            pandas DataFrame; or a dataset, with ``__len__`` and ``__getitem__``, or a list, of arrays, pictures,
            ``(x, y)`` or mappings. ``((x, y), (x2, y2))`` is training and test set, as Keras returns them.
        labels: the name of a table's column, of a key of a dataset's items, or of an array in an ``.npz``; for a folder
            of pictures, ``FILE`` or ``FILE:COLUMN``, a table of file names and classes, such as ``metadata.csv:label``;
            an array ``(N,)``; or False to read none.
        labels_from_names: for a folder of pictures, the pattern of file names with their class, such as
            ``{label}_*.jpg``; ``*`` and ``?`` stand for any characters.
        image: the key of the pictures or arrays in a dataset's items, or the column of pictures in a saved dataset.
        name: name for folders and titles; by default that of the source.
        size: size of pictures in pixels: ``64``, ``(H, W)`` or ``"HxW"``; required if they differ in size.
        fit: how pictures are resized: ``"crop"`` (default), ``"pad"`` or ``"stretch"``.
        channels: 1 (grey), 3 (RGB) or 4 (RGBA); by default 1 if every picture is grey, else 3. For arrays any number;
            it also decides which axis has them, if the shape has two readings.
        channels_at: whether the channels of an array of four dimensions come first, ``(N, C, H, W)``, or last, ``(N, H,
            W, C)``; by default decided by its shape.
        value_range: values mapped to black and white in arrays of pictures, and in grey pictures of floats or of more
            than 8 bits, such as ``(0, 4095)``; by default 0 and the largest value of the type or of the file's bit
            depth; required for pictures of floats.
        on_bad: what to do with pictures that cannot be read: ``"skip"`` leaves them out and lists them, ``"stop"``
            raises an error.
        validation: fraction of the examples held out for validation if the source has no such split; 0 for none.
        test: fraction held out for testing, likewise; None for the default of 0.1.
        fold: for cross-validation, the part held out for validation: ``"2/5"`` is the second of the five parts of
            the examples that are not held out for testing; none for no fold.
        seed: seed of the random split, of ``limit`` and of ``labelled``.
        limit: number of training examples to keep, chosen at random.
        labelled: number of training examples whose labels are kept, as many of each class as can be; those of all
            others and of the validation split are hidden (-1), and test labels stay. For semi-supervised learning.
        cache: whether to cache the decoded pictures of a folder or archive on disk and read batches from there, so
            that they need not fit into memory; by default if they take more than 64 MiB.
        types: kinds of table columns, if not to be inferred from their cells: comma-separated COLUMN=KIND, with the
            kinds numeric, positive, count, categorical, ordinal, boolean and date; COLUMN=S<M<L gives an order.
        drop: columns of a table to leave out, comma-separated.
        groups: the name of a table's column, or an array ``(N,)``; examples with equal values stay in one split.
        given: companions of each example, comma-separated NAME=SOURCE or a mapping: a folder of pictures of the same
            names (source=edges/); an array or table with a row for each example; a table's column, or several joined
            by + (tag=age+town); or a derivation from the picture (grey=grey, edges=edges=0.2, small=small=4). A mapping
            ``{"source": x, "value_range": (0, 4095), "channels_at": "last"}`` has options of its own.
        absent: for companions that are arrays or columns, booleans ``(N,)`` by name, True where an example has none.
        beside: additional sets that are not paired with the examples, comma-separated NAME=SOURCE or a mapping; sources
            as above, read without labels.
        pairs: how a folder holds pairs. "left", "right", "top" or "bottom": each file has two pictures side by side, of
            which this one is the example and the other its companion "source". "names": in a folder with trainA and
            trainB, B's pictures are the examples and A's of the same names their companions "source".
        transform: the transform of a trained model, to preprocess new data in the same way.
        classes: the class names of a trained model, to encode labels in the same way; also those of numbers that are
            classes although most examples have one of their own.

    Returns:
        The dataset. Its ``source`` holds the arguments to read the same data again if the source is a name or path.

    Raises:
        NotFoundError: no such file, folder or name.
        DataError: data that cannot be read, is ambiguous, or does not fit ``transform`` or ``classes``.
        ConfigError: an invalid option.
        MissingPackageError: an optional package is needed.

    Example:
        >>> import numpy as np
        >>> data = load_data(np.random.default_rng(0).integers(0, 256, (50, 28, 20), np.uint8))
        >>> data.spec.shape, {split: len(part) for split, part in data.splits.items()}
        ((1, 28, 20), {'train': 40, 'validation': 5, 'test': 5})
    """
    how = Splitting(validation=validation, test=test, fold=fold, seed=seed, limit=limit, labelled=labelled)
    reading = Reading(
        labels=labels, labels_from_names=labels_from_names, image=image, name=name, size=size, fit=fit,
        channels=channels, channels_at=channels_at, value_range=value_range, on_bad=on_bad, cache=cache, types=types,
        drop=drop, groups=groups, given=given, absent=absent, beside=beside, pairs=pairs, transform=transform,
        classes=classes,
    )  # fmt: skip
    return reading.open(source).split(how)
