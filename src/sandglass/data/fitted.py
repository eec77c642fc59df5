"""The base of fitted transforms: plain values that are stored with a model as JSON."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar

from torch import Tensor

from sandglass.core import Spec
from sandglass.data.sources import axes
from sandglass.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Transform(abc.ABC):
    """A fitted map from raw data to examples, with an inverse; its fields are plain values.

    Args:
        given: transforms of the companions, by name.
        beside: transforms of the unpaired sets, by name.
        made: for a derived companion, its derivation, such as ``"small=4"``.
        layout: of the array that was handed in, see :data:`sandglass.data.sources.axes.LAYOUTS`; empty for files.
        dtype: its type, such as ``"uint8"``. The inverse has this layout and type.
    """

    kind: ClassVar[str]
    known: ClassVar[dict[str, type[Transform]]] = {}
    given: Mapping[str, Transform] = field(default_factory=dict, hash=False)
    beside: Mapping[str, Transform] = field(default_factory=dict, hash=False)
    made: str = ""
    layout: str = ""
    dtype: str = ""

    def __init_subclass__(cls) -> None:
        Transform.known[cls.kind] = cls

    def __post_init__(self) -> None:
        if self.layout not in ("", *axes.LAYOUTS) or self.dtype not in ("", *axes.DTYPES):
            raise ConfigError(f"An array of layout '{self.layout}' and type '{self.dtype}' cannot be given back.")

    @abc.abstractmethod
    def apply(self, raw: Any) -> Tensor:
        """Converts raw data to the format stored in a :class:`~sandglass.data.dataset.Split`.

        Raises:
            DataError: raw data that does not fit.
        """

    def observe(self, raw: Any) -> tuple[Tensor, Tensor | None]:
        """As :meth:`apply`, with a mask of the same shape, True where observed; None if nothing is missing."""
        return self.apply(raw), None

    @abc.abstractmethod
    def inverse(self, x: Any) -> Any:
        """Converts examples or samples back to raw data."""

    @abc.abstractmethod
    def _spec(self, classes: int) -> Spec:
        """The specification of the transformed examples, without companions and unpaired sets."""

    def spec(self, classes: int = 0) -> Spec:
        """The specification of the transformed data, including companions and unpaired sets."""
        given, beside = ({n: t.spec() for n, t in ts.items()} for ts in (self.given, self.beside))
        return replace(self._spec(classes), given=given, beside=beside)

    def alone(self) -> Transform:
        """The transform of the examples, without those of companions and unpaired sets."""
        return replace(self, given={}, beside={}) if self.given or self.beside else self

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; ``"kind"`` identifies the class."""
        values = {f.name: _plain(getattr(self, f.name)) for f in fields(self) if f.name not in (*_OTHERS, *_WORDS)}
        words = {k: getattr(self, k) for k in _WORDS if getattr(self, k)}
        others = {k: {n: t.to_dict() for n, t in getattr(self, k).items()} for k in _OTHERS if getattr(self, k)}
        return {"kind": self.kind, **values} | words | others

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> Transform:
        """The inverse of :meth:`to_dict`.

        Raises:
            ConfigError: an unknown kind, or keys and values that this kind does not have.

        Example:
            >>> from sandglass.data.transform import ImageTransform
            >>> t = ImageTransform((28, 20), 1)
            >>> Transform.from_dict(t.to_dict()) == t
            True
        """
        values = dict(values)
        kind = values.pop("kind", None)
        make = Transform.known.get(str(kind))
        if make is None:
            raise ConfigError(f"There is no transform '{kind}'. Known: {', '.join(Transform.known)}.")
        known = [f.name for f in fields(make)]
        for key in values:
            if key not in known:
                raise ConfigError(f"The {kind} transform has no '{key}'. It has: {', '.join(known)}.")
        try:
            values |= {k: {str(n): _single(t) for n, t in values[k].items()} for k in _OTHERS if k in values}
            transform: Transform = make(**values)
        except (TypeError, ValueError, AttributeError) as error:
            raise ConfigError(f"The {kind} transform is damaged: {error}") from error
        return transform


_OTHERS, _WORDS = ("given", "beside"), ("made", "layout", "dtype")


def _single(values: Mapping[str, Any]) -> Transform:
    """The transform of a companion or unpaired set, which cannot have companions itself."""
    if set(_OTHERS) & values.keys():
        raise ConfigError("a companion has companions of its own.")
    return Transform.from_dict(values)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value
