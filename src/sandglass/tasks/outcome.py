"""The outcome of a task, and how it is shown and written: an image grid or images, a table, or NumPy arrays."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sandglass.data.cells import plain
from sandglass.data.pixels import Pixels, png, to_images
from sandglass.data.transform import TableTransform, Transform
from sandglass.errors import ConfigError
from sandglass.tasks import files

IMAGES = (".png", ".jpg", ".jpeg", ".webp")
TABLES = (".csv", ".parquet")
ARRAYS = (".npy", ".npz")


@dataclass(frozen=True)
class Outcome:
    """The result of a task: examples, arrays, or both. A notebook shows it as a picture or a table.

    Args:
        said: short description, such as ``"64 samples"``.
        x: ``(N, *shape)``, the generated examples, on the CPU.
        called: name of the examples in ``x``, such as ``"reconstruction"``.
        before: named inputs ``(N, *shape)`` of each example, shown in the rows above in a grid.
        after: the same, shown in the rows below.
        paired: whether a table also has the rows of ``before`` and ``after``, with a column that names the part.
        masks: masks ``(N, *shape)`` by the name of such a part; cells of a table are empty where it is False.
        columns: N values by name, written before the columns of a table.
        width: examples per row of a grid; by default about a square.
        rows: labels of the rows of a grid.
        names: file names or row labels of the examples; numbers by default.
        arrays: arrays ``(N, ...)`` by name, such as ``codes``.
        classes: class names for class indices in the arrays.
        notes: messages for the user.
        transform: inverts ``x`` to images or rows; a task gives it where it is not that of the model's own examples.
    """

    said: str
    x: Tensor | None = None
    called: str = "x"
    before: Mapping[str, Tensor] = field(default_factory=dict)
    after: Mapping[str, Tensor] = field(default_factory=dict)
    paired: bool = False
    masks: Mapping[str, Tensor] = field(default_factory=dict)
    columns: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    width: int | None = None
    rows: Sequence[str] = ()
    names: Sequence[str] = ()
    arrays: Mapping[str, np.ndarray[Any, Any]] = field(default_factory=dict)
    classes: Sequence[str] = ()
    notes: Sequence[str] = ()
    transform: Transform | None = None

    @property
    def parts(self) -> dict[str, Tensor]:
        """``before``, ``x`` and ``after`` by name, in display order."""
        assert self.x is not None
        return {**self.before, self.called: self.x, **self.after}

    @property
    def examples(self) -> Any:
        """``x`` as it was before it was prepared: a DataFrame with its row labels, an array, or bytes of pictures."""
        assert self.x is not None and self.transform is not None
        found = self.transform.inverse(self.x.detach().cpu())
        return found.set_axis(list(self.names)) if hasattr(found, "set_axis") and self.names else found

    def save(self, out: str | Path) -> Path:
        """Writes it in the format of the suffix: images, a table or arrays.

        Raises:
            ConfigError: the suffix does not match the outcome.
            SaveError: it could not be written.
        """
        assert self.transform is not None
        makes = "arrays" if self.x is None else "examples"
        return write(self, destination(out, "", makes, self.transform))

    def __repr__(self) -> str:
        return f"Outcome({self.said})"

    def _repr_html_(self) -> str:
        """What a notebook shows: the picture or the rows."""
        said = f"<p>{html.escape(self.said)}</p>"
        if self.x is not None and self.transform is not None:
            if _is_image(self.transform):
                data = base64.b64encode(png(picture(self, self.transform))).decode()
                return f'{said}<img src="data:image/png;base64,{data}" alt="{html.escape(self.said)}">'
            if hasattr(rows := self.examples, "_repr_html_"):
                return said + str(rows._repr_html_())
        return said


def destination(out: str | Path | None, default: str, makes: str, transform: Transform, separate: bool = False) -> Path:
    """The output path of an outcome, with a suitable suffix; a folder of single files has none.

    Args:
        out: a file or folder given by the user.
        default: default name without suffix.
        makes: ``"examples"`` or ``"arrays"``.
        transform: of the model.
        separate: whether images are written as separate files.

    Raises:
        ConfigError: the suffix does not match the outcome.
    """
    if makes == "arrays":
        return _named(out, default, ".npz", (".npz", *TABLES), "a table or archive of arrays")
    if separate and not _is_image(transform):
        raise ConfigError("--separate is for images; rows of a table are written to one CSV file.")
    if isinstance(transform, TableTransform):
        return _named(out, default, ".csv", (*TABLES, *ARRAYS), "rows of a table", always=True)
    if not _is_image(transform):
        return _named(out, default, ".npy", ARRAYS, "arrays", always=True)
    if separate or (out and not Path(out).suffix):
        return Path(out) if out else files.free(Path(default))
    return _named(out, default, ".png", (*IMAGES, *ARRAYS), "images")


def _named(
    out: str | Path | None, default: str, suffix: str, known: Sequence[str], what: str, *, always: bool = False
) -> Path:
    path = Path(out) if out else files.free(Path(default + suffix))
    if always and not path.suffix:
        path = path.with_suffix(suffix)
    if path.suffix.lower() not in known:
        listed = f"{', '.join(known[:-1])} or {known[-1]}" if len(known) > 1 else known[0]
        raise ConfigError(f"{path} should end in {listed} for {what}.")
    return path


def _is_image(transform: Transform) -> bool:
    return transform.spec().is_image


def write(outcome: Outcome, path: Path) -> Path:
    """Writes an outcome in the format of the path.

    Args:
        outcome: the outcome of a task, with its transform.
        path: from :func:`destination`.

    Returns:
        The written path.
    """
    ending, transform = path.suffix.lower(), outcome.transform
    assert transform is not None
    if outcome.x is None:
        return _write_arrays(outcome, path)
    if ending in ARRAYS:
        return _write_numbers(outcome, path, transform)
    if isinstance(transform, TableTransform):
        return _write_rows(outcome, path, transform)
    if not ending:
        return files.write_images(path, to_images(outcome.x, transform), file_names(outcome.names))
    return files.write_image(path, picture(outcome, transform))


def picture(outcome: Outcome, transform: Transform) -> Pixels:
    """The examples as one image grid ``(H, W, C)``, with their inputs above and below them."""
    assert outcome.x is not None
    parts = list(outcome.parts.values())
    if len(parts) == 1:
        return files.sheet(transform, parts[0], outcome.width, outcome.rows)
    width = outcome.width or min(len(outcome.x), 20)
    blocks = [part[i : i + width] for i in range(0, len(outcome.x), width) for part in parts]
    return files.sheet(transform, torch.cat(_full(blocks, width)), width)


def _full(blocks: Sequence[Tensor], width: int) -> list[Tensor]:
    """Rows of a grid, with incomplete rows filled with white."""
    return [
        torch.cat([b, torch.ones(width - len(b), *b.shape[1:], dtype=b.dtype)]) if len(b) < width else b for b in blocks
    ]


def _write_numbers(outcome: Outcome, path: Path, transform: Transform) -> Path:
    arrays = {}
    for name, part in outcome.parts.items():
        raw = transform.inverse(part)
        arrays[name] = np.column_stack([plain(raw[c]) for c in raw.columns]) if hasattr(raw, "columns") else raw
        if arrays[name].dtype.kind not in "biuf":  # NumPy would pickle them
            raise ConfigError(
                f"{path} can only hold numbers, and the table has other columns; write a .csv or .parquet."
            )
    if path.suffix.lower() == ".npz" and len(arrays) > 1:
        return files.write_npz(path, arrays)
    return files.write_array(path, arrays[outcome.called])


def _write_rows(outcome: Outcome, path: Path, transform: TableTransform) -> Path:
    assert outcome.x is not None
    columns = dict(outcome.columns)
    if outcome.names:
        name = "row" if "row" not in [c["name"] for c in transform.columns] else "row label"
        columns = {name: outcome.names, **columns}
    if not outcome.paired:
        return files.write_rows(path, transform, outcome.x, columns)
    parts = outcome.parts
    n = len(outcome.x)
    x = torch.stack(list(parts.values()), 1).flatten(0, 1)
    columns = {name: [v for v in values for _ in parts] for name, values in columns.items()}
    columns["which"] = list(parts) * n
    full = torch.ones(outcome.x.shape, dtype=torch.bool)
    mask = torch.stack([outcome.masks.get(name, full) for name in parts], 1).flatten(0, 1) if outcome.masks else None
    return files.write_rows(path, transform, x, columns, mask)


def _write_arrays(outcome: Outcome, path: Path) -> Path:
    """Writes arrays; in a table, 2-D arrays have a column per dimension: ``codes`` become ``z0``, ``z1``, and so on."""
    arrays, classes = dict(outcome.arrays), outcome.classes
    ending = path.suffix.lower()
    if ending == ".npz":
        return files.write_npz(path, arrays | ({"classes": np.array(classes)} if classes else {}))
    flat: dict[str, Sequence[Any]] = {}
    for name, values in arrays.items():
        if values.ndim == 1:
            flat[name] = _words(values) if ending == ".csv" else values.tolist()
            continue
        stem = "z" if name == "codes" else name
        for i, column in enumerate(values.reshape(len(values), -1).T):
            flat[f"{stem}{i}"] = _words(column) if ending == ".csv" else column.tolist()
    if "labels" in flat and classes:
        flat["labels"] = [classes[y] if y >= 0 else "" for y in arrays["labels"].tolist()]
    return files.write_csv(path, flat) if ending == ".csv" else files.write_parquet(path, flat)


def _words(values: np.ndarray[Any, Any]) -> list[Any]:
    """Numbers as text in the precision of their dtype."""
    return [str(v) for v in values] if values.dtype.kind == "f" else values.tolist()


def file_names(names: Sequence[str]) -> list[str]:
    """Unique file names without suffix, from the last path component of each example's source.

    Example:
        >>> file_names(["a/cat.png", "b/cat.png", "b/dog.jpg"])
        ['cat', 'cat-2', 'dog']
    """
    made: dict[str, None] = {}
    for name in names:
        stem = re.sub(r"[^\w.-]+", "-", Path(name).stem).strip(".-") or "example"
        number, candidate = 1, stem
        while candidate in made:
            number += 1
            candidate = f"{stem}-{number}"
        made[candidate] = None
    return list(made)
