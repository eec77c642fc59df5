"""The registered datasets, and how light their modules are to import."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from sandglass.data.fingerprint import fingerprint
from sandglass.data.load import load_data
from sandglass.data.transform import ImageTransform
from sandglass.errors import ConfigError, DataError, NotFoundError
from sandglass.registry import entry, names

needs_mnist = pytest.mark.skipif(
    not Path(os.environ.get("SANDGLASS_DATA", "/nonexistent"), "mnist").is_dir(), reason="SANDGLASS_DATA has no mnist/"
)


def test_digits():
    data = load_data("digits")
    assert data.spec.shape == (1, 8, 8)
    assert data.spec.levels == 17
    assert data.spec.classes == 10
    assert data.spec.support == "levels"
    assert data.source == {"source": "digits"}
    assert sum(len(s) for s in data.splits.values()) == 1797
    every = torch.cat([s.x for s in data.splits.values()]).double()
    assert every.mean() == pytest.approx(4.8841646, abs=1e-6)
    assert every.max() == 16
    assert data.train.batch(slice(0, 50)).x.max() == 1
    shares = torch.stack([s.y.bincount() / len(s) for s in data.splits.values()])
    assert (shares - 0.1).abs().max() < 0.01
    seen = [{x.numpy().tobytes() for x in s.x} for s in data.splits.values()]
    assert len(set.union(*seen)) == sum(map(len, seen))


def test_digits_at_another_size():
    data = load_data("digits", size=16, channels=3, labels=False)
    assert data.spec.shape == (3, 16, 16)
    assert data.spec.levels == 256
    assert data.train.y is None
    assert data.notes == ("pictures were converted from 1x8x8 to 3x16x16 (crop)",)
    again = load_data("digits", transform=load_data("digits").transform)
    assert torch.equal(again.train.x, load_data("digits").train.x)


@needs_mnist
def test_mnist():
    data = load_data("mnist", validation=0)
    assert data.train.x.shape == (60000, 1, 28, 28)
    assert data.splits["test"].x.shape == (10000, 1, 28, 28)
    assert data.train.x.float().mean(dtype=torch.float64) == pytest.approx(33.318421, abs=1e-5)
    assert data.train.y.bincount().tolist()[:2] == [5923, 6742]
    assert data.train.y[:5].tolist() == [5, 0, 4, 1, 9]
    start = time.perf_counter()
    assert fingerprint(data.spec, data.splits, data.classes) == data.fingerprint
    assert time.perf_counter() - start < 0.5
    data.train.x[777, 0, 14, 14] += 1
    assert fingerprint(data.spec, data.splits, data.classes) != data.fingerprint


@needs_mnist
def test_mnist_files_are_checked(tmp_path, monkeypatch):
    source = Path(os.environ["SANDGLASS_DATA"], "mnist")
    shutil.copytree(source, tmp_path / "mnist")
    monkeypatch.setenv("SANDGLASS_DATA", str(tmp_path))
    target = tmp_path / "mnist" / "train-labels-idx1-ubyte.gz"
    target.chmod(0o644)
    target.parent.chmod(0o755)
    content = bytearray(gzip.decompress(target.read_bytes()))
    target.write_bytes(gzip.compress(bytes(content)))
    load_data("mnist", limit=10)
    content[100] ^= 1
    target.write_bytes(gzip.compress(bytes(content)))
    with pytest.raises(DataError, match="its SHA-256 differs"):
        load_data("mnist")
    target.write_bytes(target.read_bytes()[:1000])
    with pytest.raises(DataError, match="cannot be unpacked"):
        load_data("mnist")


def test_mnist_without_files_or_network(tmp_path, monkeypatch):
    import pooch

    def offline(*_args, **_kwargs):
        raise OSError("no route")

    monkeypatch.setattr(pooch, "retrieve", offline)
    monkeypatch.setenv("SANDGLASS_DATA", str(tmp_path))
    with pytest.raises(NotFoundError, match=r"no route.*set SANDGLASS_DATA"):
        load_data("mnist")


SETS = {"cifar10", "cifar100", "digits", "fashion-mnist", "grid", "kmnist", "mnist", "ring", "shapes",
        "stacked-mnist", "stl10", "stl10-unlabelled"}  # fmt: skip


def test_registered_datasets_describe_themselves():
    assert set(names("dataset")) >= SETS
    for name in names("dataset"):
        found = entry("dataset", name)
        assert found.summary
        assert all(getattr(found.make, a) for a in ("size", "shape", "licence", "origin"))


SMALL = {"name": "shapes", "side": 16, "scales": 2, "rotations": 3, "positions": 4}


def test_a_dataset_takes_options_and_is_found_again():
    data = load_data(SMALL)
    assert data.name == "shapes"
    assert data.spec.shape == (1, 16, 16)
    assert data.spec.support == "binary"
    assert data.source == {"source": SMALL}
    again = load_data(**json.loads(json.dumps(data.source)))
    assert again.fingerprint == data.fingerprint
    assert load_data("ring").fingerprint == load_data({"name": "ring", "seed": 0}).fingerprint
    assert load_data("ring").fingerprint != load_data({"name": "ring", "seed": 1}).fingerprint


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"name": "shape"}, "no dataset 'shape'.*Did you mean 'shapes'"),
        ({"name": "shapes", "sides": 8}, "no option 'sides'.*Did you mean 'side'"),
        ({"name": "shapes", "side": 7}, "side must be a whole number of at least 8, not 7"),
        ({"name": "shapes", "side": "big"}, "side must be a whole number"),
        ({"name": "shapes", "scales": True}, "scales must be a whole number"),
        ({"name": "shapes", "positions": 10**6}, "too many"),
        ({"name": "ring", "examples": 0}, "examples must be"),
        ({"name": "grid", "seed": -1}, "seed must be"),
        ({"name": "stacked-mnist", "examples": 1.5}, "examples must be"),
        ({"name": "digits", "side": 9}, "no option 'side'"),
    ],
)
def test_options_that_make_no_sense(source, message):
    with pytest.raises(ConfigError, match=message):
        load_data(source)


def test_factors_follow_their_pictures():
    data = load_data(SMALL, limit=50, seed=3)
    whole = entry("dataset", "shapes").make(**{k: v for k, v in SMALL.items() if k != "name"}).read().parts["train"]
    assert data.factors == ("shape", "scale", "rotation", "x", "y")
    known = {tuple(f): x for f, x in zip(whole.factors.tolist(), whole.x, strict=True)}
    for split in data.splits.values():
        assert split.factors.shape == (len(split), 5)
        assert torch.equal(split.factors[:, 0], split.y)
        for x, f in zip(split.x, split.factors.tolist(), strict=True):
            assert torch.equal(x, known[tuple(f)])
    some = data.train.to("cpu").take(torch.tensor([4, 2]))
    assert torch.equal(some.factors, data.train.factors[[4, 2]])
    bigger = load_data(SMALL, size=20)
    assert torch.equal(bigger.train.factors, load_data(SMALL).train.factors)
    assert load_data("digits").train.factors is None


def test_points_keep_their_coordinates_unless_a_model_has_its_own():
    data = load_data("grid")
    assert data.spec.shape == (2,)
    assert data.spec.support == "real"
    assert data.train.x.abs().max() > 4
    assert np.allclose(data.transform.inverse(data.train.x), data.train.x)
    other = load_data(np.random.default_rng(0).normal(3, 2, (50, 2))).transform
    moved = load_data("grid", transform=other)
    assert torch.equal(moved.train.x, other.apply(data.train.x))
    with pytest.raises(ConfigError, match="size, fit and channels are for pictures"):
        load_data("ring", size=8)
    with pytest.raises(ConfigError, match="brings its own labels"):
        load_data("ring", labels=[1, 2])


def test_rows_do_not_read_a_model_of_pictures():
    with pytest.raises(DataError, match="not pictures of 1x8x8"):
        load_data(torch.randn(10, 5), transform=ImageTransform((8, 8), 1))


def test_import_is_light():
    code = (
        "import sys; from sandglass.registry.names import discover; discover('dataset'); import sandglass.data.load;"
        "heavy = ('pandas', 'sklearn', 'PIL', 'pooch', 'requests', 'rich', 'matplotlib');"
        "print([m for m in heavy if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    assert out.stdout.strip() == "[]"
