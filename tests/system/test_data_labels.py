"""Classes of pictures from a table beside them, or from their file names."""

from __future__ import annotations

import json
import random
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

import sandglass
from helpers import Cli
from sandglass.data.load import load_data
from sandglass.data.sources.labelling import check_pattern
from sandglass.errors import ConfigError, DataError, NotFoundError, SandglassError

N = 20
KINDS = ("cat", "dog")
SMALL = ["--net", "mlp", "--model.net.widths", "8", "--latent-dim", "2", "--threads", "1", "--no-report"]


def flat(folder: Path, name: Callable[[int], str] = lambda i: f"{i:03}.png", count: int = N, seed: int = 0) -> Path:
    """A folder of grey pictures, with names by number; the even ones are cats."""
    chance = np.random.default_rng(seed)
    for i in range(count):
        path = folder / name(i)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(chance.integers(0, 256, (8, 8), np.uint8)).save(path)
    return folder


def whole(source: Path, **options):
    return load_data(source, validation=0, test=0, **options)


def kinds(data) -> list[str]:
    return [data.classes[k] for k in data.train.y.tolist()]


CATS = [KINDS[i % 2] for i in range(N)]
NAMES = [f"{i:03}.png" for i in range(N)]


def csv(path: Path, lines: list[str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize(
    ("file", "lines", "labels"),
    [
        ("metadata.csv", ["file_name,label", *(f"{n},{k}" for n, k in zip(NAMES, CATS, strict=True))], "metadata.csv"),
        ("m.csv", ["text,file_name,kind", *(f"a b,{n},{k}" for n, k in zip(NAMES, CATS, strict=True))], "m.csv:kind"),
        ("m.csv", ["file,score,class", *(f"{n},0.5,{k}" for n, k in zip(NAMES, CATS, strict=True))], "m.csv"),
        ("m.csv", [f"{n},{k}" for n, k in zip(NAMES, CATS, strict=True)], "m.csv"),  # without a header
        ("m.tsv", ["id\tkind", *(f"{n[:-4]}\t{k}" for n, k in zip(NAMES, CATS, strict=True))], "m.tsv"),
        ("m.csv", ["id;kind", *(f"./{n};{k}" for n, k in zip(NAMES, CATS, strict=True))], "m.csv:kind"),
        ("metadata.jsonl", [json.dumps({"file_name": n, "label": k}) for n, k in zip(NAMES, CATS, strict=True)],
         "metadata.jsonl:label"),
    ],
)  # fmt: skip
def test_a_table_of_file_names(tmp_path: Path, file: str, lines: list[str], labels: str) -> None:
    folder = flat(tmp_path / "pictures")
    csv(folder / file, lines)
    data = whole(folder, labels=labels)
    assert kinds(data) == CATS and data.classes == KINDS
    assert any(note.startswith("classes are column") for note in data.notes)
    assert not any("not read" in note for note in data.notes)
    unread = whole(folder)
    assert unread.train.y is None and any(f"--labels {file}:COLUMN" in note for note in unread.notes)
    assert not any("--labels" in note for note in whole(folder, labels=False).notes)


def test_names_that_could_mislead(tmp_path: Path) -> None:
    """A picture called like a column, a column with a colon, and class names in one Unicode form."""
    folder = flat(tmp_path / "p", lambda i: f"{'kind' if i == 0 else i}.png")
    csv(folder / "m.csv", ["id,kind,a:b", "kind,cat,x", *(f"{i},cat,x" for i in range(1, N))])
    assert whole(folder, labels="m.csv:kind").classes == ("cat",)
    data = whole(folder, labels="m.csv:a:b")
    assert data.classes == ("x",) and load_data(**data.source).classes == ("x",)
    flat(tmp_path / "q", lambda i: f"cafe\u0301_{i}.png" if i % 2 else f"caf\u00e9_{i}.png")
    assert whole(tmp_path / "q", labels_from_names="{label}_*").classes == ("caf\u00e9",)


def test_numbers_are_classes_in_their_order(tmp_path: Path) -> None:
    folder = flat(tmp_path / "p", lambda i: f"{i}.png")
    csv(folder / "m.csv", ["id,label", *(f"{i},{i % 12}" for i in range(N))])
    data = whole(folder, labels="m.csv:label")
    assert data.classes == tuple(map(str, range(12)))
    assert dict(zip(data.train.names, data.train.y.tolist(), strict=True))["11.png"] == 11


def test_a_table_elsewhere_and_one_for_each_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = flat(tmp_path / "p" / "train")
    flat(tmp_path / "p" / "test", count=4, seed=1)
    for split, count in (("train", N), ("test", 4)):
        csv(
            tmp_path / "p" / split / "metadata.csv",
            ["file_name,label", *(f"{n},{k}" for n, k in zip(NAMES[:count], CATS, strict=False))],
        )
    data = load_data(tmp_path / "p", labels="metadata.csv", validation=0)
    assert kinds(data) == CATS and data.splits["test"].y.tolist() == [0, 1, 0, 1]
    assert load_data(**data.source).fingerprint == data.fingerprint
    (tmp_path / "p" / "test" / "metadata.csv").unlink()
    data = load_data(tmp_path / "p", labels="metadata.csv", validation=0, test=0)
    assert kinds(data) == CATS and len(data.bad) == 4
    assert load_data(**data.source).fingerprint == data.fingerprint
    monkeypatch.chdir(tmp_path)
    csv(tmp_path / "own.csv", ["picture,kind", *(f"{n},{k}" for n, k in zip(NAMES, CATS, strict=True))])
    data = whole(folder, labels="own.csv")
    assert data.source["labels"] == f"{tmp_path / 'own.csv'}:kind", "so that it is found from any folder"
    csv(tmp_path / "both.csv", ["picture,kind", "001.png,cat"])
    with pytest.raises(DataError, match=r"'001.png', which is the name of 2 pictures, test/001.png and train/001.png"):
        load_data(tmp_path / "p", labels="both.csv")
    csv(tmp_path / "both.csv", ["picture,kind", *(f"train/{n},{k}" for n, k in zip(NAMES, CATS, strict=True))])
    data = load_data(tmp_path / "p", labels="both.csv", validation=0, test=0)
    assert kinds(data) == CATS and len(data.bad) == 4


def test_class_folders_are_not_read_beside_a_table(tmp_path: Path) -> None:
    folder = flat(tmp_path / "p", lambda i: f"{'ab'[i % 2]}/{i:03}.png")
    csv(folder / "m.csv", ["name,kind", *(f"{'ab'[i % 2]}/{i:03}.png,{i % 3}" for i in range(N))])
    assert whole(folder).classes == ("a", "b")
    assert whole(folder, labels="m.csv").classes == ("0", "1", "2")


def test_missing_extra_and_repeated_names_are_said(tmp_path: Path) -> None:
    folder = flat(tmp_path / "p")
    rows = [f"{n},{k}" for n, k in zip(NAMES, CATS, strict=True)]
    csv(folder / "m.csv", ["file,kind", *rows[:17], "017.png,", "ghost.png,cat", "spirit.png,dog", rows[0], rows[1]])
    data = whole(folder, labels="m.csv")
    assert kinds(data) == CATS[:17]
    assert "3 of the 20 pictures have no class in m.csv and are left out, such as 017.png" in data.notes
    assert "2 rows name no picture in m.csv, such as ghost.png" in data.notes
    assert "2 rows of m.csv repeat a picture, such as 000.png" in data.notes
    assert data.bad[0][0] == "017.png" and len(data.bad) == 3
    with pytest.raises(DataError, match=r"3 of the 20 pictures.*such as 017.png.*--on-bad skip"):
        whole(folder, labels="m.csv", on_bad="stop")
    csv(folder / "m.csv", ["file,kind", *rows, "003.png,cat"])
    with pytest.raises(DataError, match=r"gives 003.png two classes, 'dog' and 'cat'; keep one row"):
        whole(folder, labels="m.csv")


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("{label}_*.jpg", lambda i: f"{KINDS[i % 2]}_{i:03}.jpg"),
        ("{label}_*", lambda i: f"{KINDS[i % 2]}_{i:03}.png"),
        ("*-{label}.png", lambda i: f"{i:03}-{KINDS[i % 2]}.png"),
        ("IMG_??_{label}.*", lambda i: f"img_{i:02}_{KINDS[i % 2]}.png"),
        ("day*/{label}.*.png", lambda i: f"day{i % 3}/{KINDS[i % 2]}.{i}.png"),
    ],
)
def test_classes_in_file_names(tmp_path: Path, pattern: str, name: Callable[[int], str]) -> None:
    folder = flat(tmp_path / "p", name)
    data = whole(folder, labels_from_names=pattern)
    found = dict(zip(data.train.names, kinds(data), strict=True))
    assert found == {name(i): KINDS[i % 2] for i in range(N)}
    assert load_data(**data.source).fingerprint == data.fingerprint


