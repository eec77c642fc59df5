"""MkDocs hooks: the pages of the site, their order, and their links.

The site consists of docs/, four pages of the repository root (README is the home page), and the reference. Each folder
in docs/ is a section, headed by the page of the same name if there is one, so that new pages need no configuration. A
link to a file outside the site is replaced by its name, since the site may be deployed without the source.
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
"""Pages from the repository root; README.md replaces docs/index.md, the list of pages, as the home page."""
ORDER = ("data", "training", "processes", "using", "evaluating", "comparing")
"""The guides in reading order; others follow alphabetically."""
SECTIONS = ("models", "nets", "likelihoods", "metrics")
"""The order of the sections; others follow alphabetically, and the reference is last."""
LINK = re.compile(
    r"(?P<image>!?)\[(?P<text>[^\]]*)\]\((?P<target>(?!https?:|mailto:|#)[^)#\s]+)(?P<anchor>#[^)\s]*)?\)"
)
FENCED = re.compile(r"(^```.*?^```$)", re.DOTALL | re.MULTILINE)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages from outside docs/, and builds the navigation."""
    texts = {page: (ROOT / source).read_text(encoding="utf-8") for page, source in BESIDE.items()}
    for page, text in (texts | reference.pages()).items():
        if old := files.get_file_from_path(page):
            files.remove(old)
        files.append(File.generated(config, page, content=text))
    config.nav = navigation([file.src_uri for file in files.documentation_pages()])
    return files


def navigation(pages: list[str]) -> list[object]:
    """The home page, the guides in reading order, a section for each folder, and the project pages.

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
    """Sort key: names in ``order`` first, in that order, then others alphabetically."""
    return order.index(name) if name in order else len(order), name


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Converts the links of a page, which are valid in the repository, to links of the site."""
    here = page.file.src_uri
    known = {file.src_uri for file in files}
    parts = FENCED.split(markdown)
    return "".join(p if p.startswith("```") else LINK.sub(lambda m: link(m, here, known), p) for p in parts)


def link(found: re.Match[str], here: str, known: set[str]) -> str:
    """A link within the site, or the name of the target if it is outside."""
    if here.startswith("reference/"):
        return found[0]
    folder = posixpath.dirname(BESIDE.get(here, f"docs/{here}"))
    target = posixpath.normpath(posixpath.join(folder, found["target"]))
    pages = {source: page for page, source in BESIDE.items()} | {"docs/index.md": "index.md"}
    page = pages.get(target, target.removeprefix("docs/") if target.startswith("docs/") else "")
    if page in known:
        relative = posixpath.relpath(page, posixpath.dirname(here) or ".")
        return f"{found['image']}[{found['text']}]({relative}{found['anchor'] or ''})"
    named = posixpath.basename(target) in found["text"] or target in found["text"]
    return found["text"] if named else f"{found['text']} ({target})"
