"""Opens a source: reads it once, and splits it as often as is asked for."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sandglass.data.beside import read_beside
from sandglass.data.companions import PAIRED, attach, home_of, read_named
from sandglass.data.dataset import Dataset
from sandglass.data.fingerprint import fingerprint
from sandglass.data.fitting import Types, read_types
from sandglass.data.labels import keep_labels
from sandglass.data.matching import Home, Wanted
from sandglass.data.preparing import Plan, as_splits, prepare_all
from sandglass.data.reading import read
from sandglass.data.sources import axes, images, tables
from sandglass.data.sources.raw import Raw, as_known, check_classes
from sandglass.data.splits import Fold
from sandglass.data.transform import FITS, TableTransform, Transform
from sandglass.errors import ConfigError, named_type

TEST = 0.1
"""Default fraction of the examples held out for testing if the source has no test split."""


@dataclass(frozen=True, kw_only=True)
class Splitting:
    """How a source is split; see :func:`sandglass.load_data` for the options.

    Raises:
        ConfigError: an invalid option.
    """

    validation: float = 0.1
    test: float | None = None
    fold: str | None = None
    seed: int = 0
    limit: int | None = None
    labelled: int | None = None

    def __post_init__(self) -> None:
        for what, share in (("validation", self.validation), ("test", 0.0 if self.test is None else self.test)):
            if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share < 1:
                raise ConfigError(f"{what} must be a fraction of the examples from 0 to below 1, not {share!r}.")
        if self.validation + (TEST if self.test is None else self.test) >= 1:
            raise ConfigError(
                f"validation {self.validation} and test {self.test} leave nothing to train on; make them smaller."
            )
        for what, count in (("limit", self.limit), ("labelled", self.labelled)):
            if count is not None and (not isinstance(count, int) or isinstance(count, bool) or count < 1):
                raise ConfigError(f"{what} must be a whole number of at least 1, not {count!r}.")
        if not isinstance(self.seed, int) or not math.isfinite(self.seed):
            raise ConfigError(f"seed must be a whole number, not {self.seed!r}.")
        if self.folded and self.validation != 0.1:
            raise ConfigError("fold decides which examples are held out for validation; leave validation out.")

    @property
    def folded(self) -> Fold | None:
        """The fold; None for none."""
        return Fold.read(self.fold) if self.fold and self.fold != "none" else None


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How a source is read and preprocessed; see :func:`sandglass.load_data` for the options."""

    labels: Any = None
    labels_from_names: str | None = None
    image: str | None = None
    name: str | None = None
    size: Any = None
    fit: str | None = None
    channels: int | None = None
    channels_at: Any = None
    value_range: Sequence[float] | None = None
    on_bad: str = "skip"
    cache: bool | None = None
    types: Mapping[str, str | Sequence[str]] | str | None = None
    drop: Sequence[str] | str | None = None
    groups: Any = None
    given: Mapping[str, Any] | Sequence[str] | str | None = None
    absent: Mapping[str, Any] | None = None
    beside: Mapping[str, Any] | Sequence[str] | str | None = None
    pairs: Any = None
    transform: Transform | Mapping[str, Any] | None = None
    classes: Sequence[str] | None = None

    def open(self, source: Any) -> Opened:
        """Reads a source.

        Raises:
            NotFoundError, DataError, ConfigError, MissingPackageError: as :func:`sandglass.load_data`.
        """
        known = Transform.from_dict(self.transform) if isinstance(self.transform, Mapping) else self.transform
        if known is not None and not isinstance(known, Transform):
            raise ConfigError(f"transform is that of a trained model, transform_of(run), not {named_type(known)}.")
        size, span = _parse_size(self.size), images.check_range(self.value_range)
        _check(self)
        if known is not None and (size, self.fit, self.channels, span) != (None, None, None, None):
            raise ConfigError(
                "size, fit, channels and value_range belong to the transform that is given; leave them out."
            )
        if known is not None and self.types is not None:
            raise ConfigError("The transform that is given fixes the types of its columns; leave types out.")
        types = read_types(self.types)
        pictured = {"value_range": span, "on_bad": self.on_bad}
        home, own = home_of(source, self.pairs)
        sets = read_named("beside", self.beside)
        if home is not None and home.domain and self.pairs is None:
            sets = {"b": replace(home, domain="b")} | sets
        layout = {k: v for k, v in (("half", home.half), ("domain", home.domain)) if v} if home is not None else {}
        options = {"size": size, "fit": self.fit, "channels": self.channels, "transform": _for_reading(known)}
        arrays = {"value_range": span, "channels_at": self.channels_at}
        named = {"labels_from_names": self.labels_from_names, "image": self.image}
        labels = os.fspath(self.labels) if isinstance(self.labels, os.PathLike) else self.labels
        title, where, raw = read(source, labels, options, pictured | layout, self.cache, arrays, **named)
        wanted = Wanted(
            _named(self.given, own, self.pairs, known),
            read_named("absent", self.absent),
            home,
            {"size": size, "fit": self.fit, "channels_at": self.channels_at} | pictured,
            self.cache,
            None if known is None else known.given,
        )
        if self.classes is None and raw.mixture is None:
            raw = check_classes(raw, self._labels(raw))
        raw, others = attach(as_known(raw, self.classes or (), self._labels(raw)), wanted)
        raw = tables.arrange(raw, self.drop, self.groups)
        return Opened(self, title, where, raw, others, sets, known, size, span, types)

    def _labels(self, raw: Raw) -> str:
        """The option that names the labels; empty if the source has them by itself."""
        if self.labels_from_names is not None:
            return f"labels_from_names='{self.labels_from_names}'"
        if isinstance(self.labels, str | os.PathLike):
            return f"labels='{raw.labels or self.labels}'"
        return "" if self.labels is None or isinstance(self.labels, bool) else "labels"


