"""Preprocessing of a source: resizing, splitting, limiting the number of examples, and fitting transforms."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sandglass.data import derived
from sandglass.data.dataset import Split
from sandglass.data.fitting import Types
from sandglass.data.rows import Rows
from sandglass.data.sources import axes, tables
from sandglass.data.sources.raw import Raw
from sandglass.data.splits import Fold, carve, duplicates
from sandglass.data.transform import ArrayTransform, ImageTransform, TableTransform, Transform
from sandglass.errors import ConfigError, DataError
from sandglass.rng import permutation

_LOOKED_AT, _EDGE, _TONES = 2**20, 0.1, 0.55  # values; distance from black and white; share of the values


@dataclass(frozen=True)
class Plan:
    """Options of preprocessing and splitting; see :func:`sandglass.load_data`.

    Args:
        size: height and width of pictures.
        fit: how pictures are resized.
        channels: number of channels of pictures.
        validation: fraction of the examples for validation.
        test: fraction of the examples for testing.
        seed: seed of the split.
        limit: number of training examples to keep, or None.
        types: declared kinds of a table's columns.
    """

    size: tuple[int, int] | None
    fit: str | None
    channels: int | None
    validation: float
    test: float
    seed: int
    limit: int | None
    types: Types
    fold: Fold | None = None


def prepare(raw: Raw, plan: Plan, transform: Transform | None, stream: Sequence[str] = ()) -> tuple[Raw, Transform]:
    """Splits and preprocesses a source; returns it with the transform that was applied.

    Args:
        raw: the source.
        plan: the options.
        transform: the fitted transform of a trained model, or None.
        stream: random stream of the split, in addition to the seed.

    Raises:
        DataError: examples that cannot be encoded, or do not fit ``transform``.
        ConfigError: options that do not apply to such data.
    """
    raw = _split(_bring(raw, plan.size, plan.fit, plan.channels, transform), plan, stream)
    train = raw.parts["train"]
    if plan.limit is not None and plan.limit < len(train):
        keep = permutation(len(train), plan.seed, "limit", *stream)[: plan.limit].sort().values
        raw = replace(raw, parts={**raw.parts, "train": train.take(keep)})
        raw = raw.noted(f"{plan.limit} of the training examples were kept")
    elif plan.limit is not None and plan.limit > len(train):
        raw = raw.noted(f"the limit of {plan.limit:,} training examples kept all: there are {len(train):,}")
    return _fit(raw, transform, plan.types)


def prepare_all(raw: Raw, plan: Plan, transform: Transform | None) -> tuple[Raw, Transform, dict[str, Transform]]:
    """As :func:`prepare`, for examples and companions; ``types`` may name columns of both.

    Returns:
        The source, the transform of its examples, and those of its companions by name.
    """
    others = {str(c) for x in raw.parts["train"].given.values() for c in getattr(x, "columns", ())}
    types = {name: kind for name, kind in plan.types.items() if name not in others}
    raw, fitted = prepare(raw, replace(plan, types=types), None if transform is None else transform.alone())
    raw, given = _fit_given(raw, {} if transform is None else transform.given, plan.types)
    return raw, fitted, given | _derive(raw, fitted)


def _fit_given(raw: Raw, known: Mapping[str, Transform], types: Types) -> tuple[Raw, dict[str, Transform]]:
    """Preprocesses the companions of a source; returns it with their transforms.

    Args:
        raw: the source.
        known: transforms of a trained model.
        types: declared kinds of columns.

    Raises:
        DataError: companions that cannot be encoded, or are partly missing.
    """
    found: dict[str, Transform] = {}
    for name, transform in raw.given.items():
        if transform is None:
            try:
                raw, transform = _fit_rows(raw, name, known.get(name), types)
            except DataError as error:
                raise DataError(f"The companion '{name}': {error}") from error
        found[name] = transform
    return raw, found


def _derive(raw: Raw, transform: Transform) -> dict[str, Transform]:
    """The transforms of derived companions.

    Raises:
        DataError: the examples are not pictures, or the derivation does not apply to them.
    """
    found: dict[str, Transform] = {}
    for name, how in raw.made.items():
        made, strength = derived.read(how)
        if not isinstance(transform, ImageTransform):
            raise DataError(f"The companion '{name}': '{how}' needs pictures, which these examples are not.")
        shape = (transform.channels, *transform.size)
        new = made.shape(shape, strength)
        if new == shape and made.levels == transform.levels:
            raise DataError(f"The companion '{name}': '{how}' leaves these pictures unchanged.")
        if min(transform.size) < (strength if made.whole else 1):
            raise DataError(f"The companion '{name}': pictures of {_shape(transform)} are too small for '{how}'.")
        found[name] = replace(
            transform.alone(),
            size=new[1:],
            channels=new[0],
            levels=made.levels,
            continuous=False,
            made=how,
            layout="",
            dtype="",
            value_range=None,
            white=None,
        )  # type: ignore[call-arg]
    return found


def _fit_rows(raw: Raw, name: str, known: Transform | None, types: Types) -> tuple[Raw, Transform]:
    """Preprocesses companions that are rows or arrays of real numbers."""
    xs = {s: p.given[name] for s, p in raw.parts.items()}
    there = {s: (~p.absent[name]).nonzero()[:, 0] for s, p in raw.parts.items()}
    present = {s: x.iloc[there[s].numpy()] if hasattr(x, "iloc") else x[there[s]] for s, x in xs.items()}
    if not len(present["train"]):
        raise DataError("no training example has it.")
    fitted = known
    if fitted is None:
        rows = {s: x if hasattr(x, "columns") else x.numpy() for s, x in present.items()}
        if hasattr(xs["train"], "columns") or xs["train"].dim() == 2:
            own = list(getattr(rows["train"], "columns", ()))
            fitted = tables.fit_table(rows["train"], list(rows.values()), {n: t for n, t in types.items() if n in own})
        else:
            values = rows["train"]
            fitted = _fit_array(values)
        fitted = _in_form(fitted, raw, name)
    parts = {}
    for split, part in raw.parts.items():
        gone = part.absent[name].clone()
        x = torch.zeros(len(part), *fitted.spec().shape)
        if len(there[split]):
            x[there[split]], mask = _observed(fitted, present[split])
            if mask is not None:
                seen = mask.flatten(1)
                gone[there[split]] = ~seen.any(1)
                if lacking := int((seen.any(1) & ~seen.all(1)).sum()):
                    raise DataError(
                        f"{lacking} of its rows in {split} are partly missing; "
                        "fill the missing cells, or empty the whole row to make it absent."
                    )
        parts[split] = replace(part, given={**part.given, name: x}, absent={**part.absent, name: gone})
    return replace(raw, parts=parts), fitted


def as_splits(raw: Raw, transform: Transform, given: Mapping[str, Transform]) -> dict[str, Split]:
    """The splits of a preprocessed source.

    Args:
        raw: the source.
        transform: the transform of its examples.
        given: the transforms of its companions, by name.
    """
    levels = {name: t.levels for name, t in given.items() if isinstance(t, ImageTransform)}
    made = {name: t.made for name, t in given.items() if name in raw.made}
    return {
        s: Split(
            p.x,
            p.y,
            levels=transform.levels if isinstance(transform, ImageTransform) else 256,
            names=p.names,
            factors=p.factors,
            mask=p.mask,
            given=p.given,
            given_levels={name: levels[name] for name in p.given if levels.get(name, 256) != 256},
            absent={name: gone for name, gone in p.absent.items() if gone.any()},
            made=made,
        )
        for s, p in ((s, raw.parts[s]) for s in ("train", "validation", "test") if s in raw.parts)
    }


def _bring(
    raw: Raw, size: tuple[int, int] | None, fit: str | None, channels: int | None, transform: Transform | None
) -> Raw:
    """Converts the pictures of a registered dataset to the requested size and channels, or to a model's transform."""
    old = raw.transform
    if old is None:
        return raw
    if not isinstance(old, ImageTransform):
        if (size, fit, channels) != (None, None, None):
            raise ConfigError("size, fit and channels are for pictures, and this dataset has none; leave them out.")
        if transform is None or transform == old:
            return raw
        parts = {s: replace(p, x=transform.apply(old.inverse(p.x))) for s, p in raw.parts.items()}
        return replace(raw, parts=parts, transform=transform, mixture=None)  # its centres no longer apply
    new = transform
    if new is None:
        if channels != old.channels:
            axes.check_usual(channels)
        size, channels = size or old.size, channels or old.channels
        if (size, channels) == (old.size, old.channels):
            return raw
        new = ImageTransform(size, channels, fit or old.fit)
    if new == old:
        return raw
    if not isinstance(new, ImageTransform):
        raise DataError(
            f"The model reads rows or arrays of shape {new.spec().shape}; got pictures of {old.spec().shape}."
        )
    parts = {}
    for split, part in raw.parts.items():
        pictures = torch.from_numpy(old.pictures(part.x))
        pictures = pictures[:, None] if old.channels == 1 else pictures.movedim(-1, 1)
        parts[split] = replace(part, x=new.apply(pictures))
    note = f"pictures were converted from {_shape(old)} to {_shape(new)} ({new.fit})"
    return replace(raw, parts=parts, transform=new).noted(note)


