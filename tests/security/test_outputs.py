"""What a person's files are called stays text wherever it is shown, and nothing is sent anywhere."""

from __future__ import annotations

import csv
import shutil
import socket
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from sandglass.app.main import main
from sandglass.runs.run import Run

EVIL = (
    "<img src=x onerror=alert(1)>", '"><script>alert(1)<', "<svg onload=alert(1)>", "a'onmouseover='alert(1)",
    "{{ 7*7 }}", "&lt;b&gt;", "<b>bold<", "javascript:alert(1)",
)  # fmt: skip


_POINTS = ("src", "href", "xlink:href", "action")
_LEADS = ("javascript:", "http", "x")


class Elements(HTMLParser):
    """The elements of a page, with their attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.said = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.said += data

    def live(self) -> list[tuple[str, dict[str, str | None]]]:
        """What would run, or was put there by a name."""
        return [
            (tag, attributes) for tag, attributes in self.found
            if tag in ("script", "iframe", "object", "embed", "link", "base")
            or any(name.startswith("on") for name in attributes)
            or any(str(attributes[k]).strip().lower().startswith(_LEADS) for k in _POINTS if k in attributes)
        ]  # fmt: skip


REFUSED: list[object] = []  # what asked for a network while the run of these tests was made


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run whose data, classes and files all have such names; trained without a network."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("evil")
    for k in range(6):
        for number, name in enumerate(EVIL[:4]):
            place = folder / EVIL[0] / name.replace("/", "_")
            place.mkdir(parents=True, exist_ok=True)
            Image.new("L", (8, 8), 16 * number + 10 * k).save(place / f"{EVIL[k]}-{number}.png")
    words = ["ae", "--data", str(folder / EVIL[0]), "--net", "mlp", "--latent-dim", "2", "--epochs", "2"]
    with pytest.MonkeyPatch.context() as patch:

        def refuse(*words: object, **more: object) -> None:
            REFUSED.append(words)
            raise OSError("there is no network")

        patch.setattr(socket.socket, "connect", refuse)
        patch.setattr(socket, "getaddrinfo", refuse)
        assert main(["train", *words, "--out", str(folder / "run")]) == 0
    return Run(folder / "run")


def test_names_are_text_in_the_report(run: Run) -> None:
    page = Elements((run.path / "report.html").read_text())
    assert page.live() == []
    assert EVIL[0] in page.said and len(page.found) > 50


def test_training_asks_for_no_network(run: Run) -> None:
    assert (run.path / "report.html").is_file() and REFUSED == []


@pytest.mark.parametrize("name", EVIL[:4])
def test_the_check_of_the_page_sees(name: str) -> None:
    """The control: put in as it is, each of the names is an element or a handler."""
    assert Elements(f"<p title='{name}'>{name}</p>").live()


def test_names_are_text_in_figures(run: Run) -> None:
    figures = sorted((run.path / "figures").glob("*.svg"))
    assert figures
    for figure in figures:
        tree = ElementTree.fromstring(figure.read_text())
        elements = [(e.tag.split("}")[-1], e.attrib) for e in tree.iter()]
        assert not [e for e in elements if e[0] in ("script", "foreignObject", "img", "b")]
        assert not [a for _, attributes in elements for a in attributes if a.lower().startswith("on")]


def test_names_come_back_whole_from_a_table(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "codes.csv"
    assert main(["encode", str(run.path), "-o", str(out), "--device", "cpu"]) == 0
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 24 and {r["labels"] for r in rows} == set(EVIL[:4])
    assert all(len(r) == len(rows[0]) and None not in r for r in rows)


def test_the_model_card_holds_no_element(run: Run) -> None:
    card = Elements((run.path / "model" / "README.md").read_text())
    assert [e for e in card.found if e[0] in ("img", "script", "svg", "b")] == []
    shutil.rmtree(run.path / "figures")
