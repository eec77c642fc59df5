"""Archives of pictures: read like the folder they hold, and nothing of what they try ever happens."""

from __future__ import annotations

import io
import os
import shutil
import stat
import struct
import tarfile
import threading
import zipfile
import zlib
from pathlib import Path

import pytest

from packing import TRUSTING, entry, pack, picture, refused
from sandglass.data.load import load_data
from sandglass.data.sources import archives
from sandglass.errors import DataError, SaveError

EVIL = b"written by the archive"


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("SANDGLASS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "archives"


def everything(folder: Path) -> dict[str, bytes | str]:
    """Each file and link below a folder, with what is in it."""
    found = {}
    for root, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(root, name)
            mode = path.lstat().st_mode
            found[str(path.relative_to(folder))] = path.read_bytes() if stat.S_ISREG(mode) else oct(mode)
    return found


@pytest.mark.parametrize("suffix", [".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz"])
def test_an_archive_reads_like_the_folder_it_holds(tmp_path, cache, suffix):
    members = {
        f"photos/{s}/{c}/{i}.png": picture(10 * i + ord(c)) for s in ("train", "test") for c in "ab" for i in range(4)
    }
    path = pack(tmp_path / f"photos{suffix}", members | {"photos/readme.txt": b"hello", "__MACOSX/photos/._0.png": b""})
    for name, content in members.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    packed, folder = load_data(path), load_data(tmp_path / "photos")
    assert packed.fingerprint == folder.fingerprint
    assert packed.classes == ("a", "b") and {s: len(x) for s, x in packed.splits.items()} == {
        "train": 7, "validation": 1, "test": 8
    }  # fmt: skip
    assert packed.notes[0].startswith(f"photos{suffix} was unpacked: 16 pictures, files without a picture's extension")
    assert packed.source == {"source": str(path)}
    assert load_data(**packed.source).fingerprint == packed.fingerprint


def test_it_is_unpacked_once_and_anew_when_it_changed_or_was_damaged(tmp_path, cache, monkeypatch):
    path = pack(tmp_path / "p.zip", {"a.png": picture(1), "b.png": picture(2)})
    calls = []
    write = archives._write
    monkeypatch.setattr(archives, "_write", lambda *a: calls.append(a) or write(*a))
    folder, notes = archives.unpack(path)
    assert archives.unpack(path) == (folder, notes) and len(calls) == 1
    (folder / "a.png").write_bytes(b"")  # as after a power cut
    archives.unpack(path)
    assert len(calls) == 2 and (folder / "a.png").read_bytes() == picture(1)
    pack(path, {"a.png": picture(3)})
    assert archives.unpack(path)[0] == folder and len(calls) == 3
    assert sorted(p.name for p in folder.iterdir()) == ["a.png"]


def test_whole_or_not_at_all(tmp_path, cache, monkeypatch):
    path = pack(tmp_path / "p.zip", {"a.png": picture(1)})

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "rename", stop)
        archives.unpack(path)
    assert not [p for p in cache.iterdir() if not p.name.endswith(".lock")]
    found = []
    threads = [threading.Thread(target=lambda: found.append(archives.unpack(path))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4 and len(set(found)) == 1 and (found[0][0] / "a.png").read_bytes() == picture(1)


# What an archive can try, each as the entries of a tar file (paths are seen from the folder it is unpacked in). Beside
# that folder lie victim.png and the folder outside.
LONG = "/".join(["d" * 240] * 15)
ATTACKS = {
    "parent": [(entry("../evil.png", len(EVIL)), EVIL)],
    "parent-inside": [
        (entry("x", kind=tarfile.DIRTYPE, mode=0o755), b""), (entry("x/../../evil.png", len(EVIL)), EVIL),
    ],
    "absolute": [(entry("{top}/evil.png", len(EVIL)), EVIL)],
    "absolute-twice": [(entry("/{top}/evil.png", len(EVIL)), EVIL)],
    "link-out": [(entry("l.png", kind=tarfile.SYMTYPE, link="../victim.png"), b"")],
    "link-absolute": [(entry("l.png", kind=tarfile.SYMTYPE, link="{top}/victim.png"), b"")],
    "hardlink-out": [(entry("l.png", kind=tarfile.LNKTYPE, link="../victim.png"), b"")],
    "file-through-link": [
        (entry("d", kind=tarfile.SYMTYPE, link="../outside"), b""), (entry("d/evil.png", len(EVIL)), EVIL),
    ],
    "file-through-chain": [
        (entry("a", kind=tarfile.SYMTYPE, link=".."), b""), (entry("b", kind=tarfile.SYMTYPE, link="a/outside"), b""),
        (entry("b/evil.png", len(EVIL)), EVIL),
    ],
    "write-over-link": [
        (entry("l.png", kind=tarfile.SYMTYPE, link="../victim.png"), b""), (entry("l.png", len(EVIL)), EVIL),
    ],
    "write-over-hardlink": [
        (entry("l.png", kind=tarfile.LNKTYPE, link="../victim.png"), b""), (entry("l.png", len(EVIL)), EVIL),
    ],
    "long-path": [  # its resolved name is longer than a system call takes, where checks of it stop
        *((entry("/".join(LONG.split("/")[: i + 1]), kind=tarfile.DIRTYPE, mode=0o755), b"") for i in range(15)),
        (entry("short", kind=tarfile.SYMTYPE, link=LONG), b""),
        (entry("up", kind=tarfile.SYMTYPE, link="short/" + "../" * 15 + "../outside"), b""),
        (entry("up/evil.png", len(EVIL)), EVIL),
    ],
    "pipe": [(entry("p.png", kind=tarfile.FIFOTYPE), b"")],
    "device": [(entry("null.png", kind=tarfile.CHRTYPE), b"")],
    "duplicate": [(entry("ok/good.png", len(EVIL)), EVIL)],
    "backslash": [(entry("..\\evil.png", len(EVIL)), EVIL)],
    "run-as-root": [(entry("s.png", len(EVIL), mode=0o6777), EVIL)],
}  # fmt: skip


REASONS = {
    "parent": ", names with '..' left out (1)",
    "parent-inside": ", names with '..' left out (1)",
    "absolute": ", absolute names left out (1)",
    "absolute-twice": ", absolute names left out (1)",
    "link-out": ", links left out (1)",
    "link-absolute": ", links left out (1)",
    "hardlink-out": ", links left out (1)",
    "file-through-link": ", links left out (1)",
    "file-through-chain": ", links left out (2)",
    "write-over-link": ", links left out (1)",
    "write-over-hardlink": ", links left out (1)",
    "long-path": ", links left out (2)",
    "pipe": ", pipes and devices left out (1)",
    "device": ", pipes and devices left out (1)",
    "duplicate": ", duplicate names left out (1)",
    "backslash": ", names with backslashes or zeros left out (1)",
    "run-as-root": "2 pictures",
}


def attack(path: Path, top: Path, name: str) -> Path:
    with tarfile.open(path, "w") as archive:
        archive.addfile(entry("ok/good.png", len(picture())), io.BytesIO(picture()))
        for info, content in ATTACKS[name]:
            made = entry(info.name.format(top=top), info.size, info.type, info.linkname.format(top=top), info.mode)
            made.devmajor, made.devminor = 1, 3
            archive.addfile(made, io.BytesIO(content))
    return path


@pytest.mark.parametrize("name", ATTACKS)
def test_no_archive_leaves_its_folder(tmp_path, cache, name):
    (tmp_path / "outside").mkdir()
    (tmp_path / "victim.png").write_bytes(b"as it was")
    path = attack(tmp_path / "a.tar", tmp_path, name)
    before = everything(tmp_path)
    good = load_data(path, validation=0, test=0)
    folder = next(p / "pictures" for p in cache.iterdir() if p.is_dir())
    written = {p: p.lstat() for p in folder.rglob("*") if not stat.S_ISDIR(p.lstat().st_mode)}
    assert all(stat.S_ISREG(s.st_mode) and not s.st_mode & 0o7111 and s.st_nlink == 1 for s in written.values())
    after = everything(tmp_path)
    assert {k: v for k, v in after.items() if not k.startswith("cache")} == before
    assert (folder / "ok" / "good.png").read_bytes() == picture()
    assert len(good.train) == 1
    assert good.notes[0].endswith(REASONS[name])

    # The control: what tarfile makes of it where it is let.
    naive = tmp_path / "naive"
    naive.mkdir()
    with tarfile.open(path) as archive:
        try:
            archive.extractall(naive, **TRUSTING)
        except OSError as error:
            if name == "device" and os.geteuid() != 0:
                pytest.skip(f"devices cannot be made here: {error}")
            raise
    outside = {k: v for k, v in everything(tmp_path).items() if not k.startswith(("cache", "naive"))} != before
    modes = [p.lstat() for p in naive.rglob("*")]
    odd = any(not (stat.S_ISREG(s.st_mode) or stat.S_ISDIR(s.st_mode)) or s.st_mode & 0o6000 for s in modes)
    linked = any(stat.S_ISREG(s.st_mode) and s.st_nlink > 1 for s in modes)
    replaced = (naive / "ok" / "good.png").read_bytes() == EVIL
    assert outside or odd or linked or replaced or (naive / "..\\evil.png").exists()


def deflated(megabytes: int) -> bytes:
    """A raw deflate stream of that many megabytes of zeros, about a thousandth as long."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = packer.compress(bytes(2**20)) + packer.flush(zlib.Z_FULL_FLUSH)
    return block * megabytes + zlib.compressobj(9, zlib.DEFLATED, -15).flush()


def zipped(path: Path, body: bytes, sizes: list[int], offsets: list[int] | None = None) -> Path:
    """A zip file of one deflated body, with a central entry for each size that is claimed."""
    name = b"a.png"
    start = struct.pack("<4s5H3L2H", b"PK\3\4", 20, 0, 8, 0, 0, 0, len(body), sizes[0], len(name), 0) + name
    content = start + body
    directory = b"".join(
        struct.pack(
            "<4s6H3L5H2L", b"PK\1\2", 20, 20, 0, 8, 0, 0, 0, len(body), size, len(name), 0, 0, 0, 0, 0, 0
        ) + name
        for size in sizes
    )  # fmt: skip
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, len(sizes), len(sizes), len(directory), len(content), 0)
    path.write_bytes(content + directory + end)
    return path


def test_bombs_are_refused_before_anything_is_written(tmp_path, cache):
    body = deflated(40)
    small = zipped(tmp_path / "small.zip", body, [40 * 2**20])
    refused(small, cache, "small.zip has 0.0 MiB and would unpack to more than 16 MiB, like a decompression bomb")
    with zipfile.ZipFile(small) as archive, archive.open("a.png") as content:  # the control: zipfile goes on
        assert sum(len(content.read(2**20)) for _ in range(39)) > 800 * small.stat().st_size
    refused(zipped(tmp_path / "large.zip", deflated(2000), [2000 * 2**20]), cache, "like a decompression bomb")
    refused(zipped(tmp_path / "twice.zip", body, [2**20, 2**20]), cache, "overlapping entries")
    refused(zipped(tmp_path / "liar.zip", body, [1000]), cache, "liar.zip cannot be unpacked")
    assert len(zlib.decompress(body, -15)) == 40 * 2**20  # the control: what a reader that believes nothing gets
    inner = pack(tmp_path / "inner.zip", {"a.png": picture()}).read_bytes()
    refused(pack(tmp_path / "nested.zip", {f"{i}.zip": inner for i in range(9)}), cache, "no picture .*without a")
    refused(pack(tmp_path / "zeros.tgz", {"a.png": bytes(20 * 2**20)}), cache, "like a decompression bomb")
    refused(pack(tmp_path / "zeros.tar.xz", {"a.bin": bytes(20 * 2**20)}), cache, "like a decompression bomb")


def test_many_empty_files_are_no_small_thing(tmp_path, cache):
    path = pack(tmp_path / "many.tar.xz", {f"{i}.png": b"" for i in range(4200)})
    refused(path, cache, "like a decompression bomb")
    with tarfile.open(path) as archive:  # the control
        assert sum(member.size for member in archive) == 0


def test_a_large_archive_of_packed_pictures_passes(tmp_path, monkeypatch):
    """A zip of 5 GiB of JPEGs is as large as what is in it: no bomb by any measure, only by a fixed limit."""
    path = tmp_path / "a.zip"
    with path.open("wb") as file:
        file.truncate(5 * 2**30)
    one = archives.Member("a.jpg", "file", 5 * 2**20, lambda: iter(()))
    monkeypatch.setattr(archives, "members", lambda _: iter([one] * 1030))
    assert archives._judge(path) == 1030 * 5 * 2**20 > archives.LARGE
    with path.open("wb") as file:
        file.truncate(5 * 2**20)
    with pytest.raises(DataError, match=r"would unpack to more than 0.98 GiB"):
        archives._judge(path)


@pytest.mark.parametrize("pieces", [3, 1000])
def test_what_is_written_is_what_was_declared(tmp_path, cache, monkeypatch, pieces):
    """A decoder that gives another number of bytes than it said is not believed, and not for long."""
    given = []

    def read():
        for _ in range(pieces):
            given.append(None)
            yield bytes(10)

    monkeypatch.setattr(archives, "members", lambda _: iter([archives.Member("a.png", "file", 40, read)]))
    (tmp_path / "a.zip").touch()
    refused(tmp_path / "a.zip", cache, r"a\.zip is damaged: a\.png has another size")
    assert len(given) == min(pieces, 5)


def test_a_full_disk_is_seen_before_it_is_full(tmp_path, cache, monkeypatch):
    path = pack(tmp_path / "a.zip", {"a.png": picture()})
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    refused(path, cache, r"a\.zip unpacks to 0 MiB, and .* has 0 MiB left; make room, or set SANDGLASS_CACHE")


def test_a_cache_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("SANDGLASS_CACHE", str(tmp_path / "file"))
    with pytest.raises(SaveError, match=r"a\.zip cannot be unpacked into \S+: .*Not a directory"):
        load_data(pack(tmp_path / "a.zip", {"a.png": picture()}))
