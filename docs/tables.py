"""Updates the tables of the pages in docs/ from the registry: ``make tables``.

A table is placed between ``<!-- models -->`` and ``<!-- /models -->``, and likewise for other kinds. With ``--check``
nothing is written, and an outdated table is an error.
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
    """Name, summary, data requirements, and capabilities besides sampling."""
    rows = []
    for name in registry.names("model"):
        made = registry.declared(name)
        needs, provides = (" ".join(f"`{word}`" for word in words) for words in (made.needs, made.provides))
        rows.append((f"`{name}`", registry.entry("model", name).summary, needs, provides))
    return table(("model", "what it is", "needs", "offers, besides `sample`"), rows)


def tasks() -> str:
    """Name, summary, and required model capabilities."""
    rows = []
    for name in registry.names("task"):
        found = registry.entry("task", name)
        rows.append((f"`{name}`", found.summary, " ".join(f"`{c}`" for c in found.make.needs) or "`sample`"))
    return table(("task", "what it does", "requires"), rows)


def named(kind: str) -> Callable[[], str]:
    """A function that makes the table of names and summaries of a kind."""

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
    """Name, meaning of the strength, and its default."""
    rows = [(f"`{name}`", scale.about, f"{scale.usual:g}") for name, scale in AUGMENTATIONS.items()]
    return table(("augmentation", "strength", "default"), rows)


def corruptions() -> str:
    """Name, meaning of the strength, its default, the five severities, and the supported data."""
    rows = [
        (f"`{name}`", kind.scale.about, f"{kind.scale.usual:g}", ", ".join(f"{s:g}" for s in kind.scale.severities),
         "images, rows" if kind.rows else "images" if kind.real else "images in [0, 1]")
        for name, kind in CORRUPTIONS.items()
    ]  # fmt: skip
    return table(("corruption", "strength", "default", "`@1` to `@5`", "for"), rows)


def schedules() -> str:
    """Name, summary, and final value with default options."""
    rows = []
    for name in registry.names("schedule"):
        final = registry.resolve("schedule", name).final
        rows.append((f"`{name}`", registry.entry("schedule", name).summary, "none" if final is None else f"{final:g}"))
    return table(("schedule", "what it is", "final value"), rows)


def recipes() -> str:
    """Name and summary."""
    return table(("recipe", "what it is"), [(f"`{name}`", known.read(name)["summary"]) for name in known.names()])


TABLES: dict[str, Callable[[], str]] = {
    "models": models,
    "nets": named("net"),
    "likelihoods": named("likelihood"),
    "posteriors": named("posterior"),
    "priors": named("prior"),
    "samplers": named("sampler"),
    "quantisers": named("quantiser"),
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
    """The page with all tables updated."""
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