@dataclass(frozen=True)
class Opened:
    """A source that has been read.

    Args:
        reading: the options it was read with.
        title: its name.
        where: its name or path, None for a Python object.
        raw: its examples.
        others: the locations of its companions, None if some were passed as Python objects.
        sets: its unpaired sets.
        transform: of a trained model, or None.
        size: height and width of pictures.
        span: values of black and white.
        types: declared kinds of columns.
    """

    reading: Reading
    title: str
    where: str | dict[str, Any] | None
    raw: Raw
    others: dict[str, Any] | None
    sets: Mapping[str, Any]
    transform: Transform | None
    size: tuple[int, int] | None
    span: tuple[float, float] | None
    types: Types

    def split(self, how: Splitting) -> Dataset:
        """Splits the source and fits its transform.

        Raises:
            DataError, ConfigError: as :func:`sandglass.load_data`.
        """
        asked, transform = self.reading, self.transform
        plan = Plan(
            self.size,
            asked.fit,
            asked.channels,
            how.validation,
            TEST if how.test is None else how.test,
            how.seed,
            how.limit,
            self.types,
            how.folded,
        )
        raw, fitted, companions = prepare_all(self.raw, plan, transform)
        if how.labelled is not None:
            raw = keep_labels(raw, how.labelled, how.seed)
        pictured = {"value_range": self.span, "on_bad": asked.on_bad, "channels_at": asked.channels_at}
        besides = read_beside(self.sets, plan, pictured, asked.cache, transform)
        every = [fitted, *companions.values(), *(b.transform for b in besides.values())]
        if self.span is not None and all(getattr(t, "value_range", None) is None for t in every):
            raise ConfigError(
                "value_range is for pictures in files and arrays; rows, tables and known datasets have none."
            )
        layouts = [form.layout for form in raw.forms.values()]
        layouts += [getattr(b.transform, "layout", "") for b in besides.values()]
        if asked.channels_at is not None and all(len(layout) != 4 for layout in layouts):
            raise ConfigError("channels_at is for arrays of four dimensions; leave it out.")
        splits = {
            s: replace(p, beside={n: b.splits[s] for n, b in besides.items() if s in b.splits})
            for s, p in as_splits(raw, fitted, companions).items()
        }
        whole = replace(fitted, given=companions, beside={n: b.transform for n, b in besides.items()})
        spec = whole.spec(len(raw.classes))
        sources = {n: b.source for n, b in besides.items()}
        notes = [f"unpaired set '{n}': {note}" for n, b in besides.items() for note in b.notes]
        return Dataset(
            images.shown(str(asked.name)) if asked.name else self.title,
            spec,
            whole if transform is None else transform,
            splits,
            classes=raw.classes,
            source=self._again(how, sources, raw.labels),
            fingerprint=fingerprint(spec, splits, raw.classes),
            notes=(*raw.notes, *notes, *_left_out(transform, companions, besides)),
            factors=raw.factors,
            bad=(*raw.bad, *((f"{n}: {file}", why) for n, b in besides.items() for file, why in b.bad)),
            mixture=raw.mixture,
        )

    def _again(self, how: Splitting, sources: Mapping[str, Any], labels: str) -> dict[str, Any] | None:
        """The arguments of :func:`sandglass.load_data` to read the same data again, None for Python objects.

        Args:
            how: how it was split.
            sources: the paths or names of the unpaired sets, None for Python objects.
            labels: the option ``labels``, if it was not the given one.
        """
        asked, size = self.reading, self.size
        python = self.others is None or bool(asked.absent) or None in sources.values()
        if not isinstance(asked.labels, str | os.PathLike | bool | None) or not isinstance(asked.groups, str | None):
            return None
        if self.where is None or python:
            return None
        said = {
            "labels": labels or asked.labels, "labels_from_names": asked.labels_from_names, "image": asked.image,
            "name": asked.name, "size": list(size) if size else None, "fit": asked.fit, "channels": asked.channels,
            "channels_at": asked.channels_at, "value_range": list(self.span) if self.span else None,
            "on_bad": asked.on_bad, "validation": how.validation, "test": how.test,
            "fold": how.fold if how.folded else None, "seed": how.seed, "limit": how.limit,
            "labelled": how.labelled, "cache": asked.cache,
            "types": self.types or None,
            "drop": list(asked.drop) if isinstance(asked.drop, list | tuple) else asked.drop,
            "groups": asked.groups, "given": self.others or None, "pairs": asked.pairs,
            "beside": {n: source for n, source in sources.items() if not isinstance(self.sets[n], Home)} or None,
            "transform": None if self.transform is None else self.transform.to_dict(),
            "classes": list(asked.classes) if asked.classes else None,
        }  # fmt: skip
        usual = {"validation": 0.1, "seed": 0, "on_bad": "skip"}
        return {"source": self.where} | {k: v for k, v in said.items() if v != usual.get(k)}