def _split(raw: Raw, plan: Plan, stream: Sequence[str]) -> Raw:
    """Splits off the validation and test sets that the source lacks from its training examples."""
    train = raw.parts["train"]
    pictures = isinstance(train.x, Tensor | Rows) and train.x.dim() == 4
    groups = duplicates(*(p.x for p in raw.parts.values())) if pictures else None
    if groups is not None:
        raw = raw.noted(*_copies(dict(zip(raw.parts, groups, strict=True))))
    if plan.fold is not None and "validation" in raw.parts:
        raise DataError(
            "fold holds out a part of the training examples for validation, but the data has a split for it."
        )
    wanted = {"validation": plan.validation if plan.fold is None else 1 / plan.fold.of, "test": plan.test}
    fractions = {s: f for s, f in wanted.items() if f > 0 and s not in raw.parts}
    if not fractions:
        return raw
    own = groups[list(raw.parts).index("train")] if groups is not None else None
    own = train.groups if train.groups is not None else own
    if plan.fold is None:
        index = carve(len(train), fractions, plan.seed, train.y, own, stream)
    else:
        index = plan.fold.carve(len(train), fractions.get("test", 0.0), plan.seed, train.y, own, stream)
    carved = {s: train.take(i) for s, i in index.items() if len(i)}
    missing = [s for s in fractions if s not in carved]
    if missing:
        what = "examples" if train.groups is None else "groups"
        raw = raw.noted(
            f"too few {what} ({len(train)} example{'s' * (len(train) != 1)}) to hold out any for "
            f"{' and '.join(missing)}"
        )
    return replace(raw, parts={**raw.parts, **carved})