def _regex(pattern: str) -> re.Pattern[str]:
    """What a pattern means, as a regular expression that tries every way to match."""
    parts = re.split(r"(\{label\}|[*?])", re.sub(r"\*+", "*", pattern))
    meaning = {"{label}": "(?P<label>[^/]+?)", "*": "[^/]*", "?": "[^/]"}
    return re.compile("".join(meaning.get(part, re.escape(part)) for part in parts), re.IGNORECASE | re.DOTALL)


def test_patterns_match_as_regular_expressions_do() -> None:
    draw = random.Random(0)
    hits = 0
    for _ in range(3000):
        parts = draw.choices(["a", "b", "B", "/", "?", "*", "_"], k=draw.randint(0, 7))
        parts.insert(draw.randint(0, len(parts)), "{label}")
        pattern = "".join(parts)
        if re.sub(r"\*+", "*", pattern).count("*") > 4:
            continue
        for _ in range(5):
            name = "".join(draw.choices("aab_/A\n", k=draw.randint(1, 9)))
            found = _regex(pattern).fullmatch(name)
            assert check_pattern(pattern).label(name) == (found and found["label"]), (pattern, name)
            hits += found is not None
    assert hits > 500


@pytest.mark.parametrize("pattern", ["*a*a*a*a{label}b", "{label}*a*a*a*ab", "*a*a{label}*a*ab"])
def test_a_pattern_takes_no_long_time(pattern: str) -> None:
    start = time.perf_counter()
    assert check_pattern(pattern).label("a" * 250) is None
    assert time.perf_counter() - start < 2


