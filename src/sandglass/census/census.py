"""The result of an inspection: facts as plain values, findings as text, and a few pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from sandglass.runs.finding import Finding

FORMAT = 1
"""Version of :meth:`Census.to_dict`; incremented when a key is removed or changes meaning, not when one is added."""

NAMED = 100
"""Largest number of files, pairs or values in a list of the facts; counts include all."""

_ORDER = {"problem": 0, "warning": 1, "info": 2}


@dataclass(frozen=True)
class Sheet:
    """Thumbnails of some pictures of the source, to show side by side.

    Args:
        key: what they have in common: ``"examples"``, ``"near"``, ``"blurred"``, ...
        title: title of the sheet.
        pictures: each ``(H, W, C)`` uint8 with 3 or 4 channels, all of the same shape.
        names: name of each picture.
    """

    key: str
    title: str
    pictures: tuple[npt.NDArray[np.uint8], ...]
    names: tuple[str, ...]


@dataclass(frozen=True)
class Census:
    """The contents of a source and its problems.

    Args:
        name: name of the source, for titles.
        kind: kind of data; ``"nothing"`` if nothing can be read.
        facts: plain values by topic; the page "Data" of the documentation lists them.
        findings: what to know before training, the most severe first.
        sheets: sheets of thumbnails; not part of :meth:`to_dict`.

    Example:
        >>> import numpy as np
        >>> from sandglass.census.take import inspect
        >>> census = inspect(np.zeros((30, 8, 8), np.uint8))
        >>> census.kind, census.facts["examples"], census.findings[0].level
        ('pictures', 30, 'warning')
    """

    name: str
    kind: Literal["pictures", "table", "arrays", "nothing"]
    facts: Mapping[str, Any]
    findings: tuple[Finding, ...]
    sheets: tuple[Sheet, ...] = field(default=(), repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: ``format``, ``name``, ``kind``, ``findings`` and ``facts``."""
        findings = [{"name": f.name, "level": f.level, "message": f.message, "advice": f.advice} for f in self.findings]
        return {
            "format": FORMAT,
            "name": self.name,
            "kind": self.kind,
            "findings": findings,
            "facts": dict(self.facts),
        }


def ordered(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """Findings sorted by severity, the most severe first, otherwise in order.

    Example:
        >>> [f.name for f in ordered([Finding("a", "info", ""), Finding("b", "problem", "")])]
        ['b', 'a']
    """
    return tuple(sorted(findings, key=lambda f: _ORDER[f.level]))


def some(n: int, what: str, plural: str = "") -> str:
    """A count and its noun.

    Example:
        >>> some(1, "picture"), some(1200, "picture"), some(2, "class", "classes")
        ('1 picture', '1,200 pictures', '2 classes')
    """
    return f"{n:,} {what if n == 1 else plural or what + 's'}"


def listed(values: Sequence[Any], few: int = 5) -> str:
    """The first few values, and the number of others.

    Example:
        >>> listed(["a", "b", "c"], 2)
        'a, b and 1 more'
    """
    shown = ", ".join(str(v) for v in values[:few])
    return f"{shown} and {len(values) - few:,} more" if len(values) > few else shown


def sentence(note: str) -> str:
    """A loader's note as a sentence; a file name at its start is not capitalised.

    Example:
        >>> sentence("3 columns one-hot"), sentence("photos.zip was unpacked"), sentence("values were rounded")
        ('3 columns one-hot.', 'photos.zip was unpacked.', 'Values were rounded.')
    """
    first = note.split(" ", 1)[0]
    return f"{note if '.' in first else note[:1].upper() + note[1:]}."
