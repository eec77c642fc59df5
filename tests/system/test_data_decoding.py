"""Many pictures at once: guessed from the first, decoded in threads or processes, a few at a time."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import sandglass
from sandglass.data.load import load_data
from sandglass.data.sources import decoding, folders, images
from sandglass.data.sources.layouts import list_splits
from sandglass.data.transform import ImageTransform
from sandglass.errors import DataError

SOURCE = str(Path(sandglass.__file__).parents[1])


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("SANDGLASS_CACHE", str(path))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """70 pictures and a damaged one."""
    random = np.random.default_rng(0)
    (tmp_path / "pictures").mkdir()
    for number in range(70):
        path = tmp_path / f"pictures/{number:03}.png"
        Image.fromarray(random.integers(0, 256, (9, 7, 3), np.uint8)).save(path)
    (tmp_path / "pictures/broken.png").write_bytes(path.read_bytes()[:60])
    return tmp_path / "pictures"


FIRST = {
    "grey, then colour": ("L", [("RGB", (7, 9))]),
    "colour, then grey": ("RGB", [("L", (7, 9))]),
    "all grey": ("L", [("L", (7, 9))]),
    "grey with alpha of 16 bits": ("LA", [("L", (7, 9))]),
}


@pytest.mark.parametrize("case", FIRST)
@pytest.mark.parametrize("broken", [False, True])
def test_a_guess_from_the_first_picture_never_decides(case: str, broken: bool, tmp_path: Path) -> None:
    """What comes out is what a look at every header would have said."""
    first, others = FIRST[case]
    for number in range(70):
        mode, size = (first, (7, 9)) if number == 0 else others[0]
        Image.new(mode, size, number).save(tmp_path / f"{number:02}.png")
    if broken:  # in colour by its header, which is all of it that can be read
        Image.effect_noise((7, 9), 50).convert("RGB").save(tmp_path / "99.png")
        (tmp_path / "99.png").write_bytes((tmp_path / "99.png").read_bytes()[:60])
    items = list_splits(tmp_path, labels=False)[0]["train"]
    asked = folders.Asked(None, None, None, None, None)
    with images.quiet():
        expected = folders._fit(items, asked)
    assert load_data(tmp_path).transform == expected
    assert load_data(tmp_path, cache=True).transform == expected


def test_other_sizes_are_refused_though_the_first_promised_one(tmp_path: Path, _own_cache: Path) -> None:
    for number in range(70):
        Image.new("RGB", (7, 9 if number < 69 else 8)).save(tmp_path / f"{number:02}.png")
    for keep in (True, False):
        with pytest.raises(DataError, match="2 sizes"):
            load_data(tmp_path, cache=keep)
    assert not list(_own_cache.glob("*/*/rows"))


@pytest.fixture
def crowd() -> Iterator[list[decoding.Apart]]:
    found: list[decoding.Apart] = []
    yield found
    for worker in found:
        worker.close()


FRAME = ImageTransform((6, 5), 3)


def decoded(names: list[str], *, processes: bool) -> list[decoding.Decoded]:
    with decoding.Crew(names, processes=processes) as crew:
        return list(crew.decode(FRAME))


def paths(folder: Path) -> list[str]:
    return [item.content for item in list_splits(folder, labels=False)[0]["train"]]


def test_processes_decode_what_threads_do(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = paths(folder)
    (folder / os.fsdecode(b"odd\xff\n.png")).write_bytes(Path(names[5]).read_bytes())
    names = paths(folder)
    monkeypatch.setattr(decoding, "_AT_ONCE", 64)
    a, b = (decoded(names, processes=p) for p in (True, False))
    assert len(a) == len(b) == 2
    for x, y in zip(a, b, strict=True):
        assert (x.count, x.data, x.digests, x.bad, x.remarks, x.seen) == (
            y.count,
            y.data,
            y.digests,
            y.bad,
            y.remarks,
            y.seen,
        )
    assert len(a[0].bad) + len(a[1].bad) == 1


def test_a_process_that_dies_is_made_up_for(folder: Path, crowd: list[decoding.Apart]) -> None:
    names = paths(folder)[:20]
    worker = decoding.Apart()
    crowd.append(worker)
    good = worker(names, FRAME)
    assert worker.process is not None
    worker.process.kill()
    worker.process.wait()
    again = worker(names, FRAME)
    assert worker.process is None
    assert good == again and good.count == 20


def test_a_process_imports_neither_pytorch_nor_numpy_nor_what_lies_about(tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('not this one')")
    script = (
        "import sys; import sandglass.data.sources.decoding; sys.exit(not {'torch', 'numpy'}.isdisjoint(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-P", "-c", script], cwd=tmp_path, env=os.environ | {"PYTHONPATH": SOURCE})
    assert done.returncode == 0


def test_only_some_pictures_are_held_at_a_time() -> None:
    """The decoder runs ahead of whoever takes the pictures, but not far."""
    things = iter(range(1000))
    results = decoding.ahead(lambda n: n, things, 2)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    assert next(things) <= 8
    results.close()
