"""``sandglass inspect``: what is in a source, whatever state it is in, said in words, JSON and one page."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import sandglass
from helpers import pictures as random_pictures
from looking import TABLE, Cli, inspect_command, said, write
from pictures import BAD, GOOD, PASSED_OVER, class_folder, odd_folder, save, scene
from sandglass.census.census import Census
from sandglass.errors import DataError, NotFoundError
from sandglass.reports.census import render_census, write_census
from sandglass.reports.section import Material
from sandglass.reports.sections.data import data_section

HOSTILE = "<img src=x onerror=1>"


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    return inspect_command(capsys, monkeypatch)


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return odd_folder(tmp_path_factory.mktemp("inspect") / "odd")


@pytest.fixture(scope="module")
def odd_census(odd: Path) -> Census:
    return sandglass.inspect(odd)


# --- pictures ---------------------------------------------------------------------------------------------------------


def test_every_file_is_counted_once(odd_census: Census) -> None:
    facts = odd_census.facts
    assert facts["examples"] == GOOD + 8
    assert {f["name"] for f in facts["unreadable"]["files"]} == set(BAD)
    assert {f["name"]: f["reason"] for f in facts["ignored"]["files"]} == PASSED_OVER
    assert facts["ignored"]["count"] == len(PASSED_OVER)


def test_the_naive_ways_miss_it(odd: Path) -> None:
    """The control: following links sees a picture again and again, and ``verify`` passes a cut JPEG."""
    seen = sum(f == "00.png" for _, _, files in os.walk(odd, followlinks=True) for f in files)
    assert seen > 10
    with Image.open(odd / "cut.jpg") as image:
        image.verify()


def test_what_is_odd_is_named(odd_census: Census) -> None:
    facts = odd_census.facts
    assert facts["sizes"] == [{"height": 37, "width": 53, "count": GOOD + 8}], "the turned one is upright"
    assert facts["odd"]["constant"]["files"] == ["flat.png"]
    assert facts["copies"]["exact"]["files"] == [["00.png", "again.png"]]
    assert [(f["a"], f["b"]) for f in facts["copies"]["near"]["files"]] == [("01.png", "lighter.png")]
    assert facts["alpha"] == 1
    assert facts["bits"] == {"8": GOOD + 7, "16": 1}
    assert facts["modes"]["CMYK"] == 1
    remarks = " ".join(facts["remarks"])
    assert all(word in remarks for word in ("EXIF", "CMYK", "16-bit", "several frames"))


def test_nothing_is_changed(tmp_path: Path) -> None:
    folder = odd_folder(tmp_path / "odd")

    def state() -> dict[str, Any]:
        return {
            str(p): (p.lstat().st_mtime_ns, p.read_bytes() if p.is_file() else None)
            for p in sorted(tmp_path.rglob("*"))
        }

    before = state()
    census = sandglass.inspect(folder)
    render_census(census)
    assert state() == before


def test_the_mean_picture_has_the_proportions_of_the_pictures(odd_census: Census) -> None:
    (mean,) = (sheet.pictures[0] for sheet in odd_census.sheets if sheet.key == "mean")
    height, width, _ = mean.shape
    assert height / width == pytest.approx(37 / 53, abs=0.02)


def test_twice_is_the_same(odd: Path, odd_census: Census) -> None:
    again = sandglass.inspect(odd)
    assert again.to_dict() == odd_census.to_dict()
    assert render_census(again) == render_census(odd_census)


def test_leaks_and_balance(tmp_path: Path) -> None:
    folder = class_folder(tmp_path / "pets", {"cat": 3, "dog": 30}, test=4, shared=2)
    census = sandglass.inspect(folder)
    assert census.facts["splits"]["train"] == {"examples": 33, "classes": {"cat": 3, "dog": 30}}
    assert census.facts["copies"]["exact"]["across"] == [{"split": "test", "other": "train", "pictures": 4}]
    words = said(census)
    assert "4 test pictures are also in train." in words["leak-exact"]
    assert "Class 'cat' has 3 pictures, 'dog' 30." in words["balance"]
    assert list(census.facts["splits"]) == ["train", "test"]
    assert census.facts["copies"]["exact"]["files"][0] == ["train/cat/000.png", "test/cat/000.bmp"]


def test_equal_pictures_in_two_classes(tmp_path: Path) -> None:
    for i in range(12):
        save(scene(i), tmp_path / "ab"[i % 2] / f"{i}.png")
    save(scene(0), tmp_path / "b" / "wrong.png")
    assert "a/0.png, b/wrong.png" in said(sandglass.inspect(tmp_path))["conflict"]


def test_several_sizes(tmp_path: Path) -> None:
    for i in range(21):
        save(scene(i, 70 + i % 7, 75), tmp_path / f"{i}.png")
    census = sandglass.inspect(tmp_path)
    words = said(census)["sizes"]
    assert "7 sizes, from 70x75 to 76x75" in words
    assert "--size 64" in words
    with pytest.raises(DataError, match="7 sizes"):  # what training would have said
        sandglass.load_data(tmp_path)
    assert sum(s["count"] for s in census.facts["sizes"]) == 21


def test_dark_bright_clipped_and_blurred(tmp_path: Path) -> None:
    from PIL import ImageFilter

    for i in range(30):
        save(scene(i, 48, 48), tmp_path / f"{i:02}.png")
    black, white = np.zeros((48, 48, 3), np.uint8), np.full((48, 48, 3), 255, np.uint8)
    black[0, 0] = white[0, 0] = 100
    save(black, tmp_path / "black.png")
    save(white, tmp_path / "white.png")
    save(np.where(scene(50, 48, 48) > 128, 255, 40).astype(np.uint8), tmp_path / "clipped.png")
    Image.fromarray(scene(51, 48, 48)).filter(ImageFilter.GaussianBlur(4)).save(tmp_path / "soft.png")
    odd = {k: v["files"] for k, v in sandglass.inspect(tmp_path).facts["odd"].items()}
    assert odd["black"] == ["black.png"]
    assert odd["white"] == ["white.png"]
    assert "clipped.png" in odd["saturated"]
    assert "soft.png" in odd["blurred"]
    assert not any(re.match(r"\d\d\.png", name) for names in odd.values() for name in names)


def test_values_are_those_of_the_pixels(tmp_path: Path) -> None:
    x = np.stack([scene(i) for i in range(10)])
    for i, picture in enumerate(x):
        save(picture, tmp_path / f"{i}.png")
    values = sandglass.inspect(tmp_path).facts["values"]
    assert values["mean"] == pytest.approx((x / 255).mean((0, 1, 2)).tolist(), abs=1e-5)
    assert values["std"] == pytest.approx((x / 255).std((0, 1, 2)).tolist(), abs=1e-5)


@pytest.mark.parametrize("case", ["empty", "broken", "texts", "one broken picture", "no table", "bad array"])
def test_nothing_readable_says_why(case: str, tmp_path: Path, cli: Cli) -> None:
    source: Path = tmp_path / "source"
    if case in ("empty", "broken", "texts"):
        source.mkdir()
    if case == "broken":
        (source / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    elif case == "texts":
        (source / "a.txt").write_text("text")
    elif case == "one broken picture":
        source = write(tmp_path / "a.jpg", "no picture")
    elif case == "no table":
        source = tmp_path / "a.csv"
        source.write_bytes(b"\xff\xfe\x00\x01")
    elif case == "bad array":
        source = write(tmp_path / "a.npy", "no array")
    census = sandglass.inspect(source)
    assert census.kind == "nothing"
    assert census.findings[0].level == "problem"
    assert len(census.findings[0].message) > 20
    code, out, _ = cli(source)
    assert code == 0
    assert "problem" in out
    assert "Traceback" not in out
    assert "<html" in render_census(census)


@pytest.mark.parametrize("name", ["日本 é.png", "-dash.png", "new\nline.png", f"{HOSTILE[:-1]}.png", "b\udcff.png"])
def test_any_name_goes_everywhere(name: str, tmp_path: Path, cli: Cli) -> None:
    save(scene(0), tmp_path / "good.png")
    (tmp_path / "good.png").rename(tmp_path / name)
    (tmp_path / f"x{name}").write_bytes(b"")
    code, out, _ = cli(tmp_path, "--json")
    assert code == 0
    assert json.loads(out)["facts"]["unreadable"]["count"] == 1
    assert cli(tmp_path)[0] == 0
    page = write_census(sandglass.inspect(tmp_path), tmp_path / "page.html").read_bytes().decode()
    assert "<img src=x" not in page


def test_levels_come_in_order(odd_census: Census) -> None:
    levels = [f.level for f in odd_census.findings]
    assert levels == sorted(levels, key=["problem", "warning", "info"].index)


# --- arrays and known sets --------------------------------------------------------------------------------------------


def test_known_set(cli: Cli) -> None:
    code, out, _ = cli("digits", "--json")
    facts = json.loads(out)["facts"]
    assert code == 0
    assert facts["examples"] == 1797
    assert sum(facts["splits"]["train"]["classes"].values()) == 1438
    assert facts["odd"]["saturated"]["count"] == 0, "black and white is no fault in drawings"


@pytest.mark.parametrize(
    ("source", "kind", "examples"),
    [
        (np.zeros((30, 8, 8), np.uint8), "pictures", 30),
        (np.random.default_rng(0).random((30, 3, 8, 9), np.float32), "pictures", 30),
        (np.random.default_rng(0).normal(size=(300, 5)), "table", 300),
        (np.random.default_rng(0).normal(size=(300, 5, 6, 7)), "arrays", 300),
        ((np.random.default_rng(0).integers(0, 2, (30, 8, 8)).astype(bool), np.arange(30) % 3), "pictures", 30),
        (random_pictures(40), "arrays", 50),
    ],
)
def test_arrays(source: Any, kind: str, examples: int) -> None:
    census = sandglass.inspect(source)
    assert (census.kind, census.facts["examples"]) == (kind, examples)
    render_census(census)
    json.dumps(census.to_dict(), allow_nan=False)


def test_what_load_data_refuses_is_a_finding() -> None:
    x = np.random.default_rng(0).normal(size=(40, 3, 4, 5))
    x[7, 1] = np.inf
    census = sandglass.inspect(x)
    assert census.kind == "nothing"
    assert "7" in census.findings[0].message


@pytest.mark.parametrize("form", ["array", "tensor", "file"])
def test_rows_of_numbers_keep_their_gaps(form: str, tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(300, 3))
    x[7, 1] = np.nan
    np.save(tmp_path / "x.npy", x)
    census = sandglass.inspect({"array": x, "tensor": torch.from_numpy(x), "file": tmp_path / "x.npy"}[form])
    assert census.facts["missing"]["cells"] == 1
    assert "Column 'x1' has under 1% missing" in said(census)["missing"]


# --- the three forms --------------------------------------------------------------------------------------------------


def test_text_fits_eighty_columns(odd: Path, tmp_path: Path, cli: Cli) -> None:
    for source in (odd, write(tmp_path / "people.csv", TABLE)):
        code, out, err = cli(source)
        assert code == 0
        assert err == ""
        assert max(map(len, out.splitlines())) <= 80
        assert "\x1b" not in out, "no colours in a pipe"
    assert "warning" in out


def test_json_is_strict_and_its_keys_stay(odd: Path, cli: Cli) -> None:
    def fail(text: str) -> None:
        raise AssertionError(text)

    code, out, _ = cli(odd, "--json")
    found = json.loads(out, parse_constant=fail)
    assert code == 0
    assert list(found) == ["format", "name", "kind", "findings", "facts"]
    assert list(found["findings"][0]) == ["name", "level", "message", "advice"]
    assert set(found["facts"]) == {
        "examples", "splits", "sizes", "formats", "modes", "bits", "alpha", "remarks", "bytes", "values", "odd",
        "copies", "unreadable", "ignored",
    }  # fmt: skip


def test_page_holds_all_it_shows(odd: Path, tmp_path: Path, cli: Cli) -> None:
    code, _, err = cli(odd, "-o", tmp_path / "new" / "page.html")
    assert code == 0
    assert "page.html" in err
    page = (tmp_path / "new" / "page.html").read_text()
    links = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert all(link.startswith(("data:", "#")) for link in links), links
    assert "<script" not in page
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    for word in ("overview", "examples", "copies", "odd", "files"):
        assert word in ids
    assert "cut.jpg" in page


def test_page_escapes_what_a_person_named(tmp_path: Path) -> None:
    for i in range(12):
        save(scene(i), tmp_path / ("a" if i % 2 else HOSTILE) / f"{i}.png")
    census = sandglass.inspect(tmp_path, name=HOSTILE)
    page = render_census(census)
    assert "<img src=x" not in page
    assert "&lt;img src=x" in page
    table = sandglass.inspect(write(tmp_path / "a.csv", f"{HOSTILE},b\n" + "1,<b>\n2,c\n" * 40))
    assert "<img src=x" not in render_census(table)


def test_mistakes_are_one_line(cli: Cli, tmp_path: Path) -> None:
    code, out, err = cli("nowhere")
    assert (code, out) == (NotFoundError.exit_code, "")
    assert err.count("\n") == 1
    tmp_path.joinpath("a").mkdir()
    Image.new("L", (8, 8)).save(tmp_path / "a" / "1.png")
    code, _, err = cli(tmp_path / "a", "--labels", "x")
    assert code == NotFoundError.exit_code and err.count("\n") == 1
    assert err.count("\n") == 1


# --- the report of a run ----------------------------------------------------------------------------------------------


def test_a_run_reports_what_its_data_was(tmp_path: Path) -> None:
    folder = tmp_path / "pets"
    for i in range(30):
        save(scene(i, 16, 16), folder / ("cat" if i % 3 else "dog") / f"{i}.png")
    (folder / "cat" / "broken.png").write_bytes(b"")
    data = sandglass.load_data(folder)
    options = {"latent_dim": 2, "net": {"name": "mlp", "widths": [8]}}
    run = sandglass.train("vae", data, out=tmp_path / "run", epochs=1, threads=1, model_options=options)
    section = data_section(Material(run, run.load_model(), data))
    counts, notes = (table.rows for table in section.tables)
    assert counts[0] == ["train", "24", "8 to 16"]
    assert "broken.png" in " ".join(row[0] for row in notes)
    assert "cat" in section.charts[0].svg
    assert "dog" in section.charts[0].svg
    without = data_section(Material(run, run.load_model(), None))
    assert without.tables[0].rows[0] == ["train", "24"]
    assert without.tables[1].rows == notes
    assert not without.charts