def _named(given: Any, own: Home | None, pairs: str | None, model: Transform | None) -> dict[str, Any]:
    """The sources of companions by name, including that in the source itself."""
    named = read_named("given", given)
    if own is None:
        return named
    if PAIRED in named:
        raise ConfigError(f"pairs='{pairs}' already gives the companion '{PAIRED}'; use other names for others.")
    known = model is None or PAIRED in model.given  # else the model was trained on one picture of each pair
    return ({PAIRED: own} if known else {}) | named


def _left_out(model: Transform | None, given: Mapping[str, Any], beside: Mapping[str, Any]) -> list[str]:
    """Remarks on companions and unpaired sets that a trained model was trained with and this data lacks."""
    if model is None:
        return []
    notes = [
        f"the model was trained with a companion '{n}', which was not given" for n in model.given if n not in given
    ]
    return notes + [
        f"the model was trained with an unpaired set '{n}', which was not given"
        for n in model.beside
        if n not in beside
    ]


def _for_reading(transform: Transform | None) -> Transform | None:
    """The transform passed to a reader; only that of a table keeps its companions, which are columns of the table."""
    return transform if transform is None or isinstance(transform, TableTransform) else transform.alone()


def _parse_size(size: Any) -> tuple[int, int] | None:
    """``64``, ``"64"``, ``"48x64"`` or ``(48, 64)`` as height and width."""
    if size is None:
        return None
    values = size.lower().split("x") if isinstance(size, str) else [size] if np.ndim(size) == 0 else list(size)
    try:
        numbers = [int(v) for v in values]
        if any(float(v) != n for v, n in zip(values, numbers, strict=True)):
            raise ValueError
    except (TypeError, ValueError):
        numbers = []
    if len(numbers) not in (1, 2) or min(numbers) < 1:
        raise ConfigError(f"size must be pixels, such as 64, '48x64' or (48, 64) for height and width, not {size!r}.")
    return numbers[0], numbers[-1]


def _check(asked: Reading) -> None:
    if asked.fit is not None and asked.fit not in FITS:
        raise ConfigError(f"fit must be one of {', '.join(FITS)}, not {asked.fit!r}.")
    count = asked.channels
    if count is not None and (isinstance(count, bool) or not isinstance(count, int) or count < 1):
        raise ConfigError(f"channels must be a whole number of at least 1, such as 3, not {count!r}.")
    if asked.on_bad not in ("skip", "stop"):
        raise ConfigError(f"on_bad must be skip or stop, not {asked.on_bad!r}.")
    axes.check_axis(asked.channels_at)