def _copies(groups: dict[str, Tensor]) -> list[str]:
    """Remarks on exact copies within the training set, and between it and the other splits."""
    notes = []
    train = groups["train"]
    extra = len(train) - len(set(train.tolist()))
    if extra:
        which = "is an exact copy of another" if extra == 1 else "are exact copies of others"
        notes.append(f"{extra} of the training pictures {which}; copies stay in one split")
    for split, other in groups.items():
        if split != "train" and (shared := int(torch.isin(other, train).sum())):
            notes.append(f"{shared} of the {split} pictures are also in train, as in the source")
    return notes


def _fit(raw: Raw, transform: Transform | None, types: Types) -> tuple[Raw, Transform]:
    """Fits the transform to the training examples, unless it is given, and applies it to every split."""
    train = raw.parts["train"]
    table = hasattr(train.x, "columns") or (raw.transform is None and train.x.dim() == 2)
    if types and not hasattr(train.x, "columns"):
        raise ConfigError("types is for the columns of a table; this source has none.")
    if isinstance(raw.transform, ImageTransform):
        tones = has_tones(train.x, raw.transform) if transform is None else getattr(transform, "tones", False)
        return raw, replace(raw.transform, tones=tones)
    if raw.transform is not None:
        return raw, raw.transform
    if transform is not None:
        fitted = transform
        if hasattr(train.x, "columns") and not isinstance(fitted, TableTransform):
            raise DataError("The model does not read tables; give pictures or arrays.")
    elif table:
        rows = {s: p.x if hasattr(p.x, "columns") else p.x.numpy() for s, p in raw.parts.items()}
        fitted = _in_form(tables.fit_table(rows["train"], list(rows.values()), types), raw)
    else:
        fitted = _in_form(_fit_array(train.x.numpy()), raw)
    seen = {s: _observed(fitted, p.x) for s, p in raw.parts.items()}
    if isinstance(fitted, TableTransform):
        masks = {s: mask for s, (_, mask) in seen.items()}
        raw = raw.noted(*tables.remarks(fitted, raw, masks, types, fresh=transform is None))
    parts = {s: replace(p, x=seen[s][0], mask=seen[s][1]) for s, p in raw.parts.items()}
    return replace(raw, parts=parts), fitted


