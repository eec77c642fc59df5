"""One example by its file, its name or its number."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from sandglass.data.dataset import Split
from sandglass.data.reading import is_unnamed
from sandglass.data.trained_on import new_data
from sandglass.errors import ConfigError, DataError, NotFoundError
from sandglass.registry import nearest
from sandglass.runs.storage import is_there
from sandglass.tasks.trained import Source, Trained


def picked(which: str | int, trained: Trained, source: Source, split: str | None) -> Split:
    """A split with one example.

    Args:
        which: a number in the split, a file with one example, or the name of an example: its file's path in the data,
            or the end of that path, with or without the suffix.
        trained: the model, which decides how a file is prepared.
        source: the examples.
        split: name of the split; by default test for a number, and all for a name.

    Raises:
        ConfigError: the name is empty.
        NotFoundError: there is no such file or example.
        DataError: there are several examples of that name, or in that file.
    """
    text = str(which)
    if not text.strip():
        raise ConfigError("An example is named by a file, its name or its number; an empty name was given.")
    number = int(text) if text.isdecimal() and str(int(text)) == text else None  # 003 is a name
    if number is None and is_there(text):
        labels = source.changes["labels"]  # a text is for the data
        found = new_data(trained.reading, text, labels=None if labels and is_unnamed(text) else labels).train
        if len(found) != 1:
            raise DataError(f"{text} has {len(found):,} examples; name a file with one.")
        return found if found.y is not None else _labelled(found, Path(text), trained)
    every = source.examples(trained, split or (None if number is not None else "all"))
    if number is not None:
        if number >= len(every):
            raise NotFoundError(f"There is no example {text}: they are numbered from 0 to {len(every) - 1:,}.")
        return every.take(torch.tensor([number]))
    places = [k for k, name in enumerate(every.names) if name == text]
    places = places or [k for k, name in enumerate(every.names) if _ends(name, text)]
    if len(places) > 1:
        raise DataError(
            f"'{text}' is the name of {len(places)} examples, such as {every.names[places[1]]}; give more of it."
        )
    if not places:
        numbers = f" These examples have no names, only numbers from 0 to {len(every) - 1:,}."
        has = "" if every.names else numbers
        hint = nearest(text, [Path(name).name for name in every.names])
        raise NotFoundError(f"There is no file {text}, and no example of that name.{hint or has}")
    return every.take(torch.tensor(places))


def _labelled(found: Split, file: Path, trained: Trained) -> Split:
    """A file's example with the class that its folder is named after, for a model that needs one.

    Raises:
        DataError: the folder has no name of a class.
    """
    if "labels" not in trained.model.conditions:
        return found
    folder = file.absolute().parent.name
    if folder not in trained.classes:
        raise DataError(
            f"The model '{trained.model.config['name']}' needs the class of {file}: put it into a folder of that name, "
            f"one of {', '.join(trained.classes[:20])}, or give the number of an example."
        )
    return replace(found, y=torch.tensor([trained.classes.index(folder)]))


def _ends(name: str, text: str) -> bool:
    """Whether a path ends with these parts, with or without its suffix.

    Example:
        >>> _ends("photos/cat/1.png", "cat/1"), _ends("photos/cat/1.png", "1.png"), _ends("photos/cat/11.png", "1.png")
        (True, True, False)
    """
    own, parts = Path(name), Path(text).parts
    return bool(parts) and any(path.parts[-len(parts) :] == parts for path in (own, own.with_suffix("")))
