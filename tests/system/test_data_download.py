"""Data sets that have files: where they are found, what is refused, and what is read out of an archive."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pooch
import pytest
import requests
import torch
import urllib3

from packing import TRUSTING
from sandglass.data.load import load_data
from sandglass.data.sets import cifar, download, idx, stl10
from sandglass.data.sets.archives import read_tar
from sandglass.data.sets.download import File, locate
from sandglass.errors import DataError, NotFoundError

FIRST, SECOND = "https://first.example/", "https://second.example/"


class Serving(requests.adapters.BaseAdapter):
    """Stands in for the network: answers an address by bytes, by a redirect (a text), or by 404."""

    def __init__(self) -> None:
        super().__init__()
        self.pages: dict[str, bytes | str] = {}
        self.lengths: dict[str, int] = {}
        self.asked: list[str] = []

    def send(self, request: requests.PreparedRequest, **_: object) -> requests.Response:
        self.asked.append(request.url)
        page = self.pages.get(request.url)
        answer = requests.Response()
        answer.request, answer.url, answer.status_code = request, request.url, 404 if page is None else 200
        if isinstance(page, str):
            answer.status_code = 302
            answer.headers["Location"] = page
        body = page if isinstance(page, bytes) else b""
        length = {"content-length": str(self.lengths.get(request.url, len(body)))}
        answer.raw = urllib3.HTTPResponse(io.BytesIO(body), length, preload_content=False)
        return answer

    def close(self) -> None:
        pass


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("SANDGLASS_DATA", raising=False)
    monkeypatch.setenv("SANDGLASS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def serving(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Serving:
    served, make = Serving(), download._session

    def session() -> requests.Session:
        made = make()
        made.mount("https://", served)
        return made

    monkeypatch.setattr(download, "_session", session)
    return served


def pinned(name: str, content: bytes, *mirrors: str) -> File:
    return File(name, len(content), hashlib.sha256(content).hexdigest(), mirrors or (FIRST,))


def left_in(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_a_file_is_downloaded_once(serving: Serving, cache: Path) -> None:
    file = pinned("a.bin", b"content")
    serving.pages[FIRST + "a.bin"] = b"content"
    path = locate("things", file)
    assert path == cache / "things" / "a.bin" and path.read_bytes() == b"content"
    assert locate("things", file) == path
    assert serving.asked == [FIRST + "a.bin"]
    assert left_in(cache) == ["things/a.bin"]


def test_a_folder_of_ones_own_comes_first(serving: Serving, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own" / "things").mkdir(parents=True)
    (tmp_path / "own" / "things" / "a.bin").write_bytes(b"content")
    monkeypatch.setenv("SANDGLASS_DATA", str(tmp_path / "own"))
    assert locate("things", pinned("a.bin", b"content")) == tmp_path / "own" / "things" / "a.bin"
    assert serving.asked == []


def test_a_bar_in_a_terminal_and_nothing_in_a_pipe(
    serving: Serving, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.bin", "b.bin"):
        serving.pages[FIRST + name] = b"content"
        locate("things", pinned(name, b"content"))
        shown = capsys.readouterr()
        assert shown.out == "" and ("b.bin" in shown.err) == (name == "b.bin") and "a.bin" not in shown.err
        monkeypatch.setattr("sys.stderr.isatty", lambda: True)


BAD = {
    "tampered": (b"CONTENT", None, "another SHA-256"),
    "truncated": (b"cont", 7, "(?i)incomplete|4 bytes read"),
    "truncated, and says so": (b"cont", None, "another SHA-256"),
    "longer than it is": (b"content, and more", None, "more than 7 bytes"),
    "not there": (None, None, "404"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_a_mirror_gets_wrong_is_not_kept(case: str, serving: Serving, cache: Path) -> None:
    content, length, message = BAD[case]
    if content is not None:
        serving.pages[FIRST + "a.bin"] = content
    if length is not None:
        serving.lengths[FIRST + "a.bin"] = length
    file = pinned("a.bin", b"content")
    with pytest.raises(NotFoundError, match=message) as caught:
        locate("things", file)
    assert "\n" not in str(caught.value) and "SANDGLASS_DATA" in str(caught.value)
    assert left_in(cache) == []
    serving.pages[SECOND + "a.bin"] = b"content"  # another mirror helps
    assert locate("things", pinned("a.bin", b"content", FIRST, SECOND)).read_bytes() == b"content"


def test_control_without_a_pin_a_tampered_file_is_kept(serving: Serving, tmp_path: Path) -> None:
    serving.pages[FIRST + "a.bin"] = b"CONTENT"
    naive = download._transfer(pinned("a.bin", b"content"))
    path = pooch.retrieve(FIRST + "a.bin", None, "a.bin", tmp_path / "naive", downloader=naive)
    assert Path(path).read_bytes() == b"CONTENT"


def test_a_redirect_to_plain_http_is_refused(serving: Serving, cache: Path) -> None:
    serving.pages[FIRST + "a.bin"] = "http://first.example/a.bin"
    serving.pages["http://first.example/a.bin"] = b"content"
    with pytest.raises(NotFoundError, match="http://first"):
        locate("things", pinned("a.bin", b"content"))
    assert serving.asked == [FIRST + "a.bin"]
    naive = requests.Session()  # the control: this one follows
    naive.mount("https://", serving)
    naive.mount("http://", serving)
    assert naive.get(FIRST + "a.bin").content == b"content"
    assert serving.asked[-1] == "http://first.example/a.bin"
    serving.pages[FIRST + "a.bin"] = SECOND + "b"  # to https they are followed
    serving.pages[SECOND + "b"] = b"content"
    assert locate("things", pinned("a.bin", b"content")).read_bytes() == b"content"


@pytest.mark.parametrize("where", ["SANDGLASS_DATA", "SANDGLASS_CACHE"])
def test_a_changed_file_at_hand_is_refused_and_stays(
    where: str, serving: Serving, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "at" / "things").mkdir(parents=True)
    path = tmp_path / "at" / "things" / "a.bin"
    path.write_bytes(b"CONTENT")
    monkeypatch.setenv(where, str(tmp_path / "at"))
    serving.pages[FIRST + "a.bin"] = b"content"
    with pytest.raises(DataError, match=r"a\.bin.*SHA-256 differs; delete it"):
        locate("things", pinned("a.bin", b"content"))
    assert path.read_bytes() == b"CONTENT" and serving.asked == []


def files() -> list[File]:
    return [*idx._MNIST, *idx._FASHION, *idx._KMNIST, cifar._TEN, cifar._HUNDRED, stl10._FILE]


def test_every_file_has_a_pin() -> None:
    for file in files():
        pins = [file.sha256, *([file.content] if file.content else [])]
        assert all(len(bytes.fromhex(pin)) == 32 for pin in pins), file
        assert 4_000 < file.size < 3e9 and file.mirrors, file
        assert all(m.startswith("https://") and m.endswith("/") for m in file.mirrors), file
    assert len({file.sha256 for file in files()}) == len(files()) == 15


@pytest.mark.parametrize("name", ["fashion-mnist", "kmnist", "cifar10", "cifar100", "stl10", "stacked-mnist"])
def test_without_files_or_network_the_folder_is_named(name: str, serving: Serving) -> None:
    with pytest.raises(NotFoundError, match="set SANDGLASS_DATA to a folder that contains"):
        load_data(name)
    assert all(address.startswith("https://") for address in serving.asked) and serving.asked


def own(monkeypatch: pytest.MonkeyPatch, folder: Path, dataset: str) -> Path:
    """A folder of one's own for a data set."""
    monkeypatch.setenv("SANDGLASS_DATA", str(folder))
    (folder / dataset).mkdir(parents=True)
    return folder / dataset


