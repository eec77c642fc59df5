"""Labels that are different for most examples: numbers are no classes, unless a person insists; some texts are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import sandglass
from sandglass.app.main import main
from sandglass.data import opening, trained_on
from sandglass.data.load import load_data
from sandglass.data.trained_on import find_data, new_data, reading_of, run_data
from sandglass.errors import DataError, NotFoundError
from sandglass.estimator import GenerativeModel
from sandglass.runs.run import Run


def flat(folder: Path, name: Callable[[int], str] = lambda i: f"{i:03}.png", count: int = 60) -> Path:
    """A folder of grey pictures, with names by number."""
    chance = np.random.default_rng(0)
    for i in range(count):
        path = folder / name(i)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(chance.integers(0, 256, (8, 8), np.uint8)).save(path)
    return folder


def whole(source, **options):
    return load_data(source, validation=0, test=0, **options)


def test_numbers_of_each_picture_are_not_classes(tmp_path: Path) -> None:
    names = [f"{i:03}.png" for i in range(60)]
    folder = flat(tmp_path / "p", count=60)
    pd.DataFrame({"file": names, "age": range(60), "code": [f"x{i}" for i in range(60)]}).to_csv(folder / "m.csv")
    x = np.zeros((60, 8, 8), np.uint8)
    options: list[tuple[object, dict, str]] = [(folder, {"labels": "m.csv:age"}, "labels='m.csv:age'")]
    options += [(folder, {"labels_from_names": "{label}.png"}, r"labels_from_names='\{label\}.png'")]
    options += [(x, {"labels": np.arange(60)}, "labels"), (np.zeros((1200, 2)), {"labels": np.arange(1200)}, "labels")]
    for source, option, named in options:
        out = "leave labels_from_names out" if "labels_from_names" in option else "labels=False"
        texts = "" if isinstance(source, np.ndarray) and len(source) > 1000 else " 'id 0+', .*"
        says = rf"^{named}: [\d,]+ different labels for [\d,]+ examples, such as .*{out}.*{texts}classes=\["
        with pytest.raises(DataError, match=says) as caught:
            whole(source, **option)
        assert "\n" not in str(caught.value)
        count = len(source) if isinstance(source, np.ndarray) else 60
        chosen = [f"{i:03}" if "labels_from_names" in option else str(i) for i in range(count)]
        assert whole(source, **option, classes=chosen).classes == tuple(chosen), "a person may insist"
    with pytest.raises(DataError, match=r"^1,200 different labels"):
        whole((np.zeros((1200, 2)), np.arange(1200)))


def test_texts_of_each_picture_are_noted(tmp_path: Path) -> None:
    folder = flat(tmp_path / "p", count=60)
    names = [f"{i:03}.png" for i in range(60)]
    pd.DataFrame({"file": names, "code": [f"x{i}" for i in range(60)]}).to_csv(folder / "m.csv")
    persons = [f"person {i}" for i in range(1000)]
    x = np.zeros((1000, 2))
    options: list[tuple[object, dict]] = [
        (folder, {"labels": "m.csv:code"}),
        (x, {"labels": persons}),
        ((x, persons), {}),
    ]
    for source, option in options:
        found = whole(source, **option)
        assert len(found.classes) == len(found.train) and any("different labels" in note for note in found.notes)
    one = flat(tmp_path / "q", lambda i: f"{i}/a.png", count=60)
    assert any("60 different labels" in note for note in whole(one).notes), "class folders are only noted"
    assert not whole(flat(tmp_path / "r", lambda i: f"{i % 30}/{i}.png", count=60)).notes


def test_the_note_names_the_option_that_gives_them(tmp_path: Path) -> None:
    folder = flat(tmp_path / "p", lambda i: f"p{i:02}x.png")
    found = whole(folder, labels_from_names="{label}.png")
    assert any("if they are not classes: give a pattern" in note for note in found.notes), found.notes
    assert not any("labels=False" in note for note in found.notes)


def test_more_than_a_thousand_texts_are_not_classes() -> None:
    x, captions = np.zeros((1200, 2)), [f"a picture\nof {i}" + " and more" * 99 for i in range(1200)]
    for source, option, named in (((x, captions), {}, ""), (x, {"labels": captions}, "labels: ")):
        says = rf"^{named}1,200 different labels .* are not classes; .*labels=False.* classes=\['a picture.*', ...\]\.$"
        with pytest.raises(DataError, match=says) as caught:
            whole(source, **option)
        message = str(caught.value)
        assert "\n" not in message and len(message) < 1000 and "pandas.cut" not in message
        assert len(whole(source, **option, classes=sorted(captions)).classes) == 1200, "a person may insist"
    few = [f"person {i % 1100}" for i in range(2400)]
    assert len(whole((np.zeros((2400, 2)), few)).classes) == 1100, "each has several examples"


def test_numbers_may_begin_with_a_point() -> None:
    with pytest.raises(DataError, match="'id "):
        whole(np.zeros((60, 2)), labels=[f".{i:02}" for i in range(1, 61)])


def test_a_run_of_numbers_as_classes_is_not_locked_out(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.random.default_rng(0).normal(size=(60, 3)), y=np.arange(60))
    options = {"labels": "y", "classes": list(map(str, range(60))), "validation": 0.2, "test": 0.2}
    data = load_data(tmp_path / "a.npz", **options)
    assert data.source is not None
    source = {k: v for k, v in data.source.items() if k != "classes"}  # as a run of before has it
    run = sandglass.train("cvae", replace(data, source=source), epochs=1, out=tmp_path / "runs", device="cpu")
    assert "classes" not in run.config["data"]["source"]
    assert run_data(Run(run.path)).fingerprint == data.fingerprint
    assert main(["evaluate", str(run.path), "--metrics", "elbo"]) == 0
    assert main(["train", "--resume", str(run.path), "--epochs", "2"]) == 0
    assert Run(run.path).config["data"]["source"] == source, "the data has not moved"


def test_resuming_leaves_where_the_data_is_as_it_was(tmp_path: Path) -> None:
    folder = flat(tmp_path / "p", lambda i: f"{i % 2}/{i}.png", count=40)
    run = sandglass.train("vae", folder, epochs=1, out=tmp_path / "runs", device="cpu", net="mlp")
    source = Run(run.path).config["data"]["source"]
    resumed = sandglass.resume(run.path, epochs=2)
    assert resumed.config["data"]["source"] == Run(run.path).config["data"]["source"] == source
    moved = folder.rename(tmp_path / "q")
    sandglass.resume(run.path, data=moved, epochs=3)
    assert Run(run.path).config["data"]["source"] == {**source, "source": str(moved.resolve())}


@pytest.mark.parametrize("chosen", [False, True])
def test_classes_that_were_stored_do_not_hide_that_the_data_has_changed(tmp_path: Path, chosen: bool) -> None:
    x, y = np.random.default_rng(0).normal(size=(60, 3)), np.arange(60)
    np.savez(tmp_path / "a.npz", x=x, y=y if chosen else y % 2)
    options = {"labels": "y", "classes": list(map(str, range(60 if chosen else 2)))}
    data = load_data(tmp_path / "a.npz", **options)
    run = sandglass.train("cvae", data, epochs=1, out=tmp_path / "runs", device="cpu")
    np.savez(tmp_path / "a.npz", x=x, y=y + 1 if chosen else y % 3)
    if chosen:  # by itself, the data would have no classes
        with pytest.raises(DataError, match="no class '60'"):
            run_data(Run(run.path))
    else:
        assert run_data(Run(run.path)).classes == ("0", "1", "2")


def test_data_that_cannot_be_read_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = flat(tmp_path / "p", lambda i: f"{i % 2}/{i}.png", count=40)
    run = sandglass.train("vae", folder, epochs=1, out=tmp_path / "runs", device="cpu", net="mlp")
    read, found = trained_on.load_data, []
    monkeypatch.setattr(trained_on, "load_data", lambda *a, **k: found.append(1) or read(*a, **k))
    Image.fromarray(np.zeros((9, 8), np.uint8)).save(folder / "0" / "0.png")
    with pytest.raises(DataError, match="size"):
        run_data(Run(run.path))
    assert len(found) == 1
    found.clear()
    read_source = opening.read
    monkeypatch.setattr(opening, "read", lambda *a, **k: found.append(1) or read_source(*a, **k))
    for place in (folder, tmp_path / "nowhere"):
        (folder / "new").mkdir(exist_ok=True)
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(folder / "new" / "0.png")
        with pytest.raises((DataError, NotFoundError), match=r"no class 'new'|nowhere"):
            find_data(Run(run.path), str(place))
    assert len(found) == 2, "new data would be read with the same options"


def test_a_run_is_evaluated_where_its_data_has_a_new_class(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = flat(tmp_path / "p", lambda i: f"{i % 2}/{i}.png", count=40)
    run = sandglass.train("vae", folder, epochs=1, out=tmp_path / "runs", device="cpu", net="mlp")
    flat(folder, lambda i: f"new/{i}.png", count=20)
    assert len(run_data(Run(run.path)).classes) == 3
    with pytest.raises(DataError, match="no class 'new'"):
        new_data(reading_of(run), folder)


def test_the_estimator_has_the_same_rule() -> None:
    x, persons = np.random.default_rng(0).normal(size=(60, 3)), np.array([f"person {i}" for i in range(60)])
    with pytest.raises(DataError, match=r"y has 60 different values .* 'id 0'"):
        GenerativeModel("cvae", epochs=1).fit(x, np.arange(60))
    with pytest.warns(UserWarning, match="60 different classes for 60 examples"):
        model = GenerativeModel("cvae", epochs=1, random_state=0).fit(x, persons)
    assert len(model.classes_) == 60
    many = np.array([f"person {i}" for i in range(1200)])
    with pytest.raises(DataError, match=r"y has 1,200 different values for .*, which are not classes") as caught:
        GenerativeModel("cvae", epochs=1).fit(np.zeros((1200, 2)), many)
    assert "classes=['person 0', ...]" in str(caught.value) and "\n" not in str(caught.value)
