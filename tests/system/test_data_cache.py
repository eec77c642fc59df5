"""Decoded pictures on disk: the same as in memory, noticed when old or damaged, and never all in memory."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, Thread

import numpy as np
import pytest
import torch
from PIL import Image

import sandglass
from sandglass.app.main import main
from sandglass.data import cache, rows
from sandglass.data.dataset import Dataset, Split
from sandglass.data.load import load_data
from sandglass.data.loading import Loader, in_order
from sandglass.data.rows import Rows
from sandglass.data.sources import decoding, folders
from sandglass.data.sources.layouts import list_splits
from sandglass.errors import ConfigError, DataError, SaveError

SOURCE = str(Path(sandglass.__file__).parents[1])


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SANDGLASS_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """70 pictures in two classes, of which two are copies and one is damaged."""
    random = np.random.default_rng(0)
    for number in range(70):
        path = tmp_path / "pictures" / ("cat" if number % 2 else "dog") / f"{number:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (9, 7, 3), np.uint8)).save(path)
    (tmp_path / "pictures/dog/copy.png").write_bytes(path.read_bytes())
    (tmp_path / "pictures/cat/broken.png").write_bytes(path.read_bytes()[:60])
    return tmp_path / "pictures"


def whole(x: torch.Tensor | Rows) -> torch.Tensor:
    return torch.cat(list(x.blocks())) if isinstance(x, Rows) else x


def same(a: Dataset, b: Dataset) -> bool:
    splits = [(a.splits[s], b.splits[s]) for s in a.splits if s in b.splits]
    return (a.fingerprint, a.classes, list(a.splits)) == (b.fingerprint, b.classes, list(b.splits)) and all(
        torch.equal(whole(p.x), whole(q.x)) and torch.equal(p.y, q.y) and p.names == q.names for p, q in splits
    )


def fresh(folder: Path, **options: object) -> Dataset:
    return load_data(folder, cache=False, **options)


def kept(folder: Path, **options: object) -> Dataset:
    data = load_data(folder, cache=True, **options)
    assert isinstance(data.train.x, Rows)
    return data


def rows_file(name: str = "pixels.bin") -> Path:
    (found,) = cache.home().glob(f"*/rows/{name}")
    return found


def is_made(monkeypatch: pytest.MonkeyPatch, read: Callable[[], object]) -> bool:
    """Whether reading decodes anything."""
    calls = []
    with monkeypatch.context() as patch:
        original = decoding.Crew.decode
        patch.setattr(decoding.Crew, "decode", lambda *a: calls.append(1) or original(*a))
        read()
    return bool(calls)


def test_it_is_what_would_be_in_memory(folder: Path) -> None:
    for options in ({}, {"limit": 20, "seed": 3}, {"size": "6x5", "channels": 1}, {"labels": False, "size": 4}):
        a, b = fresh(folder, **options), kept(folder, **options)
        assert a.fingerprint == b.fingerprint
        assert all(torch.equal(a.splits[s].x, whole(b.splits[s].x)) for s in a.splits)
        assert [n for n in b.notes if "decoded into the cache" not in n] == list(a.notes)
    assert same(fresh(folder), kept(folder))
    assert "could not be read" in str(kept(folder).notes)


def test_batches_are_bit_for_bit_those_of_memory(folder: Path) -> None:
    a, b = (Loader(data.train, 16, seed=5) for data in (fresh(folder), kept(folder)))
    for step in range(3 * a.steps_per_epoch):
        x, y = a.batch(step), b.batch(step)
        assert torch.equal(x.x, y.x) and torch.equal(x.y, y.y) and torch.equal(x.index, y.index)
        assert x.x.dtype == y.x.dtype == torch.float32
    assert not torch.equal(a.batch(0).x, b.batch(1).x)


def test_splits_of_the_source_are_views_of_one_file(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "split").mkdir()
    for name in ("train", "test"):
        (tmp_path / "split" / name).symlink_to(folder)  # links are not entered
    assert not list_splits(tmp_path / "split", labels=True)[0]["train"]
    for name in ("train", "test"):
        (tmp_path / "split" / name).unlink()
    folder.rename(tmp_path / "split/train")
    (tmp_path / "split/test/cat").mkdir(parents=True)
    (tmp_path / "split/test/dog").mkdir()
    for name in ("cat/001.png", "dog/002.png", "dog/004.png"):
        os.link(tmp_path / "split/train" / name, tmp_path / "split/test" / name)
    a, b = fresh(tmp_path / "split"), kept(tmp_path / "split")
    assert same(a, b)
    assert len({id(split.x.store) for split in b.splits.values()}) == 1
    assert b.splits["test"].take(torch.tensor([2])).x[torch.tensor([0])].equal(a.splits["test"].x[2:])


def test_rows_go_to_another_device_block_by_block(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = kept(folder)
    monkeypatch.setattr(rows, "_BLOCK", 2000)
    assert len(list(data.train.x.blocks())) > 3
    moved = data.train.to("meta")
    assert (moved.x.shape, moved.x.dtype, moved.x.device.type) == (data.train.x.shape, torch.uint8, "meta")
    assert data.train.to("cpu").x is data.train.x
    assert torch.equal(whole(data.train.x), fresh(folder).train.x)


def test_large_examples_are_measured_a_few_at_a_time() -> None:
    large, small = (Split(torch.zeros((8, *shape), dtype=torch.uint8)) for shape in ((3, 1200, 1200), (3, 12, 12)))
    assert [len(make()) for make in in_order(large)] == [3, 3, 2]
    assert len(in_order(small)) == 1


def test_a_whole_training_is_the_same(folder: Path, tmp_path: Path) -> None:
    options = {"epochs": 2, "model_options": {"latent_dim": 2, "net": {"name": "mlp", "widths": [8]}}, "seed": 1}
    runs = [
        sandglass.train("vae", str(folder), data_options={"cache": c}, out=tmp_path / str(c), **options)
        for c in (True, False)
    ]
    a, b = ([(m["step"], m["term"], m["split"], m["value"]) for m in run.metrics()] for run in runs)
    assert a == b
    assert runs[0].config["data"]["fingerprint"] == runs[1].config["data"]["fingerprint"]
    sandglass.evaluate(runs[0])
    assert main(["encode", str(tmp_path / "True"), "-o", str(tmp_path / "codes.npz")]) == 0
    assert main(["report", str(tmp_path / "True")]) == 0


def test_what_is_there_is_used_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_made(monkeypatch, lambda: kept(folder))
    assert not is_made(monkeypatch, lambda: kept(folder))
    assert not is_made(monkeypatch, lambda: kept(folder, seed=1))
    assert is_made(monkeypatch, lambda: fresh(folder))
    assert is_made(monkeypatch, lambda: kept(folder, size=5))


def test_the_fingerprint_is_computed_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unlabelled = {kept(folder, labels=False, seed=seed).fingerprint for seed in range(3)}
    assert unlabelled == {fresh(folder, labels=False, seed=seed).fingerprint for seed in range(3)}
    assert len(unlabelled) == 3
    first, other = kept(folder).fingerprint, kept(folder, seed=7).fingerprint
    read: list[int] = []
    original = Rows.blocks
    monkeypatch.setattr(Rows, "blocks", lambda self: read.append(1) or original(self))
    assert kept(folder).fingerprint == first
    assert kept(folder, seed=7).fingerprint == other != first
    assert not read
    known = cache.home().glob("*/fingerprints.json")
    next(known).write_text("{}")
    assert kept(folder).fingerprint == first
    assert read


def _rewrite_unseen(folder: Path) -> None:
    """Other pixels under the same name, size and time of modification."""
    path = folder / "cat/001.png"
    before = path.stat()
    image = Image.open(path)
    turned = Image.fromarray(np.asarray(image)[::-1])
    for level in range(10):
        turned.save(path, compress_level=level)
        if path.stat().st_size == before.st_size:
            break
    assert path.stat().st_size == before.st_size
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_mtime_ns == before.st_mtime_ns


CHANGES: dict[str, Callable[[Path], object]] = {
    "added": lambda f: Image.new("RGB", (7, 9), "red").save(f / "cat/new.png"),
    "removed": lambda f: (f / "dog/000.png").unlink(),
    "changed": lambda f: Image.new("RGB", (7, 9), "red").save(f / "cat/001.png"),
    "renamed": lambda f: (f / "cat/001.png").rename(f / "cat/zzz.png"),
    "rewritten with its old time": _rewrite_unseen,
    "repaired": lambda f: Image.new("RGB", (7, 9), "red").save(f / "cat/broken.png"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_noticed(change: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = kept(folder)
    CHANGES[change](folder)
    assert is_made(monkeypatch, lambda: kept(folder))
    assert same(kept(folder), fresh(folder))
    assert kept(folder).fingerprint != before.fingerprint
    assert len(list(cache.home().iterdir())) == 1, "the old copy is replaced"


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


DAMAGES: dict[str, Callable[[], object]] = {
    "a bit of the pixels": lambda: _flip(rows_file()),
    "pixels cut short": lambda: os.truncate(rows_file(), 100),
    "no pixels": lambda: rows_file().unlink(),
    "a bit of the digests": lambda: _flip(rows_file("digests.bin")),
    "a bit of what is said of them": lambda: _flip(rows_file("about.json")),
    "a bit of the manifest": lambda: _flip(rows_file("MANIFEST.json")),
    "no manifest": lambda: rows_file("MANIFEST.json").unlink(),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_noticed(damage: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = kept(folder)
    before = whole(good.train.x)
    DAMAGES[damage]()
    if damage == "a bit of the pixels":  # the control: read as it lies there, the change goes through
        assert not torch.equal(
            whole(Rows(good.train.x.store, torch.arange(71))), whole(fresh(folder, validation=0).train.x)
        )
    assert is_made(monkeypatch, lambda: kept(folder))
    after = kept(folder)
    assert torch.equal(whole(after.train.x), before)
    assert after.fingerprint == good.fingerprint


def test_one_killed_while_it_writes_leaves_room_for_the_next(folder: Path) -> None:
    """The second process waits for the first, which is killed half-way, and makes it all itself."""
    script = f"""
        import os, signal, sys, time
        from sandglass.data import cache, rows
        from sandglass.data.load import load_data
        write = cache.storage._write
        def killed(path, content):
            write(path, content)
            if path.name == "digests.bin":
                print("here", flush=True)
                sys.stdin.readline()
                os.kill(os.getpid(), signal.SIGKILL)
        cache.storage._write = killed
        load_data({str(folder)!r}, cache=True)
    """
    first = start_script(script)
    assert first.stdout is not None
    assert first.stdout.readline() == "here\n"
    second = Thread(target=kept, args=(folder,))
    second.start()
    second.join(0.2)
    assert second.is_alive(), "it waits for the other process"
    assert list(cache.home().glob("*/.rows.tmp-*"))
    assert not list(cache.home().glob("*/rows"))
    first.communicate("now", timeout=60)
    assert first.returncode == -signal.SIGKILL
    second.join(60)
    assert not list(cache.home().glob("*/.rows*"))
    assert same(kept(folder), fresh(folder))


def test_two_at_once_make_it_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    original, both = decoding.Crew.decode, Barrier(2)
    monkeypatch.setattr(decoding.Crew, "decode", lambda *a: calls.append(1) or original(*a))
    find = cache.find
    seen: list[object] = []

    def find_together(where: Path, stamp: str, **options: bool) -> cache.Kept | None:
        found = find(where, stamp, **options)
        if len(seen) < 2:
            seen.append(found)
            both.wait(30)  # both have looked, and neither found it
        return found

    monkeypatch.setattr(cache, "find", find_together)
    with ThreadPoolExecutor(2) as pool:
        a, b = pool.map(lambda _: kept(folder), range(2))
    assert seen == [None, None]
    assert len(calls) == 1
    assert same(a, b)


def start_script(script: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)],
        env=os.environ | {"PYTHONPATH": SOURCE, "OMP_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_small_folders_need_none(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(load_data(folder).train.x, torch.Tensor)
    assert not cache.home().exists()
    monkeypatch.setattr(cache, "LARGE", 1000)
    data = load_data(folder)
    assert isinstance(data.train.x, Rows)
    assert any("decoded into the cache" in note for note in data.notes)
    assert isinstance(load_data(folder, cache=False).train.x, torch.Tensor)
    assert data.source is not None and "cache" not in data.source
    assert kept(folder).source["cache"] is True


def test_where_nothing_can_be_kept(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SANDGLASS_CACHE", str(tmp_path / "file"))
    with pytest.raises(SaveError, match="cannot be written"):
        load_data(folder, cache=True)
    monkeypatch.setattr(cache, "LARGE", 1000)
    data = load_data(folder)
    assert isinstance(data.train.x, torch.Tensor)
    assert any("not cached" in note for note in data.notes)
    monkeypatch.setattr(folders, "_FITS", 1000)
    with pytest.raises(SaveError):
        load_data(folder)


def test_no_room_is_said_before_anything_is_decoded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = cache.shutil.disk_usage
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda p: usage(p)._replace(free=1000))
    with pytest.raises(SaveError, match="free"):
        load_data(folder, cache=True)
    assert not list(cache.home().glob("*/rows"))


def test_what_was_not_used_for_longest_goes_first(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = {}
    for size in (8, 9, 10):
        kept(folder, size=size)
        (made[size],) = set(cache.home().glob("*/rows")) - set(made.values())
        os.utime(made[size], (size, size))
    kept(folder, size=8)  # used now
    total = sum(map(cache._size, cache.home().iterdir()))
    monkeypatch.setattr(cache, "CAP", total + 72 * 3 * 11 * 11 - 1)
    kept(folder, size=11)
    assert [made[size].exists() for size in (8, 9, 10)] == [True, False, True]
    archive = cache.home().parent / "archives/a.zip-1/pictures/a.png"
    archive.parent.mkdir(parents=True)
    archive.write_bytes(b"123")
    assert cache.clear() > 0 and not archive.exists()
    assert not list(cache.home().glob("*/rows"))


def test_on_the_command_line(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["train", "ae", "--data", str(folder), "--epochs", "1", "--latent-dim", "2", "--no-report"]
    for number, (flag, files) in enumerate((("--no-cache", 0), ("--cache", 1)), 1):
        assert main([*words, flag]) == 0
        assert len(list(cache.home().glob("*/rows"))) == files
        assert (f"cache: {'true' if files else 'false'}") in (
            tmp_path / f"runs/ae-pictures-{number}/config.yaml"
        ).read_text()
    assert main(["datasets", "--clear-cache"]) == 0
    assert "deleted" in capsys.readouterr().out
    assert not cache.home().exists()


def test_it_is_for_folders() -> None:
    with pytest.raises(ConfigError, match="folder"):
        load_data(np.zeros((20, 4, 4, 3), np.uint8), cache=True)


def test_a_picture_that_was_added_is_noticed_at_resume(folder: Path, tmp_path: Path) -> None:
    options = {"epochs": 1, "model_options": {"latent_dim": 2, "net": {"name": "mlp", "widths": [8]}}}
    run = sandglass.train("ae", str(folder), data_options={"cache": True}, out=tmp_path / "run", **options)
    sandglass.resume(run.path, epochs=2)
    Image.new("RGB", (7, 9), "red").save(folder / "cat/new.png")
    with pytest.raises(DataError, match="it has 72 examples, the run had 71"):
        sandglass.resume(run.path, epochs=3)
    (folder / "cat/new.png").unlink()
    sandglass.resume(run.path, epochs=3)
