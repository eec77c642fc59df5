"""Archives that are damaged, or hold what cannot be read."""

from __future__ import annotations

import os
import stat
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from packing import entry, pack, picture, refused
from sandglass.data.load import load_data
from sandglass.data.sources import archives
from sandglass.errors import DataError, NotFoundError


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("SANDGLASS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "archives"


def test_damage_is_noticed(tmp_path, cache):
    members = {f"{i}.png": np.random.default_rng(i).bytes(3000) for i in range(5)}
    whole = pack(tmp_path / "w.tar", members).read_bytes()
    garbled = bytearray(whole)
    garbled[2 * 3584 : 2 * 3584 + 512] = b"\xff" * 512
    path = tmp_path / "g.tar"
    path.write_bytes(garbled)
    refused(path, cache, r"g\.tar cannot be unpacked \(an invalid header\)")
    with tarfile.open(path) as archive:  # the control: tarfile takes it for the end
        assert len(archive.getmembers()) == 2
    for suffix in (".zip", ".tgz", ".tar.bz2", ".tar.xz", ".tar"):
        content = pack(tmp_path / f"x{suffix}", members).read_bytes()
        for length in (0, 1, 20, 1000, 3000, len(content) * 9 // 10 if suffix != ".tar" else 9000):
            (tmp_path / f"c{suffix}").write_bytes(content[:length])
            refused(tmp_path / f"c{suffix}", cache, r"c\.\S+ (cannot be unpacked|is damaged|holds no picture)")
    flipped = bytearray(pack(tmp_path / "f.zip", members).read_bytes())
    flipped[1000] ^= 1
    (tmp_path / "f.zip").write_bytes(flipped)
    refused(tmp_path / "f.zip", cache, "f.zip cannot be unpacked")


def test_a_huge_header_does_not_fill_the_memory(tmp_path, cache):
    path = tmp_path / "p.tgz"
    with tarfile.open(path, "w:gz", format=tarfile.PAX_FORMAT) as archive:
        info = entry("a.png")
        info.pax_headers = {"comment": "x" * (8 * 2**20)}
        archive.addfile(info)
    refused(path, cache, "a header of more than a mebibyte")
    with tarfile.open(path) as archive:  # the control
        assert len(archive.getmembers()[0].pax_headers["comment"]) == 8 * 2**20


def test_a_size_below_zero_ends(tmp_path, cache):
    path = tmp_path / "n.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        info = entry("a.png", 0)
        info.pax_headers = {"size": "-1536"}
        archive.addfile(info)
    refused(path, cache, "cannot be unpacked|a negative size")


def test_zip_links_and_encrypted_members_are_left_out(tmp_path, cache):
    path = tmp_path / "z.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.png", picture())
        link = zipfile.ZipInfo("l.png")
        link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
        archive.writestr("s.png", picture())
    content = path.read_bytes()
    at = content.rindex(b"PK\1\2") + 8  # the flags of the last entry
    path.write_bytes(content[:at] + b"\1\0" + content[at + 2 :])
    _, notes = archives.unpack(path)
    assert notes == ("z.zip was unpacked: 1 picture, encrypted files left out (1), links left out (1)",)


def test_names_of_any_bytes(tmp_path, cache):
    names = ["é.png", "a\nb.png", "🦔.png", "-x.png", os.fsdecode(b"\xff\xfe.png"), "n" * 251 + ".png"]
    path = pack(tmp_path / "n.tar", {n: picture(i) for i, n in enumerate(names)} | {"m" * 252 + ".png": picture()})
    folder, notes = archives.unpack(path)
    assert sorted(os.listdir(folder)) == sorted(names)
    assert "names that are too long left out (1)" in notes[0]


def test_what_holds_no_picture_says_what_to_do(tmp_path, cache):
    refused(pack(tmp_path / "t.zip", {"data/t.csv": b"a,b\n1,2\n"}), cache, r"no picture but data/t\.csv; unpack it")
    refused(pack(tmp_path / "e.tar", {"a.txt": b""}), cache, "without a picture's extension left out")
    with pytest.raises(NotFoundError):
        load_data(tmp_path / "gone.zip")
    with pytest.raises(NotFoundError, match="class folders"):
        load_data(pack(tmp_path / "l.zip", {"a.png": picture()}), labels="x")


@pytest.mark.parametrize("suffix", [".zip", ".tar", ".tgz"])
def test_mutated_archives_raise_nothing_but_our_error(tmp_path, cache, suffix):
    members = {f"d{i}/{i}.png": picture(i) * 3 for i in range(4)} | {"x" * 120 + ".png": b"abc", "r.txt": b"d" * 700}
    whole = pack(tmp_path / f"w{suffix}", members).read_bytes()
    random, refusals = np.random.default_rng(0), 0
    for _ in range(60):
        mutant = bytearray(whole)
        for _ in range(random.choice([1, 2, 20])):
            at = int(random.integers(len(mutant)))
            kind = random.integers(4)
            if kind < 2:
                mutant[at] = random.integers(256)
            elif kind == 2:
                mutant[at : at + 8] = b"7" * 8
            else:
                del mutant[at : at + int(random.integers(1, 20))]
        (tmp_path / f"m{suffix}").write_bytes(mutant)
        try:
            archives.unpack(tmp_path / f"m{suffix}")
        except DataError as error:
            refusals += "\n" not in str(error)
    assert refusals > 20