@pytest.mark.parametrize(("name", "pins"), [("fashion-mnist", "_FASHION"), ("kmnist", "_KMNIST")])
def test_idx_files(name: str, pins: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = own(monkeypatch, tmp_path, name)
    draws, made, pictures = np.random.default_rng(0), [], {}
    for i, n in enumerate((5, 3)):
        x, y = draws.integers(0, 256, (n, 28, 28), np.uint8), np.arange(n, dtype=np.uint8)
        pictures[i] = x
        made.append(struct.pack(">2H3I", 0, 0x803, n, 28, 28) + x.tobytes())
        made.append(struct.pack(">2HI", 0, 0x801, n) + y.tobytes())
    zipped = [gzip.compress(content) for content in made]
    for file, content in zip(idx._NAMES, zipped, strict=True):
        (folder / file).write_bytes(content)
    with pytest.raises(DataError, match="SHA-256 differs; delete it"):
        load_data(name)
    monkeypatch.setattr(idx, "_COUNTS", {"train": 5, "test": 3})
    monkeypatch.setattr(idx, pins, [pinned(f, c) for f, c in zip(idx._NAMES, zipped, strict=True)])
    data = load_data(name, validation=0)
    assert np.array_equal(data.train.x[:, 0], pictures[0]) and data.train.y.tolist() == [0, 1, 2, 3, 4]
    assert np.array_equal(data.splits["test"].x[:, 0], pictures[1]) and len(data.classes) == 10
    monkeypatch.setattr(idx, "_COUNTS", {"train": 3, "test": 5})
    with pytest.raises(DataError, match=r"does not unpack to 2,368 bytes"):
        load_data(name)
    monkeypatch.setattr(idx, "_COUNTS", {"train": 5, "test": 3})
    damaged = gzip.compress(b"\1" + made[0][1:])
    (folder / idx._NAMES[0]).write_bytes(damaged)
    monkeypatch.setattr(idx, pins, [pinned(idx._NAMES[0], damaged), *getattr(idx, pins)[1:]])
    with pytest.raises(DataError, match="is not an IDX file"):
        load_data(name)


def tar(path: Path, *members: tuple[str | tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members:
            member = tarfile.TarInfo(name) if isinstance(name, str) else name
            if member.isreg():
                member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def link(name: str, target: str) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = tarfile.SYMTYPE, target
    return member


def test_cifar10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = own(monkeypatch, tmp_path, "cifar10")
    records = np.random.default_rng(0).integers(0, 256, (6, 4, 3073), np.uint8)
    records[:, :, 0] %= 10
    names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    members = [(f"cifar-10-batches-bin/{n}.bin", r.tobytes()) for n, r in zip(names, records, strict=True)]
    members.insert(1, ("cifar-10-batches-bin/readme.html", b"<p>"))
    path = tar(folder / "cifar-10-binary.tar.gz", *members[::-1])
    with pytest.raises(DataError, match="SHA-256 differs; delete it"):
        load_data("cifar10")
    monkeypatch.setattr(cifar, "_TEN", pinned(path.name, path.read_bytes()))
    monkeypatch.setattr(cifar, "_BATCH", 4)
    data = load_data("cifar10", validation=0)
    assert np.array_equal(data.train.x, records[:5, :, 1:].reshape(20, 3, 32, 32))
    assert np.array_equal(data.splits["test"].x, records[5, :, 1:].reshape(4, 3, 32, 32))
    assert np.array_equal(data.train.y, records[:5, :, 0].ravel())
    assert data.classes[0] == "airplane" and data.classes[9] == "truck"
    assert left_in(tmp_path) == ["cifar10/cifar-10-binary.tar.gz"]


def test_cifar100(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = own(monkeypatch, tmp_path, "cifar100")
    train, test = np.split(np.random.default_rng(0).integers(0, 100, (12, 3074), np.uint8), [10])
    members = [("cifar-100-binary/test.bin", test.tobytes()), ("cifar-100-binary/train.bin", train.tobytes())]
    path = tar(folder / "cifar-100-binary.tar.gz", *members)
    monkeypatch.setattr(cifar, "_HUNDRED", pinned(path.name, path.read_bytes()))
    monkeypatch.setattr(cifar, "_BATCH", 2)
    data = load_data("cifar100", validation=0)
    assert np.array_equal(data.train.x.flatten(1), train[:, 2:]) and np.array_equal(data.train.y, train[:, 1])
    assert np.array_equal(data.splits["test"].x.flatten(1), test[:, 2:])
    assert len(set(data.classes)) == 100 and list(data.classes) == sorted(data.classes)


def test_stl10_and_its_pictures_without_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = own(monkeypatch, tmp_path, "stl10")
    x = np.random.default_rng(0).integers(0, 256, (9, 3, 96, 96), np.uint8)  # (N, C, row, column)
    stored = np.ascontiguousarray(x.swapaxes(2, 3))
    parts = {"test_X": stored[:3], "test_y": np.array([10, 1, 2], np.uint8), "train_X": stored[3:5],
             "train_y": np.array([1, 10], np.uint8), "unlabeled_X": stored[5:]}  # fmt: skip
    path = tar(folder / "stl10_binary.tar.gz", *((f"stl10_binary/{n}.bin", v.tobytes()) for n, v in parts.items()))
    monkeypatch.setattr(stl10, "_FILE", pinned(path.name, path.read_bytes()))
    monkeypatch.setattr(stl10, "_COUNTS", {"train": 2, "test": 3, "unlabeled": 4})
    data = load_data("stl10", validation=0)
    assert np.array_equal(data.train.x, x[3:5]) and not np.array_equal(data.train.x, stored[3:5])
    assert data.train.y.tolist() == [0, 9] and data.splits["test"].y.tolist() == [9, 0, 1]
    assert data.classes[0] == "airplane" and data.spec.classes == 10
    other = load_data("stl10-unlabelled", validation=0)
    assert np.array_equal(other.train.x, x[5:]) and np.array_equal(other.splits["test"].x, x[:3])
    assert other.train.y is None and other.splits["test"].y is None and other.spec.classes == 0
    same = load_data({"name": "stl10", "unlabelled": True}, validation=0)
    assert same.fingerprint == other.fingerprint


def bomb(path: Path) -> Path:
    return tar(path, ("a/x.bin", bytes(50_000_000)))


def escape(path: Path) -> Path:
    return tar(path, ("../evil.txt", b"evil"), (link("a", "/tmp"), b""), ("a/x.bin", b"12345"))


def cut(path: Path) -> Path:
    tar(path, ("a/w.bin", os.urandom(100_000)), ("a/x.bin", b"12345"))
    path.write_bytes(path.read_bytes()[:50_000])
    return path


def text(path: Path) -> Path:
    path.write_text("<html>not found</html>")
    return path


REFUSED: dict[str, tuple[Callable[[Path], Path], str]] = {
    "it is missing": (lambda p: tar(p, ("a/y.bin", b"12345")), r"lacks a/x\.bin"),
    "another folder": (lambda p: tar(p, ("b/a/x.bin", b"12345"), ("/a/x.bin", b"12345")), r"lacks a/x\.bin"),
    "it is a link": (lambda p: tar(p, (link("a/x.bin", "/etc/passwd"), b"")), "not a file of 5 bytes"),
    "it is longer": (bomb, "not a file of 5 bytes"),
    "it is shorter": (lambda p: tar(p, ("a/x.bin", b"1234")), "not a file of 5 bytes"),
    "cut off": (cut, "cannot be unpacked"),
    "no archive": (text, "cannot be unpacked"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_an_archive_is_refused_when(case: str, tmp_path: Path) -> None:
    make, message = REFUSED[case]
    path = make(tmp_path / "a.tar.gz")
    with pytest.raises(DataError, match=message) as caught:
        read_tar(path, {"a/x.bin": 5})
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_nothing_is_unpacked_onto_the_disk(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    path = escape(tmp_path / "in" / "a.tar.gz")
    assert bytes(read_tar(path, {"a/x.bin": 5})["a/x.bin"].tolist()) == b"12345"
    assert left_in(tmp_path) == ["in/a.tar.gz"]
    with tarfile.open(tar(tmp_path / "in" / "b.tar.gz", ("../evil.txt", b"evil"))) as archive:  # the control
        archive.extractall(tmp_path / "in", **TRUSTING)
    assert "evil.txt" in left_in(tmp_path)


def test_members_come_out_as_they_went_in(tmp_path: Path) -> None:
    content = os.urandom(3_000_000)
    path = tar(tmp_path / "a.tar.gz", ("./a/x.bin", content), ("a/y.bin", b""))
    found = read_tar(path, {"a/x.bin": len(content), "a/y.bin": 0})
    assert found["a/x.bin"].dtype == torch.uint8 and bytes(found["a/x.bin"].numpy()) == content
    assert len(found["a/y.bin"]) == 0
