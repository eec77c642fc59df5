"""Writes the tables of the pages in docs/ anew from the registry: ``make tables``.

A table stands between ``<!-- models -->`` and ``<!-- /models -->``, and so for the other kinds. With ``--check``
nothing is written, and a table that is out of date is an error.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from sandglass import recipes as known
from sandglass import registry
from sandglass.data.augment import AUGMENTATIONS
from sandglass.data.corrupt import CORRUPTIONS

ROOT = Path(__file__).resolve().parents[1]
MARKS = re.compile(r"<!-- (?P<kind>[a-z]+) -->\n.*?<!-- /(?P=kind) -->", re.DOTALL)


def models() -> str:
    """Name, what it is, what it needs of the data, what it can do beside sampling."""
    rows = []
    for name in registry.names("model"):
        made = registry.declared(name)
        needs, provides = (" ".join(f"`{word}`" for word in words) for words in (made.needs, made.provides))
        rows.append((f"`{name}`", registry.entry("model", name).summary, needs, provides))
    return table(("model", "what it is", "needs", "offers, beside `sample`"), rows)


def tasks() -> str:
    """Name, what it is, what it asks of the model."""
    rows = []
    for name in registry.names("task"):
        found = registry.entry("task", name)
        rows.append((f"`{name}`", found.summary, " ".join(f"`{c}`" for c in found.make.needs) or "`sample`"))
    return table(("task", "what it does", "of the model"), rows)


def named(kind: str) -> Callable[[], str]:
    """A table of names and what they are."""

    def make() -> str:
        rows = [(f"`{name}`", registry.entry(kind, name).summary) for name in registry.names(kind)]
        return table((kind, "what it is"), rows)

    return make


def datasets() -> str:
    """Name, content, shape, size, licence, source."""
    rows = []
    for name in registry.names("dataset"):
        found = registry.entry("dataset", name)
        shape = "x".join(map(str, found.make.shape))
        rows.append((f"`{name}`", found.summary, shape, found.make.size, found.make.licence, found.make.origin))
    return table(("dataset", "what it is", "shape", "train + test", "licence", "source"), rows)


def augmentations() -> str:
    """Name, what its strength is, and the usual one."""
    rows = [(f"`{name}`", scale.about, f"{scale.usual:g}") for name, scale in AUGMENTATIONS.items()]
    return table(("augmentation", "strength", "usual"), rows)


def corruptions() -> str:
    """Name, what its strength is, the usual one, and what the five severities are."""
    rows = [
        (f"`{name}`", kind.scale.about, f"{kind.scale.usual:g}", ", ".join(f"{s:g}" for s in kind.scale.severities),
         "pictures, rows" if kind.rows else "pictures" if kind.real else "pictures in [0, 1]")
        for name, kind in CORRUPTIONS.items()
    ]  # fmt: skip
    return table(("corruption", "strength", "usual", "`@1` to `@5`", "for"), rows)


def schedules() -> str:
    """Name, what it is, and where it comes to rest with its own options."""
    rows = []
    for name in registry.names("schedule"):
        final = registry.resolve("schedule", name).final
        rows.append((f"`{name}`", registry.entry("schedule", name).summary, "never" if final is None else f"{final:g}"))
    return table(("schedule", "what it is", "comes to rest at"), rows)


def recipes() -> str:
    """Name and summary."""
    return table(("recipe", "what it is"), [(f"`{name}`", known.read(name)["summary"]) for name in known.names()])


TABLES: dict[str, Callable[[], str]] = {
    "models": models,
    "nets": named("net"),
    "likelihoods": named("likelihood"),
    "priors": named("prior"),
    "schedules": schedules,
    "datasets": datasets,
    "metrics": named("metric"),
    "sections": named("section"),
    "tasks": tasks,
    "loggers": named("logger"),
    "features": named("features"),
    "recipes": recipes,
    "augmentations": augmentations,
    "corruptions": corruptions,
}


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    r"""A table in Markdown.

    Example:
        >>> print(table(("a", "b"), [("1", "x|y")]))
        | a | b |
        |---|---|
        | 1 | x\|y |
    """
    lines = [headers, ["---"] * len(headers), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"|{'|'.join(line)}|" if line[0] == "---" else f"| {' | '.join(line)} |" for line in lines)


def renew(text: str) -> str:
    """The page with every table between marks made anew."""
    return MARKS.sub(lambda m: f"<!-- {m['kind']} -->\n{TABLES[m['kind']]()}\n<!-- /{m['kind']} -->", text)


def main(words: Sequence[str]) -> int:
    """Writes or checks every page."""
    stale = []
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))):
        text = page.read_text(encoding="utf-8")
        if (new := renew(text)) != text:
            stale.append(page.name)
            if "--check" not in words:
                page.write_text(new, encoding="utf-8")
    if stale:
        print(f"{'Out of date' if '--check' in words else 'Written'}: {', '.join(stale)}")
    return 1 if stale and "--check" in words else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