def _observed(fitted: Transform, x: Any) -> tuple[Tensor, Tensor | None]:
    """As :meth:`Transform.observe`; arrays have their channels first here, whatever the layout handed in."""
    return (fitted.stored(x), None) if isinstance(fitted, ArrayTransform) else fitted.observe(x)


def _fit_array(values: np.ndarray[Any, Any]) -> Transform:
    """The transform of real numbers ``(N, *shape)``.

    Raises:
        DataError: they are too large for a mean and a standard deviation.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        mean, scale = float(values.mean()), float(values.std()) or 1.0
    if not (math.isfinite(mean) and math.isfinite(scale)):
        raise DataError(f"values up to {np.abs(values).max():.4g} are too large to be standardised; change their unit.")
    return ArrayTransform(tuple(values.shape[1:]), mean, scale)


def _in_form(transform: Transform, raw: Raw, name: str = "") -> Transform:
    """The transform, with the layout and type of the array that its examples or companions were."""
    form = raw.forms.get(name)
    return transform if form is None else replace(transform, layout=form.layout, dtype=form.dtype)


def has_tones(x: Tensor | Rows, transform: ImageTransform) -> bool:
    """Whether more than half of the values of pictures lie well between black and white, the background left out.

    On ink, print and masks most values are close to 0 or 1, and a Bernoulli suits them; on photographs few are, on
    those of things on a white ground as well. The background is the most common value.

    Args:
        x: stored pictures ``(N, C, H, W)``, of which at most 500 are looked at, fewer where they are large.
        transform: that stored them.

    Example:
        >>> ramp = torch.arange(256, dtype=torch.uint8).expand(4, 1, 1, 256)
        >>> has_tones(ramp, ImageTransform((1, 256), 1)), has_tones(ramp // 128 * 255, ImageTransform((1, 256), 1))
        (True, False)
    """
    count = min(500, max(8, _LOOKED_AT // math.prod(x.shape[1:])))
    some = x[permutation(len(x), 0, "tones")[:count].sort().values].flatten()
    levels = 256 if transform.continuous else transform.levels
    counts = torch.bincount((some * 255).round().to(torch.uint8) if transform.continuous else some, minlength=levels)
    counts[counts.argmax()] = 0
    unit = torch.arange(levels) / (levels - 1)
    return bool(counts[(unit > _EDGE) & (unit < 1 - _EDGE)].sum() > _TONES * counts.sum())


def _shape(transform: ImageTransform) -> str:
    return "x".join(map(str, transform.spec().shape))
