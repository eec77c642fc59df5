"""What a look at a source found: facts in plain values, findings in plain words, and a few of its pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from sandglass.runs.finding import Finding

FORMAT = 1
"""Of :meth:`Census.to_dict`; it grows when a key goes or changes its meaning, not when one is added."""

NAMED = 100
"""At most so many files, pairs or values are named in one list of the facts; counts are always of all."""

_ORDER = {"problem": 0, "warning": 1, "info": 2}


@dataclass(frozen=True)
class Sheet:
    """Some pictures of the source, small, to be shown side by side.

    Args:
        key: what they have in common, in one word: ``"examples"``, ``"near"``, ``"blurred"``, ...
        title: the same for a person.
        pictures: each ``(H, W, C)`` uint8, 3 channels or 4, all of one shape.
        names: one a picture.
    """

    key: str
    title: str
    pictures: tuple[npt.NDArray[np.uint8], ...]
    names: tuple[str, ...]


@dataclass(frozen=True)
class Census:
    """What is in a source.

    Args:
        name: of the source, for titles.
        kind: what the source holds; ``"nothing"`` where nothing in it can be read.
        facts: plain values by topic; the page "Data" of the documentation lists them.
        findings: what a person should know before training, the gravest first.
        sheets: pictures to look at; not part of :meth:`to_dict`.

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
    """The gravest first, otherwise as they come.

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
    """The first few, and how many more there are.

    Example:
        >>> listed(["a", "b", "c"], 2)
        'a, b and 1 more'
    """
    shown = ", ".join(str(v) for v in values[:few])
    return f"{shown} and {len(values) - few:,} more" if len(values) > few else shown


def sentence(note: str) -> str:
    """A note of a loader as a sentence; a file's name in front stays as it is.

    Example:
        >>> sentence("3 columns one-hot"), sentence("photos.zip was unpacked"), sentence("values were rounded")
        ('3 columns one-hot.', 'photos.zip was unpacked.', 'Values were rounded.')
    """
    first = note.split(" ", 1)[0]
    return f"{note if '.' in first else note[:1].upper() + note[1:]}."