def test_names_that_do_not_match_are_said(tmp_path: Path) -> None:
    folder = flat(tmp_path / "p", lambda i: f"{KINDS[i % 2]}_{i}.png" if i else "odd.png")
    data = whole(folder, labels_from_names="{label}_*.png")
    assert (
        "1 of the 20 pictures has no name that matches '{label}_*.png' and is left out, such as odd.png" in data.notes
    )
    with pytest.raises(DataError, match="No picture has a name that matches"):
        whole(folder, labels_from_names="{label}-*.png")


def boxes(folder: Path) -> None:
    """Tables with a column of lists."""
    frame = pd.DataFrame({"file_name": NAMES, "bbox": [[1, 2]] * N, "kind": [None, *CATS[1:]]})
    frame.to_parquet(folder / "boxes.parquet")
    frame.to_json(folder / "boxes.jsonl", orient="records", lines=True)


def test_lists_beside_the_classes(tmp_path: Path) -> None:
    folder = flat(tmp_path / "p")
    boxes(folder)
    for name in ("boxes.parquet", "boxes.jsonl"):
        data = whole(folder, labels=f"{name}:kind")
        assert data.classes == KINDS and len(data.train) == N - 1


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"labels_from_names": "cat_*.jpg"}, ConfigError, r"must have \{label\} once"),
        ({"labels_from_names": "{label}_{label}"}, ConfigError, "once"),
        ({"labels_from_names": "{label}_{number}"}, ConfigError, "once"),
        ({"labels_from_names": "{label}*a*b*c*d*e"}, ConfigError, "4 \\* at most"),
        ({"labels_from_names": "{label}_*", "labels": "m.csv"}, ConfigError, "leave one of the two out"),
        ({"labels": "nowhere.csv"}, NotFoundError, "'nowhere.csv'"),
        ({"labels": "m.csv:knd"}, DataError, "no column 'knd' for labels. Did you mean 'kind'"),
        ({"labels": "two.csv"}, DataError, "several columns.*two.csv:COLUMN.*'a', 'b'"),
        ({"labels": "other.csv"}, DataError, "no column with the file names.*such as 000.png"),
        ({"labels": "broken.jsonl"}, DataError, "broken.jsonl is not a file of JSON lines"),
        ({"labels": "list.jsonl"}, DataError, "must have a JSON object in each line"),
        ({"labels": "notes.txt"}, DataError, "notes.txt cannot be read for labels"),
        ({"labels": "real.csv:v"}, DataError, r"column 'v' of real.csv are not whole numbers, such as .*labels=False"),
        ({"labels": np.arange(N)}, ConfigError, "not an array"),
        ({"labels": "x" * 300}, NotFoundError, "There is no file 'x"),
        ({"labels": "x" * 5000 + ":kind"}, NotFoundError, "There is no file 'x"),
        ({"labels": "a\0b.csv"}, NotFoundError, "There is no file"),
        ({"labels": "~a\0b.csv"}, NotFoundError, "There is no file"),
        ({"labels": "boxes.parquet:bbox"}, DataError, "column 'bbox' of boxes.parquet has a list.*one class per"),
        ({"labels": "boxes.jsonl:bbox"}, DataError, "column 'bbox' of boxes.jsonl has a list.*one class per"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_line(tmp_path: Path, options: dict, error: type, says: str) -> None:
    folder = flat(tmp_path / "p")
    csv(folder / "m.csv", ["file,kind", *(f"{n},{k}" for n, k in zip(NAMES, CATS, strict=True))])
    csv(folder / "two.csv", ["file,a,b", *(f"{n},{k},1" for n, k in zip(NAMES, CATS, strict=True))])
    csv(folder / "other.csv", ["file,kind", "x.png,cat"])
    boxes(folder)
    csv(folder / "broken.jsonl", ['{"file_name": '])
    csv(folder / "list.jsonl", ["[1, 2]"])
    csv(folder / "notes.txt", ["000.png cat"])
    csv(folder / "real.csv", ["file,v", *(f"{n},{i}.25" for i, n in enumerate(NAMES))])
    with pytest.raises(error, match=says) as caught:
        whole(folder, **options)
    assert "\n" not in str(caught.value)


def test_a_pattern_is_for_pictures(tmp_path: Path) -> None:
    csv(tmp_path / "t.csv", ["a,b", "1,2", "2,3"])
    for read in (load_data, sandglass.inspect):
        with pytest.raises(NotFoundError, match="There is no file, folder or dataset"):
            read(tmp_path / "gone", labels_from_names="{label}_*")
    with pytest.raises(ConfigError, match="labels_from_names is for the file names"):
        load_data(tmp_path / "t.csv", labels_from_names="{label}_*")
    with pytest.raises(ConfigError, match="image names"):
        load_data(tmp_path / "t.csv", image="a")


def test_a_run_reads_its_labels_again(cli: Cli, tmp_path: Path) -> None:
    folder = flat(tmp_path / "p")
    csv(folder / "metadata.csv", ["file_name,text,kind", *(f"{n},x,{k}" for n, k in zip(NAMES, CATS, strict=True))])
    code, _, err = cli(
        "train", "cvae", "--data", folder, "--labels", "metadata.csv:kind", *SMALL, "--epochs", "1", "--out", "run"
    )
    assert code == 0, err
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert config["classes"] == ["cat", "dog"] and config["data"]["source"]["labels"] == "metadata.csv:kind"
    assert cli("evaluate", "run", "--metrics", "mse")[0] == 0
    assert cli("train", "--resume", "run", "--epochs", "2", "--no-report")[0] == 0
    shutil.move(folder, tmp_path / "q")
    code, out, err = cli("evaluate", "run", "--data", "q", "--metrics", "mse")
    assert code == 0 and "split test" in out, "the table moved with the folder"
    new = flat(tmp_path / "new", count=6, seed=3)
    csv(tmp_path / "new.csv", ["name,animal", *(f"{n},{k}" for n, k in zip(NAMES[:6], CATS, strict=False))])
    code, out, err = cli("evaluate", "run", "--data", new, "--labels", "new.csv:animal", "--metrics", "mse")
    assert code == 0 and "all 6 examples" in out, err
    assert cli("inspect", tmp_path / "q", "--labels", "metadata.csv:kind", "--json")[0] == 0


def test_a_pattern_on_the_command_line(cli: Cli, tmp_path: Path) -> None:
    folder = flat(tmp_path / "p", lambda i: f"{KINDS[i % 2]}_{i}.png")
    words = ["--data", folder, "--labels-from-names", "{label}_*.png"]
    code, _, err = cli("train", "vae", *words, *SMALL, "--epochs", "1", "--out", "run")
    assert code == 0, err
    assert sandglass.Run(tmp_path / "run").config["classes"] == ["cat", "dog"]
    assert cli("evaluate", "run", "--metrics", "mse")[0] == 0
    new = flat(tmp_path / "new", lambda i: f"{i}-dog.png", count=4, seed=3)
    words = ["--data", new, "--labels-from-names", "*-{label}.png"]
    code, _, err = cli("encode", "run", *words, "-o", "codes.csv")
    assert code == 0 and "dog" in (tmp_path / "codes.csv").read_text(), err
    code, out, _ = cli("inspect", folder, "--labels-from-names", "{label}_*.png", "--json")
    assert code == 0 and json.loads(out)["facts"]["splits"]["train"]["classes"] == {"cat": 10, "dog": 10}


def test_an_archive_takes_its_labels_from_a_table_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.make_archive(str(tmp_path / "p"), "zip", flat(tmp_path / "p"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SandglassError, match=r"m\.csv"):
        whole(tmp_path / "p.zip", labels="m.csv")
    csv(tmp_path / "m.csv", ["file,kind", *(f"{n},{k}" for n, k in zip(NAMES, CATS, strict=True))])
    data = whole(tmp_path / "p.zip", labels="m.csv")
    assert kinds(data) == CATS and load_data(**data.source).fingerprint == data.fingerprint


@pytest.mark.parametrize("kind", ["zip", "gztar"])
@pytest.mark.parametrize(
    ("file", "pictures", "label"),
    [
        ("m.csv", "{}", "m.csv:kind"),
        ("metadata.jsonl", "{}", "metadata.jsonl"),
        ("data/metadata.csv", "data/{}", "metadata.csv"),
        ("data/metadata.csv", "data/train/{}", "metadata.csv"),
        ("train/metadata.csv", "train/{}", "metadata.csv:kind"),
        ("labels.parquet", "images/{}", "labels.parquet:kind"),
    ],
)
def test_an_archive_or_a_folder_holds_its_table(
    tmp_path: Path, kind: str, file: str, pictures: str, label: str
) -> None:
    folder = flat(tmp_path / "p", lambda i: pictures.format(f"{i:03}.png"))
    table = pd.DataFrame({"file_name": NAMES, "kind": CATS})
    (folder / file).parent.mkdir(exist_ok=True)
    if file.endswith(".jsonl"):
        table.to_json(folder / file, orient="records", lines=True)
    elif file.endswith(".parquet"):
        table.to_parquet(folder / file)
    else:
        table.to_csv(folder / file, index=False)
    archive = Path(shutil.make_archive(str(tmp_path / "packed"), kind, folder))
    read = {place: whole(place, labels=label) for place in (folder, archive)}
    assert kinds(read[folder]) == kinds(read[archive]) == CATS
    assert read[folder].fingerprint == read[archive].fingerprint
    assert load_data(**read[archive].source).fingerprint == read[archive].fingerprint
    assert "unpacked: 20 pictures and 1 table" in read[archive].notes[0]
    if not file.endswith(".parquet"):
        for place in (folder, archive):
            assert f"not read: {Path(file).name}; " in " ".join(whole(place).notes)
