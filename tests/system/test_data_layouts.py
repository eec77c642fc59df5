"""How a folder's splits and classes are found, files left out by policy, and labels numbered as a model's."""

from __future__ import annotations

import csv
import os
import socket
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sandglass import api
from sandglass.app.main import main
from sandglass.data.load import load_data
from sandglass.data.sources import images, layouts
from sandglass.errors import ConfigError, DataError

RNG = np.random.default_rng(0)


def fill(folder: Path, n: int = 2) -> Path:
    """Grey pictures 6 x 5 of random values."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(n):
        Image.fromarray(RNG.integers(0, 256, (6, 5), np.uint8)).save(folder / f"{i}.png")
    return folder


def mvtec(folder: Path) -> Path:
    fill(folder / "train" / "good", 6)
    for name, n in (("good", 2), ("crack", 3), ("hole", 1)):
        fill(folder / "test" / name, n)
    fill(folder / "ground_truth" / "crack", 3)
    fill(folder / "ground_truth" / "hole", 1)
    return folder


def test_the_layout_of_mvtec(tmp_path):
    data = load_data(mvtec(tmp_path / "bottle"), validation=0)
    assert data.classes == ("crack", "good", "hole")
    assert {s: Counter(data.classes[k] for k in x.y.tolist()) for s, x in data.splits.items()} == {
        "train": {"good": 6},
        "test": {"good": 2, "crack": 3, "hole": 1},
    }
    assert not any("ground_truth" in name for x in data.splits.values() for name in x.names)
    assert data.notes[0] == (
        "the layout of MVTec: train has only good pictures, test also crack, hole; ground_truth (4 masks) is not read"
    )
    # The control: every picture below the folder, as a walk without layouts finds them.
    assert len(layouts.walk(tmp_path, Counter())) == 16
    # Unpacked into a folder of its own name it is the same; beside another one, it has to be named.
    assert load_data(tmp_path, validation=0).fingerprint == data.fingerprint
    mvtec(tmp_path / "cable")
    with pytest.raises(DataError, match=r"holds 2 datasets with a train folder each \(bottle, cable\); give one"):
        load_data(tmp_path)


def test_a_class_that_only_test_has(tmp_path):
    for place in ("train/b", "train/c", "test/a", "test/b"):
        fill(tmp_path / place)
    data = load_data(tmp_path, validation=0)
    assert data.classes == ("a", "b", "c") and data.spec.classes == 3
    assert data.train.y.tolist() == [1, 1, 2, 2] and data.splits["test"].y.tolist() == [0, 0, 1, 1]
    assert "test has a class not in train: a" in data.notes
    assert data.train.names[0] == "train/b/0.png"


def test_a_split_without_class_folders_has_no_labels(tmp_path):
    for place in ("train/a", "train/b", "test/images"):
        fill(tmp_path / place)
    data = load_data(tmp_path, validation=0)
    assert data.classes == ("a", "b") and data.train.y.tolist() == [0, 0, 1, 1]
    assert data.splits["test"].y is None and len(data.splits["test"]) == 2
    assert "the test pictures are not in class folders: they have no labels" in data.notes


def test_two_folders_of_one_split_are_both_read(tmp_path):
    for place in ("train", "val", "Validation"):
        fill(tmp_path / place)
    assert len(load_data(tmp_path, test=0).splits["validation"]) == 4


def test_a_class_is_one_whether_a_mac_wrote_it(tmp_path):
    for place in ("train/caf\u00e9", "train/bar", "test/cafe\u0301", "test/bar"):
        fill(tmp_path / place)
    assert load_data(tmp_path).classes == ("bar", "caf\u00e9")


@pytest.mark.timeout(50)
def test_what_is_passed_over_is_counted(tmp_path):
    fill(tmp_path)
    for name in ("._0.png", ".DS_Store", "Thumbs.db", "readme.txt", "a.pdf"):
        (tmp_path / name).write_text("no picture")
    os.mkfifo(tmp_path / "pipe.png")
    with socket.socket(socket.AF_UNIX) as s:
        here = os.getcwd()
        os.chdir(tmp_path)  # the name of a socket must be short
        s.bind("s.png")
        os.chdir(here)
    (tmp_path / "loop").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "gone.png").symlink_to(tmp_path / "nothing.png")
    data = load_data(tmp_path, validation=0, test=0)
    assert data.train.names == ("0.png", "1.png")
    assert data.notes == (
        "skipped: files without a picture's extension (2), hidden or system files (3), "
        "links to folders or to nothing (2), pipes, sockets or devices (2)",
    )
    # The control: a walk that follows links meets each picture again and again.
    followed = sum(f == "0.png" for _, _, files in os.walk(tmp_path, followlinks=True) for f in files)
    assert followed > 10


def broken(folder: Path) -> Path:
    fill(folder, 12)
    (folder / "=1+1.png").touch()
    (folder / "page, old.jpg").write_text("<html>404</html>")
    return folder


def test_bad_files_are_left_out_or_stop(tmp_path):
    data = load_data(broken(tmp_path))
    assert data.bad == (("=1+1.png", "not a picture of a known format"),
                        ("page, old.jpg", "not a picture of a known format"))  # fmt: skip
    assert "2 files could not be read: =1+1.png: not a picture" in data.notes[0]
    assert "on_bad" not in data.source
    with pytest.raises(DataError, match=r"2 of the 14 pictures cannot be read. The first: =1\+1\.png: not a .*on_bad"):
        load_data(tmp_path, on_bad="stop")
    with pytest.raises(ConfigError, match="on_bad must be skip or stop"):
        load_data(tmp_path, on_bad="ask")
    for name, _ in data.bad:
        (tmp_path / name).unlink()
    whole = load_data(tmp_path, on_bad="stop")
    assert whole.bad == () and whole.source["on_bad"] == "stop"
    assert whole.fingerprint == data.fingerprint


def test_a_run_lists_its_bad_files(tmp_path, capsys):
    broken(tmp_path / "photos")
    words = ["train", "ae", "--data", str(tmp_path / "photos"), "--epochs", "1", "--net", "mlp", "--no-report"]
    assert main([*words, "--on-bad", "stop", "--out", str(tmp_path / "stopped")]) == 65
    assert "--on-bad skip" in capsys.readouterr().err and not (tmp_path / "stopped").exists()
    assert main([*words, "--out", str(tmp_path / "run")]) == 0
    assert "bad_files.csv in the run folder lists every file" in capsys.readouterr().err
    with (tmp_path / "run" / "bad_files.csv").open(newline="") as file:
        assert list(csv.reader(file)) == [
            ["path", "reason"],
            ["=1+1.png", "not a picture of a known format"],
            ["page, old.jpg", "not a picture of a known format"],
        ]


def test_a_file_that_vanishes_is_read_again_and_then_left_out(tmp_path, monkeypatch):
    fill(tmp_path, 5)
    load, tries = images._load, Counter()

    def flaky(path, value_range=None):
        path = Path(path)
        tries[path.name] += 1
        if path.name == "1.png" and path.exists():
            path.unlink()
        if path.name == "3.png" and tries[path.name] == 1:
            path.rename(tmp_path / "away")
            try:
                return load(path, value_range)
            finally:
                (tmp_path / "away").rename(path)
        return load(path, value_range)

    monkeypatch.setattr(images, "_load", flaky)
    data = load_data(tmp_path, validation=0, test=0)
    assert data.train.names == ("0.png", "2.png", "3.png", "4.png")
    assert [name for name, _ in data.bad] == ["1.png"] and data.bad[0][1] == "there is no such file"
    assert tries == {"0.png": 1, "1.png": 2, "2.png": 1, "3.png": 2, "4.png": 1}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_left_out(tmp_path):
    fill(tmp_path, 3)
    (tmp_path / "1.png").chmod(0)
    fill(tmp_path / "locked").chmod(0)
    data = load_data(tmp_path, validation=0, test=0)
    assert data.bad == (("1.png", "no permission to read it"),)
    assert data.notes[0] == "skipped: folders that cannot be read (1)"


def test_what_the_system_refuses_is_left_out(tmp_path, monkeypatch):
    """As above, for those who test as root."""
    fill(tmp_path, 3)
    content = images._content

    def refuse(path):
        if str(path).endswith("1.png"):
            raise PermissionError(13, "Permission denied")
        return content(path)

    monkeypatch.setattr(images, "_content", refuse)
    data = load_data(tmp_path, validation=0, test=0)
    assert data.bad == (("1.png", "no permission to read it"),) and len(data.train) == 2


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**31),
    n=st.integers(1, 60),
    kinds=st.integers(1, 60),
    shares=st.tuples(st.floats(0, 0.5), st.floats(0, 0.45)),
    labelled=st.booleans(),
)
def test_splits_never_share_a_picture(seed, n, kinds, shares, labelled):
    random = np.random.default_rng(seed)
    x = random.integers(0, kinds, n).astype(np.uint8)[:, None, None].repeat(4, 1).repeat(4, 2)
    y = random.integers(0, 3, n) if labelled else None
    data = load_data(torch.from_numpy(x)[:, None], labels=y, validation=shares[0], test=shares[1], seed=seed % 7)
    contents = [{bytes(row.numpy().data) for row in split.x} for split in data.splits.values()]
    assert sum(map(len, contents)) == len(set.union(*contents)) == len(np.unique(x[:, 0, 0]))
    assert sum(map(len, data.splits.values())) == n


def test_cutting_without_a_look_at_copies_shares_them():
    """The control for the test above."""
    x = torch.arange(10).repeat(6)
    train, test = x[torch.randperm(60, generator=torch.Generator().manual_seed(0))].split([50, 10])
    assert set(train.tolist()) & set(test.tolist())


def test_copies_that_a_source_has_in_its_own_splits_stay_and_are_told(tmp_path):
    fill(tmp_path / "train", 20)
    fill(tmp_path / "test", 3)
    for i in range(4):
        (tmp_path / "test" / f"copy{i}.png").write_bytes((tmp_path / "train" / f"{i}.png").read_bytes())
        (tmp_path / "train" / f"twin{i}.png").write_bytes((tmp_path / "train" / f"{i}.png").read_bytes())
    data = load_data(tmp_path, validation=0.3)
    assert {s: len(x) for s, x in data.splits.items()} == {"train": 17, "validation": 7, "test": 7}
    assert "4 of the test pictures are also in train, as in the source" in data.notes
    contents = [{bytes(row.numpy().data) for row in data.splits[s].x} for s in ("train", "validation")]
    assert not set.intersection(*contents)


def test_new_data_gets_the_models_class_numbers(tmp_path):
    for name in ("cat", "dog", "fox"):
        fill(tmp_path / "old" / name, 8)
    run = api.train("ae", tmp_path / "old", out=tmp_path / "run", epochs=1, model_options={"net": "mlp"})
    for name in ("dog", "fox"):
        fill(tmp_path / "new" / name, 3)
    assert load_data(tmp_path / "new", validation=0, test=0).train.y.tolist() == [0, 0, 0, 1, 1, 1]  # the control
    for source in (run, run.path, run.path / "model"):
        reading = api.reading_of(source)
        data = load_data(tmp_path / "new", validation=0, test=0, **reading)
        assert data.classes == ("cat", "dog", "fox") and data.spec.classes == 3
        assert data.train.y.tolist() == [1, 1, 1, 2, 2, 2]
        assert load_data(**data.source).fingerprint == data.fingerprint
    fill(tmp_path / "new" / "owl", 1)
    words = ["encode", str(run.path), "--data", str(tmp_path / "new"), "-o", str(tmp_path / "codes.csv")]
    assert main(words) != 0
    assert main([*words, "--labels", "false"]) == 0
    assert main(["evaluate", str(run.path), "--data", str(tmp_path / "new"), "--labels", "false"]) == 0
    assert main(["encode", str(run.path), "--labels", "false"]) == 2  # its own data has its own
    with pytest.raises(DataError, match=r"has no class 'owl'\. It has: 'cat', 'dog', 'fox'; rename"):
        api.evaluate(run, data=tmp_path / "new", split="train")
    assert main(["evaluate", str(run.path), "--data", str(tmp_path / "new")]) == 65
    assert load_data(tmp_path / "new", labels=False, **reading).classes == ()


def test_a_link_to_itself_costs_no_other_picture(tmp_path):
    """The system does not say what such a link leads to; it is an error to ask."""
    folder = fill(tmp_path / "photos", 12)
    for name in ("round.png", "a.png", "z"):
        (folder / name).symlink_to(name)
    data = load_data(folder, validation=0, test=0)
    assert len(data.train) == 12
    assert data.notes[0] == "skipped: links to folders or to nothing (3)"
    alone = tmp_path / "wrapped"
    alone.mkdir()
    fill(alone / "inner", 3)
    (alone / "round.png").symlink_to("round.png")
    assert len(load_data(alone, validation=0, test=0).train) == 3
