"""Hooks of MkDocs: which pages the site has, in which order, and where their links lead.

The site is docs/, the four pages beside it (README is its home), and the reference. A folder in docs/ is a section of
its own, headed by the page of the same name where there is one, so that a new page needs no line anywhere. A link to a
file that is not in the site becomes its name, for a copy of the site may stand where there is no source.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

import reference
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
BESIDE = {
    "index.md": "README.md",
    "contributing.md": "CONTRIBUTING.md",
    "security.md": "SECURITY.md",
    "changelog.md": "CHANGELOG.md",
}
"""Pages that stand beside docs/ in the repository; docs/index.md, the list of pages, gives way to the navigation."""
ORDER = ("data", "training", "using", "evaluating", "comparing")
"""The guides in reading order; others follow by their names."""
SECTIONS = ("models", "nets", "likelihoods", "metrics")
"""The sections in their order; others follow by their names, and the reference last."""
LINK = re.compile(
    r"(?P<image>!?)\[(?P<text>[^\]]*)\]\((?P<target>(?!https?:|mailto:|#)[^)#\s]+)(?P<anchor>#[^)\s]*)?\)"
)
FENCED = re.compile(r"(^```.*?^```$)", re.DOTALL | re.MULTILINE)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that docs/ does not hold, and makes the navigation of all."""
    texts = {page: (ROOT / source).read_text(encoding="utf-8") for page, source in BESIDE.items()}
    for page, text in (texts | reference.pages()).items():
        if old := files.get_file_from_path(page):
            files.remove(old)
        files.append(File.generated(config, page, content=text))
    config.nav = navigation([file.src_uri for file in files.documentation_pages()])
    return files


def navigation(pages: list[str]) -> list[object]:
    """The home, then the guides in reading order, then a section for each folder, and the project last.

    Example:
        >>> navigation(["index.md", "sklearn.md", "data.md", "nets.md", "nets/a.md", "metrics/b.md"])[1:-1]
        [{'Guides': ['data.md', 'sklearn.md']}, {'Nets': ['nets.md', 'nets/a.md']}, {'Metrics': ['metrics/b.md']}]
    """
    top = [page.removesuffix(".md") for page in pages if "/" not in page and page not in BESIDE]
    folders = {posixpath.dirname(page) for page in pages} - {""}
    names = (folders | {*SECTIONS} & {*top}) - {"reference"}
    guides = [f"{page}.md" for page in sorted(set(top) - names, key=lambda page: place(page, ORDER))]
    sections = []
    for name in [*sorted(names, key=lambda name: place(name, SECTIONS)), *({"reference"} & folders)]:
        own = [page for page in pages if page == f"{name}.md" or posixpath.dirname(page) == name]
        first = (f"{name}.md", "reference/library.md")
        sections.append({name.capitalize(): sorted(own, key=lambda page: (page not in first, page))})
    project = [page for page in BESIDE if page != "index.md"]
    return ["index.md", {"Guides": guides}, *sections, {"Project": project}]


def place(name: str, order: tuple[str, ...]) -> tuple[int, str]:
    """A key to sort by: the names in ``order`` as they stand there, others after them by the alphabet."""
    return order.index(name) if name in order else len(order), name


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turns the links of a page, which are right in the repository, into links of the site."""
    here = page.file.src_uri
    known = {file.src_uri for file in files}
    parts = FENCED.split(markdown)
    return "".join(p if p.startswith("```") else LINK.sub(lambda m: link(m, here, known), p) for p in parts)


def link(found: re.Match[str], here: str, known: set[str]) -> str:
    """One link in the terms of the site, or the name of what it leads to."""
    if here.startswith("reference/"):
        return found[0]
    folder = posixpath.dirname(BESIDE.get(here, f"docs/{here}"))
    target = posixpath.normpath(posixpath.join(folder, found["target"]))
    pages = {source: page for page, source in BESIDE.items()} | {"docs/index.md": "index.md"}
    there = pages.get(target, target.removeprefix("docs/") if target.startswith("docs/") else "")
    if there in known:
        way = posixpath.relpath(there, posixpath.dirname(here) or ".")
        return f"{found['image']}[{found['text']}]({way}{found['anchor'] or ''})"
    named = posixpath.basename(target) in found["text"] or target in found["text"]
    return found["text"] if named else f"{found['text']} ({target})"
