"""Names that no file system has, or that no text file takes: one line, or a result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import sandglass
from helpers import Cli
from sandglass.data.load import load_data
from sandglass.engine.train import next_folder
from sandglass.errors import SandglassError

X = np.random.default_rng(0).integers(0, 256, (20, 8, 8), np.uint8)
NAMES = {
    "long": "a" * 400,
    "long file": "a" * 400 + ".png",
    "deep": "a/" * 3000,
    "long user": "~" + "a" * 400,
    "no such user": "~nobody-of-this-name/x",
    "zero": "a\0b",
    "two lines": "a\nb",
    "not unicode": "a\udcff",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "p").mkdir()
    for i in range(4):
        Image.fromarray(X[i]).save(tmp_path / "p" / f"{i}.png")
    return tmp_path / "p"


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_no_file_has_is_one_line(folder: Path, name: str) -> None:
    text = NAMES[name]
    ways: list[Any] = [
        lambda: load_data(text),
        lambda: load_data(Path(text)),
        lambda: load_data([text] * 3),
        lambda: load_data(X, given={"s": text}),
        lambda: load_data(folder, given={"s": text}),
        lambda: load_data(X, beside={"s": text}),
        lambda: load_data(folder, labels=text),
        lambda: sandglass.inspect(text),
        lambda: sandglass.load(text),
        lambda: sandglass.Run(text),
    ]
    for way in ways:
        with pytest.raises(SandglassError) as caught:
            way()
        if way is not ways[-1] and way is not ways[-2]:
            assert "\n" not in str(caught.value)


def test_it_is_one_line_on_the_command_line(cli: Cli) -> None:
    name = NAMES["long"]
    for words in (["train", "vae", "--data", name], ["inspect", name], ["evaluate", name], ["preview", "--data", name],
                  ["compare", name, name], ["reconstruct", name], ["report", name]):  # fmt: skip
        code, _, err = cli(*words)
        assert code == 66 and err.count("\n") == 1 and "too long" in err and len(err) < 200, words


def test_a_name_is_shortened_for_its_folder(folder: Path, tmp_path: Path) -> None:
    for name in ("x" * 250, "ü" * 125, "語" * 80):
        made = next_folder("vae", name, str(tmp_path))
        made.mkdir()
        assert next_folder("vae", name, str(tmp_path)).name == made.name.removesuffix("1") + "2"


def test_a_title_is_printable() -> None:
    assert load_data(X, name="a\udcff\nb").name == "a\\xff\\nb"
