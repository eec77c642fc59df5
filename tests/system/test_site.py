"""The documentation as a site: it builds strictly, holds every page, its links lead somewhere, all of it is here."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).resolve().parents[2]

BUILD = """
import doctest, sys
sys.path.insert(0, "docs")
import pages, reference, tables
assert [m.__name__ for m in (pages, reference, tables) if doctest.testmod(m).failed] == []
from mkdocs.__main__ import cli
cli(["build", "--strict", "--quiet", "--site-dir", sys.argv[1]])
"""


class Look(HTMLParser):
    """What a page refers to, what in it can be referred to, and what its navigation lists."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.listed: list[str] = []
        self.names: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {k: v or "" for k, v in attrs}
        self.names.add(given.get("id", ""))
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
            if "md-nav__link" in given.get("class", ""):
                self.listed.append(given["href"])
        elif tag in ("script", "img", "iframe", "link"):
            self.loaded += [v for k, v in given.items() if k in ("src", "href")]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "NO_MKDOCS_2_WARNING": "1"}
    command = [sys.executable, "-c", BUILD, str(folder)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def looks(site: Path) -> dict[Path, Look]:
    return {page: Look(page.read_text(encoding="utf-8")) for page in site.rglob("*.html") if page.name != "404.html"}


def dead(seen: dict[Path, Look]) -> list[str]:
    """Links and files of pages that lead nowhere, or away for something that a page needs."""
    wrong = []
    for page, look in seen.items():
        for target in (*look.links, *look.loaded):
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                wrong += [f"{page.name} loads {target}"] if target in look.loaded else []
                continue
            file = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            if not file.is_file():
                wrong.append(f"{page.name}: {target}")
            elif parts.fragment and file.suffix == ".html" and unquote(parts.fragment) not in seen[file].names:
                wrong.append(f"{page.name}: {target}, no such place on the page")
    return wrong


def test_every_page_is_there_and_in_the_navigation(site: Path) -> None:
    from sandglass import registry

    sources = [page.relative_to(ROOT / "docs").with_suffix("") for page in (ROOT / "docs").rglob("*.md")]
    wanted = {str(page) for page in sources} | {"contributing", "security", "changelog", "reference/library"}
    wanted |= {f"reference/{kind}s" for kind in registry.kinds()}
    seen = looks(site)
    order = [t for t in seen[site / "index.html"].listed if not t.startswith(("#", "."))]
    places = [order.index(t) for t in ("data.html", "metrics/bound.html", "reference/library.html", "changelog.html")]
    assert places == sorted(places) and order.index("reference/library.html") < order.index("reference/metrics.html")
    assert {str(page.relative_to(site).with_suffix("")) for page in seen} == wanted
    for page, look in seen.items():
        listed = {str((page.parent / target).resolve().relative_to(site).with_suffix(""))
                  for target in (urlsplit(t).path for t in look.listed) if target}  # fmt: skip
        assert listed | {str(page.relative_to(site).with_suffix(""))} >= wanted, f"missing beside {page}"


def test_links_lead_somewhere_and_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    seen = looks(site)
    assert sum(len(look.links) for look in seen.values()) > 100
    assert dead(seen) == []
    styles = "".join(file.read_text() for file in site.rglob("*.css"))
    assert re.findall(r"@import|url\(\"?https?:[^)]*", styles) == []


def test_a_link_out_of_the_site_becomes_a_name(site: Path) -> None:
    home = (site / "index.html").read_text()
    assert "core.py (the vocabulary)" in home and '<a href="contributing.html">' in home
    assert "(LICENSE)" in home and 'src="images/report.png"' in home
    assert "(tests/security/test_fuzz.py)" in (site / "promises.html").read_text()


def test_the_reference_is_drawn_from_the_code(site: Path) -> None:
    models = (site / "reference/models.html").read_text()
    for text in ('id="beta-vae"', "<code>latent_dim</code>", "arXiv 1312.6114", '<a href="likelihoods.html">'):
        assert text in models, text
    library = (site / "reference/library.html").read_text()
    for text in ('id="train"', "DivergedError", "<code>init_from</code>", "metrics()"):
        assert text in library, text
    for page in (site / "reference").glob("*.html"):
        assert re.findall(r":(?:func|class|meth|data|mod):|``", page.read_text()) == [], page.name


def test_the_check_of_links_can_find(tmp_path: Path) -> None:
    (tmp_path / "b.html").write_text('<p id="here">')
    page = '<a href="b.html#here"><a href="b.html#there"><a href="c.html"><a href="https://a.org">'
    (tmp_path / "a.html").write_text(page + '<script src="https://a.org/x.js"></script>')
    assert dead(looks(tmp_path.resolve())) == [
        "a.html: b.html#there, no such place on the page",
        "a.html: c.html",
        "a.html loads https://a.org/x.js",
    ]
